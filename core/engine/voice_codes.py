"""The codes of recorded voices: each recording is encoded once, and ahead of its first call where nobody talks."""

from collections import OrderedDict, deque
from collections.abc import Callable, Generator

from core.engine.call import Frame
from core.engine.prompt import Tokens, Voice
from core.settings.log import get_logger

MOST_VOICES = 1024
"""Voices whose codes are kept, those that were not used for longest being dropped: ten seconds take 8 KiB."""

EncodeVoice = Callable[[Frame], Generator[None, None, Tokens]]
"""Encodes a recording, float32[samples], to the agent's codes, int64[frames, 8], yielding now and then. One recording
at a time."""
_log = get_logger("engine")


class VoiceCodes:
    """Encodes recordings, and keeps their codes. Belongs to the engine's thread, but for `ask`."""

    def __init__(self, encode: EncodeVoice) -> None:
        self._encode = encode
        self._codes: OrderedDict[str, Tokens] = OrderedDict()
        """By the voice's fingerprint, the least recently used first."""
        self._asked: set[str] = set()
        """Every recording that is or was to be encoded ahead. One that failed is not tried again."""
        self._waiting: deque[Voice] = deque()
        self._begun: tuple[Voice, Generator[None, None, Tokens]] | None = None
        """The recording that is being encoded ahead."""

    @property
    def waiting(self) -> bool:
        """Whether there is something to encode ahead."""
        return self._begun is not None or bool(self._waiting)

    def ask(self, voice: Voice) -> bool:
        """Have `advance` encode a recording; from any thread. Whether there was need to."""
        if voice.pcm is None or voice.fingerprint in self._asked or voice.fingerprint in self._codes:
            return False
        self._asked.add(voice.fingerprint)
        self._waiting.append(voice)
        return True

    def advance(self) -> None:
        """Encode the next chunk of what was asked for. A recording that cannot be encoded is logged and left out."""
        if self._begun is None:
            voice = self._waiting.popleft()
            if voice.pcm is None or voice.fingerprint in self._codes:
                return
            self._begun = voice, self._encode(voice.pcm)
        voice, encoding = self._begun
        try:
            next(encoding)
        except StopIteration as end:
            self._begun = None
            self._keep(voice.fingerprint, end.value)
            _log.info("voice encoded", voice=voice.name)
        except Exception as error:  # whatever a recording or the codec's library makes of it
            self._begun = None
            _log.warning("a voice could not be encoded", voice=voice.name, error=str(error))

    def codes(self, fingerprint: str, pcm: Frame) -> Generator[None, None, Tokens]:
        """The codes of a recording, int64[frames, 8]; at every `yield` the device is free for other work."""
        if fingerprint in self._codes:
            self._codes.move_to_end(fingerprint)
            return self._codes[fingerprint]
        encoding = self._take_over(fingerprint) or self._encode(pcm)
        codes = yield from encoding
        self._keep(fingerprint, codes)
        return codes

    def _take_over(self, fingerprint: str) -> Generator[None, None, Tokens] | None:
        """The encoding that has begun ahead, if it is of this recording; another one is put off."""
        begun, self._begun = self._begun, None
        if begun is None:
            return None
        voice, encoding = begun
        if voice.fingerprint == fingerprint:
            return encoding
        encoding.close()
        self._waiting.appendleft(voice)
        return None

    def _keep(self, fingerprint: str, codes: Tokens) -> None:
        self._codes[fingerprint] = codes
        while len(self._codes) > MOST_VOICES:
            dropped, _ = self._codes.popitem(last=False)
            self._asked.discard(dropped)
