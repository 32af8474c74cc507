"""Stage `sharpen`: the spectra that the decoder makes get sharper, and its speech as bright as the teacher's.

A network that learns to come near makes spectra that are too even, with valleys between harmonics and formants filled
(Toda and Tokuda, "A speech parameter generation algorithm considering global variance", 2007), which postfilters have
long deepened again (Chen and Gersho, "Adaptive postfiltering for quality enhancement of coded speech", 1995). Here log
magnitudes are moved away from their surroundings along the frequency; then each frequency is weighed so that speech has
the power there that the teacher's has. Both are linear in the log magnitudes that the decoder's last layer gives, so
they are folded into it and cost nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor

from core.engine.call import SAMPLE_RATE
from core.engine.mimi.spectral import SpectralMimi
from core.evaluation.speech import Samples
from training.codec_quality import settled
from training.schedule import save_atomically
from training.shape import NANO
from training.shards import is_of_callers, read_shard, shard_paths
from training.stages import SHARP, TRAINED, frozen_mimi, read_decoder
from training.voices import AGENTS

SHARPENED = 0.2
"""By which share of its distance from its surroundings a log magnitude is moved away from them."""
SURROUNDINGS_HZ = 750.0
"""The standard deviation of the Gaussian that weighs a frequency's surroundings: formants stand out of them, too."""
MOST_S = 300.0
"""Seconds of speech with which what the decoder makes is compared, about."""
PASSES = 2
"""How often power is compared: windows overlap, so that each frequency changes those beside it."""
FAINT = 1e-4
"""What is fainter than this share of a line's loudest moment, in power, is not speech."""

Report = Callable[[str], None]


def sharpen_codec(folder: Path, report: Report, config: dict[str, Any] = NANO.mimi) -> None:
    """Write `sharp.pt`, the decoder of the training folder's `codec.pt` sharpened by nano's voices in `speech/`.

    The decoder goes on learning from `codec.pt`, which stays as it is. Raises ClickException when there is no such
    decoder, or no line of these voices.
    """
    if not (folder / TRAINED).exists():
        raise click.ClickException(f"{folder / TRAINED} is missing: run the stage `codec` first.")
    lines = agents_sound(folder)
    report(f"{len(lines)} lines, {sum(map(len, lines)) / SAMPLE_RATE:.0f} s")
    cpu = torch.device("cpu")
    decoder = read_decoder(folder / TRAINED, cpu)
    for decibels in sharpen(SpectralMimi(frozen_mimi(folder, cpu, config), decoder), lines):
        report(f"power differs from the teacher's by {decibels:.1f} dB")
    save_atomically(folder / SHARP, {"mean": decoder.state_dict(), "shape": asdict(decoder.shape)})


def agents_sound(folder: Path) -> list[Samples]:
    """Lines of nano's voices with silence around them, as many as take MOST_S.

    Raises ClickException where there is none.
    """
    found: list[Samples] = []
    wanted = MOST_S * SAMPLE_RATE
    for shard in shard_paths(folder / "speech"):
        if sum(map(len, found)) >= wanted:
            break
        if not is_of_callers(shard):
            found += [settled(line.pcm) for line in read_shard(shard) if line.record.speaker in AGENTS]
    if not found:
        raise click.ClickException(f"{folder / 'speech'} holds no line of nano's voices: run the stage `speech` first.")
    return found


@torch.no_grad()
def sharpen(mimi: SpectralMimi, lines: Sequence[Samples], share: float = SHARPENED) -> list[float]:
    """Change the last layer of `mimi`'s decoder, on the CPU, by lines in whole frames, float32[samples] each.

    Returns by how much its speech differs from theirs, in decibels, root mean square over all frequencies: as it is
    when sharp, and after each pass.
    """
    layer, bins = mimi.spectral.spectrum, mimi.spectral.shape.bins
    codes = [mimi.encode(torch.from_numpy(line)[None, None]) for line in lines]
    sharper = (1 + share) * torch.eye(bins) - share * neighbourhood(mimi.spectral.shape.window)
    layer.weight[:bins] = sharper @ layer.weight[:bins]
    layer.bias[:bins] = sharper @ layer.bias[:bins]
    gains = [missing_gain(mimi, lines, codes)]
    for _ in range(PASSES):
        layer.bias[:bins] += gains[-1]
        gains.append(missing_gain(mimi, lines, codes))
    return [float((gain * 20 / np.log(10)).square().mean().sqrt()) for gain in gains]


def neighbourhood(window: int) -> Tensor:
    """For each frequency of a spectrum of `window` samples how much all count as its surroundings, float32[bins, bins]:
    each row sums to one."""
    places = torch.arange(window // 2 + 1) * SAMPLE_RATE / window
    weights = torch.exp(-0.5 * ((places[:, None] - places) / SURROUNDINGS_HZ).square())
    return weights / weights.sum(dim=1, keepdim=True)


def missing_gain(mimi: SpectralMimi, lines: Sequence[Samples], codes: Sequence[Tensor]) -> Tensor:
    """How much louder the lines are than what the decoder makes of their codes, as natural logarithms of amplitudes,
    float32[bins], where they speak."""
    shape = mimi.spectral.shape
    sums = torch.zeros(2, shape.bins)
    for line, coded in zip(lines, codes, strict=True):
        made = mimi.decode(coded)[0, 0, shape.delay :]
        powers = [power(sound, shape.window, shape.hop) for sound in (torch.from_numpy(line)[: len(made)], made)]
        whole = powers[0].sum(dim=1)
        speaking = whole > FAINT * whole.max()
        sums += torch.stack([each[speaking].sum(dim=0) for each in powers])
    return 0.5 * (sums[0].clamp(min=1e-9) / sums[1].clamp(min=1e-9)).log()


def power(sound: Tensor, window: int, hop: int) -> Tensor:
    """Spectra of power, float32[time, bins], of float32[samples]."""
    spectra = torch.stft(sound, window, hop, window=torch.hann_window(window), center=False, return_complex=True)
    return spectra.abs().square().T
