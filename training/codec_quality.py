"""What the codec does to speech: the teacher's new lines, as they are and through the codec, to three judges."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import sphn
import torch
from moshi.models.compression import MimiModel

from core.boot.devices import pick_device
from core.engine.call import FRAME_SAMPLES, SAMPLE_RATE, frames_of
from core.engine.checkpoint import Checkpoint
from core.engine.weights import load_mimi
from core.evaluation.figures import Figure
from core.evaluation.speech import Samples
from core.evaluation.words import WordErrors
from core.settings.sections import Device
from training.judge import judge as make_judge
from training.mos import DistillMos
from training.scripts import episode
from training.shape import NANO
from training.stages import SHARP, TRAINED, trained_mimi
from training.teachers import Espeak, Kokoro
from training.voices import AGENTS

SETTLING = 2
"""Frames of silence around a line on its way through the codec."""
TONE_HZ, TONE_WINDOW = 200, 4800
"""Tones are looked for at multiples of the first, in spectra of windows of so many samples."""
BESIDE_HZ = (15, 60)
"""How far from a tone lies what it is compared with."""
TONE_DB = 6.0
"""What stands out by so much is a tone."""

Report = Callable[[str], None]


@dataclass
class Heard:
    """What the judges say of one way of making the lines."""

    name: str
    errors: WordErrors = field(default_factory=WordErrors)
    sounds: list[Samples] = field(default_factory=list)

    def figures(self, mos: DistillMos) -> list[Figure]:
        """Word error rate, mean opinion score, and tones."""
        count = len(self.sounds)
        tones = [tones_of(sound) for sound in self.sounds]
        return [
            Figure(f"Words that Whisper mishears, {self.name}", self.errors.rate, self.errors.words),
            Figure(f"DistillMOS, {self.name}", float(np.mean(mos.scores(self.sounds))), count, unit=""),
            Figure(f"Tones at multiples of {TONE_HZ} Hz in a line, {self.name}", float(np.mean(tones)), count, unit=""),
        ]


def tones_of(sound: Samples) -> int:
    """How many multiples of 200 Hz stand out of their surroundings in a line's mean spectrum."""
    pieces = np.lib.stride_tricks.sliding_window_view(sound, TONE_WINDOW)[:: TONE_WINDOW // 4]
    power = (np.abs(np.fft.rfft(pieces * np.hanning(TONE_WINDOW), axis=1)) ** 2).mean(axis=0) + 1e-9
    step = SAMPLE_RATE / TONE_WINDOW
    near, far = (round(distance / step) for distance in BESIDE_HZ)
    count = 0
    for tone in range(TONE_HZ, SAMPLE_RATE // 2 - TONE_HZ + 1, TONE_HZ):
        place = round(tone / step)
        beside = np.concatenate([power[place - far : place - near + 1], power[place + near : place + far + 1]])
        count += bool(power[place] > np.median(beside) * 10 ** (TONE_DB / 10))
    return count


def evaluate_codec(
    checkpoint: Path, folder: Path, lines: int, device_name: Device, keep: Path | None, report: Report
) -> list[Figure]:
    """Measure the teacher, the checkpoint's codec, and the training folder's decoders, trained and sharp, if there are.

    The teacher, Kokoro, is made in the folder where it is not. `keep` is a folder for the sound.
    """
    teacher = folder / "speech" / "kokoro"
    Kokoro.unpack(teacher)
    device = pick_device(device_name)
    read = Checkpoint.read(checkpoint)
    mimi = load_mimi(read.mimi, read.mimi_config, device).eval()
    codecs = {"through the checkpoint's codec": mimi}
    for name, file in (("trained", TRAINED), ("sharp", SHARP)):
        if (folder / file).exists():
            codecs[f"through the {name} decoder"] = trained_mimi(folder, device, NANO.mimi, file)
    judge, kokoro, espeak = make_judge(), Kokoro(teacher, device), Espeak()
    ways = [Heard("teacher"), *map(Heard, codecs)]
    rng = random.Random("codec")
    for number, speaker in enumerate(islice(cycle(AGENTS.values()), lines)):
        text = rng.choice(episode(rng, held_out=True).lines())
        pcm = settled(kokoro.say([espeak.read(text)], speaker)[0].pcm)
        sounds = (pcm, *(coded(codec, pcm) for codec in codecs.values()))
        for way, sound in zip(ways, sounds, strict=True):
            way.errors.add(text, judge.hear(sound))
            way.sounds.append(sound)
        report(f"line {number}, {speaker.name}: {text!r}")
    if keep is not None:
        keep_sounds(ways, keep)
    mos = DistillMos(str(device))
    return [figure for way in ways for figure in way.figures(mos)]


def keep_sounds(ways: Sequence[Heard], folder: Path) -> None:
    """Write each line as a WAV for each way of making it."""
    folder.mkdir(parents=True, exist_ok=True)
    for way_number, way in enumerate(ways):
        for number, sound in enumerate(way.sounds):
            sphn.write_wav(str(folder / f"{number:03d}-{way_number}.wav"), sound, SAMPLE_RATE)


def through_codec(checkpoint: Checkpoint, device: torch.device) -> Callable[[Samples], Samples]:
    """What a checkpoint's codec makes of a line, float32[samples] at 24 kHz, with a little silence around it."""
    mimi = load_mimi(checkpoint.mimi, checkpoint.mimi_config, device).eval()
    return lambda line: coded(mimi, settled(line))


def settled(line: Samples) -> Samples:
    """A line with a little silence around it, in whole frames."""
    return frames_of(np.pad(line, SETTLING * FRAME_SAMPLES)).ravel()


@torch.inference_mode()
def coded(mimi: MimiModel, pcm: Samples) -> Samples:
    """What a codec makes of whole frames."""
    sound = torch.from_numpy(pcm)[None, None].to(next(mimi.parameters()).device)
    return np.asarray(mimi.decode(mimi.encode(sound))[0, 0].cpu().numpy(), dtype=np.float32)
