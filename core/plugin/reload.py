"""Edits of config.yaml take effect soon after the file is saved, without a restart: either the whole edit or nothing of
it.

Voices, personas, the limits of `session` and the options of plugins are read again when the file has changed. Every
request compares the file's modification time, which works on every file system, network mounts included, where change
notifications do not. The edit is then taken in beside the requests, which the settings in force serve until the new
ones are ready. A request waits for an edit, but no longer than PATIENCE_S after the first request has noticed it: so an
edit counts from the next call on, unless a plugin takes longer to start. Running calls keep the settings they began
with.
"""

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec.structs import replace
from starlette.types import ASGIApp, Receive, Scope, Send

from core.engine.call import Engine
from core.errors import ConfigError, PersonaplexError
from core.events import SettingsReloaded
from core.plugin.doors import Calls
from core.plugin.host import PluginHost
from core.settings.config import Config, read_config
from core.settings.log import get_logger
from core.settings.yaml_files import read_file

RELOADED_SECTIONS = ("voices", "personas", "session")
"""The sections that take effect without a restart, beside `plugins.options`."""
SETTLE_S = 0.05
"""An edit is read when the file has not changed for this long: editors write a file in several steps."""
PATIENCE_S = 0.2
"""How long requests wait for an edit, from when the first of them notices it."""
STARTUP_TIMEOUT_S = 20.0
"""How long plugins may take to start with new options."""

FileStamp = tuple[int, int, int, int] | None
"""Times of modification and of a change of permissions, size and inode of a file: one of them changes with every edit.
None without a file.
"""
_log = get_logger("settings")


class Reloader:
    """The plugin host that new calls use, and the earlier ones that running calls still use."""

    def __init__(
        self, host: PluginHost, engine: Engine, environ: Mapping[str, str] = os.environ, calls: Calls | None = None
    ) -> None:
        """`engine` and `calls` are for the plugins' `startup`."""
        self.host = host
        """The host for the next call."""
        self.problems: tuple[str, ...] = ()
        """Why the last edit has not taken effect; empty when it has."""
        self.on_applied: Callable[[Config], None] = lambda _config: None
        """Called with the settings in force after each edit that took effect."""
        self._engine = engine
        self._doors = calls
        self._environ = environ
        self._path = Path(host.config.source)
        self._file = host.config
        """The content of the file when it was last read."""
        self._loaded_stamp: FileStamp = None
        if self._path.is_absolute():  # otherwise the settings do not come from a file
            self._loaded_stamp = self._stamp()
            self._file, _ = read_config(self._path, environ)
        self._reloading: asyncio.Task[None] | None = None
        """Takes in an edit."""
        self._patience_ends = 0.0
        """When requests stop waiting for it, by the event loop's clock."""
        self._calls: Counter[PluginHost] = Counter()
        """How many running requests and calls use each host."""
        self._replaced: set[PluginHost] = set()
        """Hosts that new requests no longer use, but that some request or call still does."""
        self._shutdowns: set[asyncio.Task[None]] = set()
        """Shut down the hosts that nothing uses any more."""

    async def start(self) -> None:
        """Start the plugins. Raises PluginError or ConfigError."""
        await self.host.startup(self._engine, self._doors)

    async def catch_up(self) -> None:
        """Take the file as it is now, also if the last edit was before this process began: `host` may have older
        settings."""
        self._loaded_stamp = None
        await self.refresh()

    async def stop(self) -> None:
        """Stop the plugins."""
        if self._reloading is not None:
            self._reloading.cancel()
            await asyncio.wait([self._reloading])
        self._calls.clear()
        for host in (*self._replaced, self.host):
            self._shut_down(host)
        await asyncio.gather(*self._shutdowns)

    async def refresh(self) -> None:
        """Take in an edit of the file, where there is one. Returns when it is in force or has been rejected."""
        while reloading := self._notice_edit():
            await asyncio.wait([reloading])

    async def refresh_soon(self) -> None:
        """Take in an edit as `refresh` does, but return when PATIENCE_S has passed; it is taken in all the same."""
        clock = asyncio.get_running_loop().time
        until = clock() + PATIENCE_S
        while reloading := self._notice_edit():
            left = min(until, self._patience_ends) - clock()
            if left <= 0:
                return
            await asyncio.wait([reloading], timeout=left)

    @asynccontextmanager
    async def call(self) -> AsyncIterator[PluginHost]:
        """The host for one request or call. Its plugins keep running until the context is left."""
        host = self.host
        self._calls[host] += 1
        try:
            yield host
        finally:
            self._calls[host] -= 1
            if host in self._replaced:
                self._shut_down_unless_used(host)

    def _notice_edit(self) -> asyncio.Task[None] | None:
        """The task that takes in an edit, started where the file has changed; None where the settings are the file's.

        The settings need not come from a file at all.
        """
        if self._reloading is not None and not self._reloading.done():
            return self._reloading
        if not self._path.is_absolute() or self._stamp() == self._loaded_stamp:
            return None
        self._patience_ends = asyncio.get_running_loop().time() + PATIENCE_S
        self._reloading = asyncio.create_task(self._reload(), name="reload settings")
        return self._reloading

    async def _reload(self) -> None:
        """Take in the file as it is. An edit with a problem is logged and changes nothing."""
        stamp, changed = self._stamp(), False
        problems: tuple[str, ...] = ()
        try:
            file, found, stamp = await self._read()
            problems = tuple(found)
            if not problems:
                async with asyncio.timeout(STARTUP_TIMEOUT_S):
                    changed = await self._apply(file)
        except ConfigError as error:
            problems = error.problems
        except PersonaplexError as error:
            problems = (str(error),)
        except TimeoutError:
            problems = (
                f"{self._path}: the plugins have not started with the new settings in {STARTUP_TIMEOUT_S:g} s.",
            )
        except Exception as error:  # otherwise the same failure would follow from each request
            _log.exception("an edit of the settings failed")
            problems = (f"{self._path}: cannot be taken in ({type(error).__name__}); the log says more.",)
        self._loaded_stamp = stamp
        self._report(changed, problems)
        if changed:
            self.on_applied(self.host.config)

    async def _read(self) -> tuple[Config, list[str], FileStamp]:
        """The content of the file once it has stopped changing, and the problems found in it."""
        while True:
            stamp = self._stamp()
            before = await asyncio.to_thread(self._content)
            config, problems = await asyncio.to_thread(read_config, self._path, self._environ)
            await asyncio.sleep(SETTLE_S)
            if before == await asyncio.to_thread(self._content):
                return config, problems, stamp

    def _content(self) -> bytes | None:
        """The content of the file; None where it cannot be read. Blocks on the disk."""
        with contextlib.suppress(OSError, ValueError):
            return read_file(self._path)
        return None

    async def _apply(self, file: Config) -> bool:
        """Replace the host by one for the new settings; False when nothing changed. Raises PersonaplexError."""
        running = self.host.config
        sections = {name: getattr(file, name) for name in RELOADED_SECTIONS}
        config = replace(running, plugins=replace(running.plugins, options=file.plugins.options), **sections)
        need_restart, self._file = _keys_that_need_restart(self._file, file), file
        if need_restart:
            _log.warning("settings that take effect after a restart", changed=need_restart)
        if config == running:
            return False
        longest_s = self._engine.info.longest_s
        if config.session.longest_s > longest_s:
            raise ConfigError(
                [
                    f"{self._path}: session.max_s and max_ahead_s: a call of {config.session.longest_s:g} s needs more "
                    f"memory than the engine has set aside, which is enough for {longest_s:g} s in all. Lower them, or "
                    "restart the service."
                ]
            )
        host = await asyncio.to_thread(self.host.reloaded, config)
        if self.host.protected and not host.protected:
            raise ConfigError(
                [f"{self._path}: nobody would have to log in any more. Restart the service to allow that."]
            )
        host.routes()
        await host.startup(self._engine, self._doors)
        replaced, self.host = self.host, host
        self._replaced.add(replaced)
        self._shut_down_unless_used(replaced)
        return True

    def _shut_down_unless_used(self, replaced: PluginHost) -> None:
        if not self._calls[replaced]:
            del self._calls[replaced]
            self._replaced.discard(replaced)
            self._shut_down(replaced)

    def _shut_down(self, host: PluginHost) -> None:
        """Shut down, beside the requests, the plugins of a host that it shares with no other."""
        shutdown = asyncio.create_task(host.shutdown(), name="shut down plugins")
        self._shutdowns.add(shutdown)
        shutdown.add_done_callback(self._shutdowns.discard)

    def _report(self, changed: bool, problems: tuple[str, ...]) -> None:
        was_broken, self.problems = bool(self.problems), problems
        if problems:
            _log.error("settings kept as they were", problems=list(problems))
        elif changed or was_broken:
            _log.info("settings reloaded")
        if changed or was_broken or problems:
            self.host.service_event(SettingsReloaded(problems))

    def _stamp(self) -> FileStamp:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


class ReloadMiddleware:
    """ASGI middleware that takes in an edit of the settings before a request, and keeps the plugins of its host running
    until the request has ended.
    """

    def __init__(self, app: ASGIApp, reloader: Reloader) -> None:
        self._app = app
        self._reloader = reloader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        await self._reloader.refresh_soon()
        async with self._reloader.call():
            await self._app(scope, receive, send)


def _keys_that_need_restart(before: Config, after: Config) -> list[str]:
    """The keys, such as `server.port`, whose values differ and take effect only after a restart."""
    unused = (*RELOADED_SECTIONS, "source", "environment")
    sections = [name for name in before.__struct_fields__ if name not in unused]
    found = []
    for section in sections:
        old, new = getattr(before, section), getattr(after, section)
        keys = [key for key in old.__struct_fields__ if (section, key) != ("plugins", "options")]
        found += [f"{section}.{key}" for key in keys if getattr(old, key) != getattr(new, key)]
    return found
