"""Everything that is wrong with the settings of a service, found without an engine."""

from collections.abc import Mapping
from pathlib import Path

from core.config import read_config
from core.errors import ConfigError, PersonaplexError
from core.plugins import PluginHost


async def check(path: Path | None, environ: Mapping[str, str]) -> list[str]:
    """Problems of config.yaml (found as by `load_config`), plugins, their options, voices and personas, all at once."""
    config, problems = read_config(path, environ)
    try:
        host = PluginHost.load(config)
        await host.startup(None)
        await host.shutdown()
    except ConfigError as error:
        problems.extend(error.problems)
    except PersonaplexError as error:
        problems.append(str(error))
    return problems
