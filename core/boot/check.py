"""Checks the settings of a service without starting its engine, for `personaplex check` and before `serve`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from core.errors import ConfigError, PersonaplexError
from core.events import OPERATOR
from core.http.static_files import StaticFiles
from core.plugin.host import PluginHost
from core.session.addresses import is_loopback
from core.settings.config import Config, ServerConfig, read_config


@dataclass(frozen=True)
class Findings:
    """The result of a check."""

    config: Config
    personas: int
    """How many are on offer; 0 when the plugins that know it cannot be loaded or started."""
    voices: int
    problems: tuple[str, ...]
    """A sentence for everything that is wrong, with what to do. With any, `serve` does not start."""


async def check(path: Path | None, environ: Mapping[str, str]) -> Findings:
    """Check config.yaml (found as by `load_config`), the page, plugins and their options, voices and personas."""
    config, problems = read_config(path, environ)
    personas = voices = 0

    def note(error: PersonaplexError) -> None:
        problems.extend(error.problems if isinstance(error, ConfigError) else [str(error)])

    try:
        StaticFiles(Path(config.server.web))
    except ConfigError as error:
        note(error)
    try:
        host = PluginHost.load(config)
        try:
            require_protection(config.server, host.protected)
        except ConfigError as error:
            note(error)
        await host.startup(None)
        try:
            personas, voices = len(await host.list_personas(OPERATOR)), len(await host.list_voices())
        finally:
            await host.shutdown()
    except PersonaplexError as error:
        note(error)
    return Findings(config, personas, voices, tuple(dict.fromkeys(problems)))


def require_protection(config: ServerConfig, protected: bool) -> None:
    """Raise ConfigError when other machines can reach the service and no plugin authenticates (not `protected`)."""
    if not (protected or config.insecure or is_loopback(config.host)):
        raise ConfigError(
            [
                f"server.host: other machines can reach {config.host}, and nobody would have to log in. Set a password "
                "(PERSONAPLEX_PASSWORD, or plugins.options.password), or say with --insecure (server.insecure: true) "
                "that everybody may call."
            ]
        )
