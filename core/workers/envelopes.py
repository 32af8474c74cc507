"""The bytes between the processes of a service.

Everything on a socket is an envelope: the body's length (uint32), its kind (uint8), the body. A body is a message in
MessagePack, or a frame: a fixed header and float32[1920], or what goes over a WebSocket that is relayed, as it is.
Numbers are little-endian.
"""

import struct

import msgspec
import numpy as np

from core.engine.call import FRAME_SAMPLES, Frame, OutputFrame
from core.workers.messages import Message

ENVELOPE = struct.Struct("<IB")
MESSAGE, CALLER_FRAME, AGENT_FRAME, SOCKET_BYTES = range(4)
MAX_BODY_BYTES = 1 << 20
"""No body is longer: a prompt is text, and voices cross as files."""

_CALLER_HEAD = struct.Struct("<Q")
"""The call."""
_AGENT_HEAD = struct.Struct("<QIff??fH")
"""The call, the frame's index, wait and step in milliseconds, whether its text was given and a sentence ends, how full
the window is, and the bytes of text."""
_TOKENS = 9
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    """The envelope of a message."""
    body = _encoder.encode(message)
    return ENVELOPE.pack(len(body), MESSAGE) + body


def decode(body: memoryview) -> Message:
    """The message in a body. Raises msgspec.DecodeError."""
    return _decoder.decode(body)


def encode_caller_frame(call: int, frame: Frame) -> bytes:
    """The envelope of a frame for the engine, float32[1920]."""
    body = _CALLER_HEAD.pack(call) + np.ascontiguousarray(frame, np.float32).tobytes()
    return ENVELOPE.pack(len(body), CALLER_FRAME) + body


def decode_caller_frame(body: memoryview) -> tuple[int, Frame]:
    """The call and its frame, float32[1920]. Raises ValueError."""
    [call] = _CALLER_HEAD.unpack_from(body)
    return call, _samples(body, _CALLER_HEAD.size)


def encode_agent_frame(call: int, output: OutputFrame) -> bytes:
    """The envelope of a frame for a worker."""
    text = output.text.encode()
    rest = output.said, output.sentence_ended, output.window
    head = _AGENT_HEAD.pack(call, output.index, output.wait_ms, output.step_ms, *rest, len(text))
    body = b"".join((head, text, output.tokens.astype("<i8").tobytes(), output.pcm.astype("<f4").tobytes()))
    return ENVELOPE.pack(len(body), AGENT_FRAME) + body


def decode_agent_frame(body: memoryview) -> tuple[int, OutputFrame]:
    """The call and what its agent says. Raises ValueError."""
    call, index, wait_ms, step_ms, said, ended, window, length = _AGENT_HEAD.unpack_from(body)
    words = _AGENT_HEAD.size
    tokens = words + length
    text = bytes(body[words:tokens]).decode()
    numbers = np.frombuffer(body, "<i8", _TOKENS, tokens).astype(np.int64)
    pcm = _samples(body, tokens + numbers.nbytes)
    return call, OutputFrame(index, pcm, text, numbers, wait_ms, step_ms, None, said, ended, window)


def _samples(body: memoryview, offset: int) -> Frame:
    """A copy, since the body belongs to the connection's buffer."""
    return np.frombuffer(body, "<f4", FRAME_SAMPLES, offset).astype(np.float32)
