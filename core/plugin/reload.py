"""Edits of config.yaml take effect with the next request, without a restart: either the whole edit or nothing of it.

Voices, personas, the limits of `session` and the options of plugins are read again when the file has changed. Every
request compares the file's modification time, which works on every file system, network mounts included, where change
notifications do not. Running calls keep the settings they began with.
"""

import asyncio
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
from core.plugin.host import PluginHost
from core.settings.config import Config, read_config
from core.settings.log import get_logger

RELOADED_SECTIONS = ("voices", "personas", "session")
"""The sections that take effect without a restart, beside `plugins.options`."""
SETTLE_S = 0.05
"""An edit is read when the file has not changed for this long: editors write a file in several steps."""
STARTUP_TIMEOUT_S = 20.0
"""How long plugins may take to start with new options."""

FileStamp = tuple[int, int, int] | None
"""Modification time, size and inode of a file, of which at least one changes with every edit; None without a file."""
_log = get_logger("settings")


class Reloader:
    """The plugin host that new calls use, and the earlier ones that running calls still use."""

    def __init__(self, host: PluginHost, engine: Engine, environ: Mapping[str, str] = os.environ) -> None:
        self.host = host
        """The host for the next call."""
        self.problems: tuple[str, ...] = ()
        """Why the last edit has not taken effect; empty when it has."""
        self.on_applied: Callable[[Config], None] = lambda _config: None
        """Called with the settings in force after each edit that took effect."""
        self._engine = engine
        self._environ = environ
        self._path = Path(host.config.source)
        self._file = host.config
        """The content of the file when it was last read."""
        self._loaded_stamp: FileStamp = None
        if self._path.is_absolute():  # otherwise the settings do not come from a file
            self._loaded_stamp = self._stamp()
            self._file, _ = read_config(self._path, environ)
        self._lock = asyncio.Lock()
        self._replaced_hosts: list[PluginHost] = []
        """Hosts that new calls no longer use, the oldest first."""
        self._calls: Counter[PluginHost] = Counter()
        """How many running calls use each host."""

    async def start(self) -> None:
        """Start the plugins. Raises PluginError or ConfigError."""
        await self.host.startup(self._engine)

    async def catch_up(self) -> None:
        """Take the file as it is now, also if the last edit was before this process began: `host` may have older
        settings."""
        self._loaded_stamp = None
        await self.refresh()

    async def stop(self) -> None:
        """Stop the plugins."""
        self._calls.clear()
        await self._stop_unused_hosts()
        await self.host.shutdown()

    async def refresh(self) -> None:
        """Read the file again if it has changed. An edit with a problem is logged and changes nothing."""
        if not self._path.is_absolute() or (self._stamp() == self._loaded_stamp and not self._lock.locked()):
            return
        async with self._lock:
            if self._stamp() == self._loaded_stamp:
                return
            file, file_problems, stamp = await self._read()
            changed, problems = False, tuple(file_problems)
            try:
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
            self._report(changed, problems)
            self._loaded_stamp = stamp
            if changed:
                self.on_applied(self.host.config)

    @asynccontextmanager
    async def call(self) -> AsyncIterator[PluginHost]:
        """The host for one call. Its plugins keep running until the call leaves the context."""
        host = self.host
        self._calls[host] += 1
        try:
            yield host
        finally:
            self._calls[host] -= 1
            await self._stop_unused_hosts()

    async def _read(self) -> tuple[Config, list[str], FileStamp]:
        """The content of the file once it has stopped changing, and the problems found in it."""
        while True:
            stamp = self._stamp()
            config, problems = await asyncio.to_thread(read_config, self._path, self._environ)
            await asyncio.sleep(SETTLE_S)
            if stamp == self._stamp():
                return config, problems, stamp

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
        host = self.host.reloaded(config)
        if self.host.protected and not host.protected:
            raise ConfigError(
                [f"{self._path}: nobody would have to log in any more. Restart the service to allow that."]
            )
        host.routes()
        await host.startup(self._engine)
        self._replaced_hosts.append(self.host)
        self.host = host
        await self._stop_unused_hosts()
        return True

    async def _stop_unused_hosts(self) -> None:
        """Shut down the replaced hosts that no call uses any more.

        A host shares plugins with the next newer one alone, so the oldest goes first, and only after its calls.
        """
        while self._replaced_hosts and not self._calls[self._replaced_hosts[0]]:
            host = self._replaced_hosts.pop(0)
            del self._calls[host]
            await host.shutdown(successor=self._replaced_hosts[0] if self._replaced_hosts else self.host)

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
        return status.st_mtime_ns, status.st_size, status.st_ino


class ReloadMiddleware:
    """ASGI middleware that reads the settings again before a request, where their file has changed."""

    def __init__(self, app: ASGIApp, reloader: Reloader) -> None:
        self._app = app
        self._reloader = reloader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            await self._reloader.refresh()
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
