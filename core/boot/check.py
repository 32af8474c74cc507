"""Checks the settings of a service without starting its engine, for `personaplex check` and before `serve`."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from core.errors import ConfigError, PersonaplexError
from core.http.listening import bind
from core.http.static_files import StaticFiles
from core.plugin.host import Findings as HostFindings
from core.plugin.host import PluginHost
from core.settings.config import Config, read_config
from core.settings.hosts import is_loopback
from core.settings.sections import ServerConfig


@dataclass(frozen=True)
class Findings:
    """The result of a check."""

    config: Config
    personas: int
    """How many are on offer; 0 when the plugins that know it cannot be loaded or started."""
    voices: int
    problems: tuple[str, ...]
    """A sentence for everything that is wrong, with what to do: `serve` would not start, or leave something out, or
    refuse calls.
    """
    notes: tuple[str, ...]
    """What is no mistake, and yet refuses clients of others."""


async def check(path: Path | None, environ: Mapping[str, str]) -> Findings:
    """Check config.yaml (found as by `load_config`), the page, the address, the engine's device and checkpoint, plugins
    and their options, personas, and every voice on offer.
    """
    config, problems = read_config(path, environ)
    offers: HostFindings | None = None

    @contextmanager
    def noted() -> Iterator[None]:
        try:
            yield
        except ConfigError as error:
            problems.extend(error.problems)
        except PersonaplexError as error:
            problems.append(str(error))

    with noted():
        StaticFiles(Path(config.server.web))
    try:
        bind(
            replace(config.server, port=0)
        ).close()  # the port itself may be in use, by the service that is to be edited
    except ConfigError:
        problems.append(
            f"{config.source}: server.host: {config.server.host} is no address of this machine. 127.0.0.1 is the "
            "machine itself, 0.0.0.0 every network."
        )
    with noted():
        check_engine(config)
    with noted():
        offers = await PluginHost.check(config)
        problems.extend(offers.problems)
        require_protection(config.server, offers.protected)
    personas, voices = (offers.personas, offers.voices) if offers else (0, 0)
    notes = offers.notes if offers else ()
    return Findings(config, personas, voices, tuple(dict.fromkeys(problems)), notes)


def check_engine(config: Config) -> None:
    """Look for the device and the checkpoint, as far as that needs no network.

    Raises CheckpointError or EngineError.
    """
    # The engine's libraries take seconds to load.
    from core.boot.checkpoint_source import find_checkpoint, is_local
    from core.boot.devices import pick_device
    from core.boot.page_engine import PageEngine
    from core.engine.checkpoint import Checkpoint
    from core.engine.hub import is_cached, require_repository

    engine = config.engine
    offline = replace(engine, offline=True)

    def quietly(_line: str) -> None:
        pass

    if config.server.role == "page":
        PageEngine.find(offline, quietly)
        return
    device, folder = pick_device(engine.device), Path(engine.checkpoint)
    cache = Path(engine.cache) if engine.cache else None
    if engine.name == "personaplex" and not (engine.offline or is_local(folder)):
        require_repository(engine.checkpoint)
        if not is_cached(engine.checkpoint, engine.revision, cache):
            return  # it is fetched when the service starts
    Checkpoint.read(find_checkpoint(offline, device, quietly))


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
