"""What a plugin may rely on: `from core import hookimpl` and the types that hooks take and give."""

from core.config import Config, Secret
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
from core.guard import public
from core.hookspecs import Transform, hookimpl
from core.personas import Persona

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
    "TextSaid",
    "Transform",
    "TransformFailed",
    "Voice",
    "hookimpl",
    "public",
]
