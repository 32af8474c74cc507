"""The public API for plugins: `from core import hookimpl, ...` is all that a plugin needs from this package.

Every other module is internal and may change with any release; `core.testing` holds what a plugin's own tests need.

A public name is imported from its module when it is first used. `import core` therefore stays cheap, which every
command of the command line pays for, and no plugin loads what it does not use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers and editors see; a test holds that it equals the table below
    from core.engine.call import FRAME_SAMPLES as FRAME_SAMPLES
    from core.engine.call import SAMPLE_RATE as SAMPLE_RATE
    from core.engine.call import Engine as Engine
    from core.engine.call import Frame as Frame
    from core.engine.prompt import Voice as Voice
    from core.engine.sampling import Sampling as Sampling
    from core.errors import AudioError as AudioError
    from core.errors import ConfigError as ConfigError
    from core.errors import ControlError as ControlError
    from core.errors import PluginError as PluginError
    from core.errors import ProtocolError as ProtocolError
    from core.errors import RefusedError as RefusedError
    from core.errors import SayError as SayError
    from core.errors import SessionOverError as SessionOverError
    from core.errors import VoiceError as VoiceError
    from core.events import CallerText as CallerText
    from core.events import CallRefused as CallRefused
    from core.events import EndReason as EndReason
    from core.events import FirstAudio as FirstAudio
    from core.events import FramesDropped as FramesDropped
    from core.events import FrameTimed as FrameTimed
    from core.events import HandlerFailed as HandlerFailed
    from core.events import Identity as Identity
    from core.events import KeyPressed as KeyPressed
    from core.events import Limit as Limit
    from core.events import PluginFailed as PluginFailed
    from core.events import RefusalReason as RefusalReason
    from core.events import ServiceEvent as ServiceEvent
    from core.events import SessionDropped as SessionDropped
    from core.events import SessionEnded as SessionEnded
    from core.events import SessionEvent as SessionEvent
    from core.events import SessionInfo as SessionInfo
    from core.events import SessionQueued as SessionQueued
    from core.events import SessionReady as SessionReady
    from core.events import SessionResumed as SessionResumed
    from core.events import SessionStarted as SessionStarted
    from core.events import SessionWarned as SessionWarned
    from core.events import SettingsReloaded as SettingsReloaded
    from core.events import TextSaid as TextSaid
    from core.events import TransformFailed as TransformFailed
    from core.http.login_throttle import LoginThrottle as LoginThrottle
    from core.http.plugin_routes import public as public
    from core.media.flac import FlacWriter as FlacWriter
    from core.media.raw_audio import RawAudioReader as RawAudioReader
    from core.media.raw_audio import RawAudioWriter as RawAudioWriter
    from core.media.raw_audio import RawEncoding as RawEncoding
    from core.media.voices import VoiceFolder as VoiceFolder
    from core.plugin.acting import AgentText as AgentText
    from core.plugin.acting import Line as Line
    from core.plugin.acting import SessionControl as SessionControl
    from core.plugin.acting import SessionHandler as SessionHandler
    from core.plugin.client_socket import ClientSocket as ClientSocket
    from core.plugin.doors import AcceptedCall as AcceptedCall
    from core.plugin.doors import CallEnded as CallEnded
    from core.plugin.doors import CallerSound as CallerSound
    from core.plugin.doors import CallRequest as CallRequest
    from core.plugin.doors import Calls as Calls
    from core.plugin.doors import ClientMessage as ClientMessage
    from core.plugin.doors import Transport as Transport
    from core.plugin.hookspecs import Transform as Transform
    from core.plugin.hookspecs import hookimpl as hookimpl
    from core.plugin.logins import Login as Login
    from core.plugin.logins import Logins as Logins
    from core.plugin.persona_images import PersonaImage as PersonaImage
    from core.plugin.personas import Persona as Persona
    from core.plugin.personas import PersonaFolder as PersonaFolder
    from core.plugin.personas import load_personas as load_personas
    from core.plugin.server_messages import PluginMessage as PluginMessage
    from core.plugin.server_messages import Preparing as Preparing
    from core.plugin.server_messages import Queued as Queued
    from core.plugin.server_messages import Ready as Ready
    from core.plugin.server_messages import ServerMessage as ServerMessage
    from core.plugin.server_messages import Stats as Stats
    from core.plugin.server_messages import Warned as Warned
    from core.plugin.store import MemoryStore as MemoryStore
    from core.plugin.store import Store as Store
    from core.session.addresses import client_address as client_address
    from core.settings.config import Config as Config
    from core.settings.log import get_logger as get_logger
    from core.settings.yaml_structs import FromEnvironment as FromEnvironment
    from core.settings.yaml_structs import Secret as Secret

_PUBLIC = {
    # Hooks and what they return
    "hookimpl": "core.plugin.hookspecs",
    "Transform": "core.plugin.hookspecs",
    # Acting in a session
    "SessionControl": "core.plugin.acting",
    "SessionHandler": "core.plugin.acting",
    "AgentText": "core.plugin.acting",
    "Line": "core.plugin.acting",
    # Doors
    "Calls": "core.plugin.doors",
    "CallRequest": "core.plugin.doors",
    "AcceptedCall": "core.plugin.doors",
    "Transport": "core.plugin.doors",
    "CallerSound": "core.plugin.doors",
    "ClientMessage": "core.plugin.doors",
    "CallEnded": "core.plugin.doors",
    "ClientSocket": "core.plugin.client_socket",
    "ServerMessage": "core.plugin.server_messages",
    "Queued": "core.plugin.server_messages",
    "Preparing": "core.plugin.server_messages",
    "Ready": "core.plugin.server_messages",
    "Stats": "core.plugin.server_messages",
    "Warned": "core.plugin.server_messages",
    "PluginMessage": "core.plugin.server_messages",
    # Audio and the model
    "Frame": "core.engine.call",
    "FRAME_SAMPLES": "core.engine.call",
    "SAMPLE_RATE": "core.engine.call",
    "Engine": "core.engine.call",
    "FlacWriter": "core.media.flac",
    "RawAudioReader": "core.media.raw_audio",
    "RawAudioWriter": "core.media.raw_audio",
    "RawEncoding": "core.media.raw_audio",
    # Personas and voices
    "Persona": "core.plugin.personas",
    "PersonaImage": "core.plugin.persona_images",
    "Sampling": "core.engine.sampling",
    "PersonaFolder": "core.plugin.personas",
    "load_personas": "core.plugin.personas",
    "Voice": "core.engine.prompt",
    "VoiceFolder": "core.media.voices",
    # Who is calling, and routes of a plugin's own
    "Identity": "core.events",
    "public": "core.http.plugin_routes",
    "client_address": "core.session.addresses",
    "Login": "core.plugin.logins",
    "Logins": "core.plugin.logins",
    "LoginThrottle": "core.http.login_throttle",
    # What outlives an edit of a plugin's options
    "Store": "core.plugin.store",
    "MemoryStore": "core.plugin.store",
    # Events of a session
    "SessionInfo": "core.events",
    "SessionEvent": "core.events",
    "SessionQueued": "core.events",
    "SessionStarted": "core.events",
    "SessionReady": "core.events",
    "FirstAudio": "core.events",
    "FrameTimed": "core.events",
    "TextSaid": "core.events",
    "CallerText": "core.events",
    "KeyPressed": "core.events",
    "FramesDropped": "core.events",
    "TransformFailed": "core.events",
    "HandlerFailed": "core.events",
    "SessionWarned": "core.events",
    "SessionDropped": "core.events",
    "SessionResumed": "core.events",
    "SessionEnded": "core.events",
    "EndReason": "core.events",
    "Limit": "core.events",
    # Events of the service
    "ServiceEvent": "core.events",
    "CallRefused": "core.events",
    "RefusalReason": "core.events",
    "PluginFailed": "core.events",
    "SettingsReloaded": "core.events",
    # Settings, errors and the log
    "Config": "core.settings.config",
    "Secret": "core.settings.yaml_structs",
    "FromEnvironment": "core.settings.yaml_structs",
    "ConfigError": "core.errors",
    "PluginError": "core.errors",
    "RefusedError": "core.errors",
    "VoiceError": "core.errors",
    "ControlError": "core.errors",
    "SayError": "core.errors",
    "SessionOverError": "core.errors",
    "AudioError": "core.errors",
    "ProtocolError": "core.errors",
    "get_logger": "core.settings.log",
}
"""Every public name and the module that defines it."""

__all__ = list(_PUBLIC)

if not TYPE_CHECKING:  # hidden from type checkers, so that they still report a misspelt name

    def __getattr__(name: str) -> Any:
        """Import a public name when it is first used. Raises AttributeError for any other name."""
        if name not in _PUBLIC:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_PUBLIC[name]), name)
        return value
