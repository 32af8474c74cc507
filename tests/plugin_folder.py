"""A folder of settings and plugin files, as an operator has it."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from core.errors import ConfigError
from core.events import TransformFailed
from core.plugin.host import PluginHost
from core.settings.config import load_config

IMPORTS = "from core import *\nfrom core import hookimpl\n"


@dataclass
class Folder:
    """A folder with settings and plugin files."""

    path: Path
    failures: list[TransformFailed] = field(default_factory=list)

    def plugin(self, name: str, source: str) -> "Folder":
        (self.path / "plugins").mkdir(exist_ok=True)
        (self.path / "plugins" / f"{name}.py").write_text(IMPORTS + source)
        return self

    def load(self, settings: str = "") -> PluginHost:
        (self.path / "config.yaml").write_text(settings)
        return PluginHost.load(load_config(self.path / "config.yaml", {}))

    def problems(self, settings: str = "") -> str:
        with pytest.raises(ConfigError) as caught:
            self.load(settings)
        return str(caught.value)

    async def started(self, settings: str = "") -> PluginHost:
        host = self.load(settings)
        await host.startup(None)
        return host
