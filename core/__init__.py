"""What a plugin may rely on: `from core import hookimpl` and the types that hooks take and give."""

from core.config import Config, Secret
from core.engine.call import Frame
from core.engine.prompt import Voice
from core.engine.sampling import Sampling
from core.events import (
    FirstAudio,
    FramesDropped,
    FrameTimed,
    Identity,
    SessionEnded,
    SessionEvent,
    SessionInfo,
    SessionQueued,
    SessionReady,
    SessionStarted,
    SessionWarned,
    TextSaid,
    TransformFailed,
)
from core.hookspecs import Transform, hookimpl
from core.personas import Persona

__all__ = [
    "Config",
    "FirstAudio",
    "Frame",
    "FrameTimed",
    "FramesDropped",
    "Identity",
    "Persona",
    "Sampling",
    "Secret",
    "SessionEnded",
    "SessionEvent",
    "SessionInfo",
    "SessionQueued",
    "SessionReady",
    "SessionStarted",
    "SessionWarned",
    "TextSaid",
    "Transform",
    "TransformFailed",
    "Voice",
    "hookimpl",
]
