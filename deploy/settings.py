"""The settings in a container: those on the Volume go before those of the checkout, also when they come later."""

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from core.boot.check import require_protection
from core.engine.call import Engine
from core.errors import CheckpointError, ConfigError, PluginError
from core.plugin.discovery import Candidate, find_plugins
from core.plugin.host import PluginHost
from core.plugin.store import Store
from core.settings.config import Config, read_config
from core.settings.log import configure_logging, get_logger
from core.settings.sections import EngineConfig
from deploy.choices import NAME

OVERLAID = ("config.yaml", "personas", "voices", "plugins", "web")
"""What may be on the Volume, each by itself, and is else the checkout's."""
_log = get_logger("settings")


class Settings:
    """A folder of links, each to the Volume's file or folder or else to the checkout's.

    The service reads its settings there, so it notices when they change, and when there are some on the Volume for the
    first time.
    """

    def __init__(self, folder: Path, checkout: Path, volume: Path) -> None:
        self._folder = folder
        self._checkout = checkout
        self._volume = volume
        self._left_out = False
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)

    def load(self, role: str, **server: Any) -> Config:
        """The settings for one role, where some on the Volume cannot be read those of the checkout.

        Raises ConfigError when the checkout's are wrong too.
        """
        if not self._left_out:
            self.refresh()
        config, problems = read_config(self._folder / "config.yaml", os.environ)
        if problems and self.leave_out(problems):
            config, problems = read_config(self._folder / "config.yaml", os.environ)
        if problems:
            raise ConfigError(problems)
        configure_logging(config.log)
        origins = (*config.server.origins, *server.pop("origins", ()))
        changed = msgspec.structs.replace(config.server, role=role, origins=origins, **server)
        return msgspec.structs.replace(config, server=changed)

    async def start_plugins(
        self, role: str, engine: Engine, own: Iterable[Candidate], store: Store, **server: Any
    ) -> PluginHost:
        """The plugins, and the settings that they start with: the checkout's where they do not with the Volume's.

        `own` go before all others. Raises ConfigError or PluginError when they start with neither.
        """
        own = list(own)
        while True:
            config = self.load(role, **server)
            try:
                host = PluginHost.load(config, [*own, *find_plugins(config)], store)
                require_protection(config.server, host.protected)
                await host.startup(engine)
            except (ConfigError, PluginError) as error:
                problems = error.problems if isinstance(error, ConfigError) else [str(error)]
                if not self.leave_out(problems):
                    raise
            else:
                return host

    def leave_out(self, problems: Sequence[str]) -> bool:
        """Use nothing of the Volume until the next `refresh`, and log why. False when nothing of it is used."""
        used = [name for name in OVERLAID if self._on_volume(name)]
        if self._left_out or not used:
            return False
        _log.error("the settings on the Volume are wrong: the checkout's are used", files=used, problems=list(problems))
        self._left_out = True
        for name in OVERLAID:
            self._link(name, self._checkout)
        return True

    def engine(self) -> EngineConfig:
        """The section `engine` alone, whatever else is wrong, such as a password whose secret is not here.

        Raises ConfigError when the section is.
        """
        self.refresh()
        config, problems = read_config(self._folder / "config.yaml", os.environ)
        if wrong := [problem for problem in problems if "engine" in problem.lower()]:
            raise ConfigError(wrong)
        return config.engine

    def refresh(self) -> None:
        """Link what is there now. Where it was left out, the service finds it again and reports what is wrong."""
        self._left_out = False
        for name in OVERLAID:
            self._link(name, self._volume if self._on_volume(name) else self._checkout)

    def _on_volume(self, name: str) -> bool:
        return (self._volume / name).exists()

    def _link(self, name: str, source: Path) -> None:
        link, target = self._folder / name, source / name
        if link.is_symlink() and link.readlink() == target:
            return
        if not target.exists():
            link.unlink(missing_ok=True)
            return
        new = self._folder / f".{name}.new"
        new.unlink(missing_ok=True)
        new.symlink_to(target)
        new.replace(link)


def explained(error: Exception) -> Exception:
    """The error, or one that says what to do where the checkpoint is not on the Volume."""
    if not isinstance(error, CheckpointError):
        return error
    return CheckpointError(
        f"The Volume {NAME} has no whole checkpoint. Run `modal run modal_app.py::download`. ({error})"
    )
