"""What a plugin may rely on: `from core import hookimpl` and the types that hooks take and give."""

from core.engine.call import Frame
from core.engine.prompt import Voice
from core.engine.sampling import Sampling
from core.errors import RefusedError
from core.events import (
    CallRefused,
    FirstAudio,
    FramesDropped,
    FrameTimed,
    Identity,
    PluginFailed,
    ServiceEvent,
    SessionEnded,
    SessionEvent,
    SessionInfo,
    SessionQueued,
    SessionReady,
    SessionStarted,
    SessionWarned,
    SettingsReloaded,
    TextSaid,
    TransformFailed,
)
from core.http.plugin_routes import public
from core.plugin.hookspecs import Transform, hookimpl
from core.plugin.personas import Persona
from core.plugin.store import Store
from core.settings.config import Config, Secret

__all__ = [
    "CallRefused",
    "Config",
    "FirstAudio",
    "Frame",
    "FrameTimed",
    "FramesDropped",
    "Identity",
    "Persona",
    "PluginFailed",
    "RefusedError",
    "Sampling",
    "Secret",
    "ServiceEvent",
    "SessionEnded",
    "SessionEvent",
    "SessionInfo",
    "SessionQueued",
    "SessionReady",
    "SessionStarted",
    "SessionWarned",
    "SettingsReloaded",
    "Store",
    "TextSaid",
    "Transform",
    "TransformFailed",
    "Voice",
    "hookimpl",
    "public",
]
