"""Edits of config.yaml take effect with the next request, without a restart: all of an edit, or nothing.

Voices, personas, the limits of `session` and the options of plugins are read anew when the file has changed. A request
looks at the file's date, which works on any disk; calls that run keep what they began with.
"""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Mapping
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

RELOADED = ("voices", "personas", "session")
"""The sections that take effect at once, beside `plugins.options`."""
SETTLE_S = 0.05
"""An edit is taken when the file has not changed for so long: editors write a file in several steps."""
MOST_S = 20.0
"""What plugins may take to start with new options."""

Stamp = tuple[int, int, int] | None
_log = get_logger("settings")


class Reloader:
    """The host that is in force, and those that running calls still use."""

    def __init__(self, host: PluginHost, engine: Engine, environ: Mapping[str, str] = os.environ) -> None:
        self.host = host
        """For the next call."""
        self.problems: tuple[str, ...] = ()
        """Why the last edit is not in force."""
        self._engine = engine
        self._environ = environ
        self._path = Path(host.config.source)
        self._file = host.config
        """What the file said when it was read last."""
        self._seen: Stamp = None
        if self._path.is_absolute():  # or else the settings come from no file
            self._seen = self._stamp()
            self._file, _ = read_config(self._path, environ)
        self._turn = asyncio.Lock()
        self._retired: list[PluginHost] = []
        self._calls: Counter[PluginHost] = Counter()

    async def start(self) -> None:
        """Start the plugins. Raises PluginError or ConfigError."""
        await self.host.startup(self._engine)

    async def catch_up(self) -> None:
        """Take the file as it is now, also if it was edited before this process began: one that is started again has
        its settings from the first start."""
        self._seen = None
        await self.refresh()

    async def stop(self) -> None:
        """Stop the plugins."""
        self._calls.clear()
        await self._let_go()
        await self.host.shutdown()

    async def refresh(self) -> None:
        """Take the file as it is now, if it has changed. What is wrong with it is logged, and changes nothing."""
        if not self._path.is_absolute() or (self._stamp() == self._seen and not self._turn.locked()):
            return
        async with self._turn:
            if self._stamp() == self._seen:
                return
            file, wrong, stamp = await self._read()
            changed, problems = False, tuple(wrong)
            try:
                if not problems:
                    async with asyncio.timeout(MOST_S):
                        changed = await self._adopt(file)
            except ConfigError as error:
                problems = error.problems
            except PersonaplexError as error:
                problems = (str(error),)
            except TimeoutError:
                problems = (f"{self._path}: the plugins have not started with the new settings in {MOST_S:g} s.",)
            self._report(changed, problems)
            self._seen = stamp

    @asynccontextmanager
    async def call(self) -> AsyncIterator[PluginHost]:
        """The host for one call, which keeps its plugins running for as long."""
        host = self.host
        self._calls[host] += 1
        try:
            yield host
        finally:
            self._calls[host] -= 1
            await self._let_go()

    async def _read(self) -> tuple[Config, list[str], Stamp]:
        """The file when it has settled, and what is wrong with it."""
        while True:
            stamp = self._stamp()
            config, problems = await asyncio.to_thread(read_config, self._path, self._environ)
            await asyncio.sleep(SETTLE_S)
            if stamp == self._stamp():
                return config, problems, stamp

    async def _adopt(self, file: Config) -> bool:
        """Put what the file says in force; whether that changed anything. Raises PersonaplexError."""
        running = self.host.config
        sections = {name: getattr(file, name) for name in RELOADED}
        config = replace(running, plugins=replace(running.plugins, options=file.plugins.options), **sections)
        later, self._file = _differ(self._file, file), file
        if later:
            _log.warning("settings that take effect after a restart", changed=later)
        if config == running:
            return False
        host = self.host.reloaded(config)
        if self.host.protected and not host.protected:
            raise ConfigError(
                [f"{self._path}: nobody would have to log in any more. Restart the service to allow that."]
            )
        host.routes()
        await host.startup(self._engine)
        self._retired.append(self.host)
        self.host = host
        await self._let_go()
        return True

    async def _let_go(self) -> None:
        """Stop the plugins that no call uses any more. They are passed from host to host, so the oldest goes first."""
        while self._retired and not self._calls[self._retired[0]]:
            host = self._retired.pop(0)
            del self._calls[host]
            await host.shutdown(heir=self._retired[0] if self._retired else self.host)

    def _report(self, changed: bool, problems: tuple[str, ...]) -> None:
        mended, self.problems = bool(self.problems), problems
        if problems:
            _log.error("settings kept as they were", problems=list(problems))
        elif changed or mended:
            _log.info("settings reloaded")
        if changed or mended or problems:
            self.host.service_event(SettingsReloaded(problems))

    def _stamp(self) -> Stamp:
        """What changes with every edit; None while there is no file."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino


class RefreshFirst:
    """Middleware: every request finds the settings as they are in the file."""

    def __init__(self, app: ASGIApp, reloader: Reloader) -> None:
        self._app = app
        self._reloader = reloader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            await self._reloader.refresh()
        await self._app(scope, receive, send)


def _differ(before: Config, after: Config) -> list[str]:
    """The keys that differ and are not taken over."""
    sections = [name for name in before.__struct_fields__ if name not in (*RELOADED, "source")]
    found = []
    for section in sections:
        old, new = getattr(before, section), getattr(after, section)
        keys = [key for key in old.__struct_fields__ if (section, key) != ("plugins", "options")]
        found += [f"{section}.{key}" for key in keys if getattr(old, key) != getattr(new, key)]
    return found
