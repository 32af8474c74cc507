"""All spoken lines in the device's memory, and crops of them."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from training.shards import Line

SAMPLE_RATE = 24_000
LABEL_SAMPLES = 480
"""Samples to one phoneme label: 50 a second, four a frame."""
LABELS_PER_FRAME = 4
PHONES = "abdefhijklmnopstuvwzæðŋɐɑɔəɚɛɜɡɪɹɾʃʊʌʒʔθᵻ"
"""The sounds of English as espeak-ng writes them, each by its first character. Label n + 1 is PHONES[n]; 0 is none."""
MARKS = "ˈˌː "
"""Stress, length and word ends: no sounds of their own, so the one before lasts."""


class SpeechPool:
    """Lines end to end: int16[samples] of sound, and uint8[samples / 480] of phoneme labels, 0 being silence."""

    def __init__(self, lines: Iterable[Line], device: torch.device) -> None:
        number = {phone: 1 + n for n, phone in enumerate(PHONES)}
        sounds, labels = [], []
        for line in lines:
            length = -(-len(line.recorded) // LABEL_SAMPLES)
            sound = np.zeros(length * LABEL_SAMPLES, dtype=np.int16)
            sound[: len(line.recorded)] = line.recorded
            label = np.zeros(length, dtype=np.uint8)
            for second, phone in line.record.phones:
                if phone not in MARKS:
                    label[int(second * SAMPLE_RATE / LABEL_SAMPLES) :] = number.get(phone, 0)
            sounds.append(sound)
            labels.append(label)
        self.sound = torch.from_numpy(np.concatenate(sounds)).to(device)
        self.labels = torch.from_numpy(np.concatenate(labels)).to(device)

    @property
    def hours(self) -> float:
        return len(self.sound) / SAMPLE_RATE / 3600

    def crops(self, batch: int, frames: int) -> tuple[Tensor, Tensor]:
        """Random pieces: float32[batch, frames * 1920] and the labels int64[batch, frames * 4]."""
        device, width = self.sound.device, frames * LABELS_PER_FRAME
        starts = torch.randint(len(self.labels) - width, (batch, 1), device=device)
        labels = self.labels[starts + torch.arange(width, device=device)].long()
        places = starts * LABEL_SAMPLES + torch.arange(width * LABEL_SAMPLES, device=device)
        return self.sound[places].float() / 32767, labels
