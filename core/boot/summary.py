"""What the operator is told when a service has started."""

from core.engine.call import Engine, EngineInfo
from core.events import OPERATOR
from core.plugin.host import PluginHost
from core.settings.log import get_logger


async def warn_of_faults(host: PluginHost) -> None:
    """Log what keeps calls from being served that `personaplex check` would name, such as a voice that is broken."""
    for fault in await host.faults():
        get_logger("service").warning("calls would be refused", problem=fault)


async def summary(engine: Engine, host: PluginHost) -> dict[str, str]:
    """A line for each title; those without text are left out."""
    info = engine.info
    personas = [persona.id for persona in await host.list_personas(OPERATOR)]
    lines = {
        "engine": f"{info.name} on {info.device}, callers at once: {info.slots}",
        "": info.notice,
        "slots": _limits(info),
        "voices": ", ".join(await host.list_voices()),
        "personas": ", ".join(personas),
        "plugins": ", ".join(plugin.name for plugin in host.describe() if plugin.state == "on"),
        "protection": "on" if host.protected else "none: everybody who reaches this address may call",
    }
    return {title: text for title, text in lines.items() if text}


def _limits(info: EngineInfo) -> str:
    """What each part can take on one device, where `engine.slots: auto` took the least."""
    limits = {"memory": info.limits.memory, "step time": info.limits.step, "cores": info.limits.service}
    known = [f"{name} {callers}" for name, callers in limits.items() if callers is not None]
    return f"the least of what each carries: {', '.join(known)}" if known else ""
