"""Stage `encoder`: the codec's encoder learns to put into codes what is said, whoever says it and wherever.

An encoder that has learned from sound alone spends most of its bits on how a voice sounds, and few of them on which
phoneme it is; Mimi's first codebook is distilled from WavLM, a self-supervised model of speech (arXiv 2410.00037). Here
a small network reads the quantized vectors of callers, in worlds of their own, and has to write their phonemes (CTC;
Graves et al., 2006), so they must be in the codes. The codebooks are frozen, and what the encoder makes of agents'
speech, of silence and of the sine in prompts is held close to what it was, so that the decoder and the language model's
voice still fit.
"""

import copy
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from moshi.models.compression import MimiModel
from torch import Tensor, nn

from core.engine.call import FRAME_SAMPLES, SAMPLE_RATE
from core.engine.mimi.coder import reference_nearest_codes
from core.engine.mimi.voice_encoder import sine_of
from core.engine.mimi.weights import Codebooks, codebooks
from training.acoustics import around
from training.callers import SHARES
from training.coded import spaced
from training.pool import LABELS_PER_FRAME, PHONES, SpeechPool
from training.schedule import Schedule
from training.shards import Line
from training.teachers import Espeak

LONGEST = 96
"""Frames of the longest line that is learned from."""
LEAD = (3, 8)
"""Frames of silence before a line, at least and at most."""
KEPT, COMMITTED = 0.05, (0.0005, 0.005)
"""Weights, beside the phonemes' loss, of squared distances: how far agents' features move, and how far callers' are
from the first codebook's vectors and from the sum of the others'. The first half of the features has a mean squared
length of 990, of which its codebook leaves 300; the second half 180, of which seven codebooks leave 2. If both weighed
the same, few codes of the first codebook would be left to callers."""
FIRST_ALONE = 0.3
"""The share of lines read from the first codebook alone, so that it carries the phonemes, as Mimi's first one does."""
READER_RATE = 1e-3
AVERAGED = 0.999
"""What the mean of the encoder's weights keeps of itself at a step. The mean is what is kept."""
REPORTED = 100
"""Steps between two reports."""


@dataclass(frozen=True)
class EncoderOptions:
    """A step hears `callers` lines and `agents` pieces; `rate` is the encoder's learning rate at its highest."""

    callers: int = 40
    agents: int = 12
    rate: float = 6e-4


class Reader(nn.Module):
    """Writes phonemes, four labels a frame, from quantized vectors: convolutions that see 0.24 s to either side."""

    def __init__(self, dim: int, width: int = 256, layers: int = 3) -> None:
        super().__init__()
        self.enter, self.norm = nn.Linear(dim, width), nn.LayerNorm(width)
        self.convolutions = nn.ModuleList(nn.Conv1d(width, width, 3, padding=1) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.mixers = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)) for _ in range(layers)
        )
        self.labels = nn.Linear(width, LABELS_PER_FRAME * (1 + len(PHONES)))

    def forward(self, vectors: Tensor) -> Tensor:
        """`[batch, frames, dim]` -> log probabilities, `[batch, 4 * frames, 1 + phones]`; number 0 is none."""
        x = self.norm(self.enter(vectors))
        for convolution, norm, mixer in zip(self.convolutions, self.norms, self.mixers, strict=True):
            x = x + F.gelu(convolution(x.transpose(1, 2))).transpose(1, 2)
            x = x + mixer(norm(x))
        labels: Tensor = self.labels(x).unflatten(-1, (LABELS_PER_FRAME, -1)).flatten(1, 2)
        return labels.log_softmax(dim=-1)


class SpokenLines:
    """Callers' lines by teacher, with their phonemes, and agents' speech on a device."""

    def __init__(
        self, callers: Mapping[str, Sequence[Line]], agents: Sequence[Line], device: torch.device, workers: int
    ) -> None:
        """`callers` by who spoke them, as `training.callers.SHARES` names it; `workers` processes read their texts."""
        self.device = device
        self._callers = {
            teacher: sorted(short, key=lambda line: len(line.recorded))
            for teacher, lines in callers.items()
            if (short := [line for line in lines if len(line.recorded) <= LONGEST * FRAME_SAMPLES])
        }
        self.shares = {teacher: SHARES[teacher] for teacher in self._callers}
        texts = sorted({line.record.text for line in chain.from_iterable(self._callers.values())})
        with get_context("spawn").Pool(workers) as pool:
            self._phones = dict(zip(texts, pool.imap(labels_of, texts, chunksize=256), strict=True))
        self._agents = SpeechPool(spaced(agents, random.Random(0)), device)

    @property
    def hours(self) -> dict[str, float]:
        """How much there is of callers, by teacher, and of agents with the silence between their lines."""
        sizes = {teacher: sum(len(line.recorded) for line in lines) for teacher, lines in self._callers.items()}
        return {who: size / SAMPLE_RATE / 3600 for who, size in sizes.items()} | {"agents": self._agents.hours}

    def callers(self, rng: random.Random, count: int) -> tuple[Tensor, list[list[int]]]:
        """Lines of about one length, float32[count, samples] in whole frames, and their phonemes' labels."""
        place, chosen = rng.random(), list[Line]()
        for teacher, share in self.shares.items():
            lines = self._callers[teacher]
            wanted = max(1, round(share / sum(self.shares.values()) * count))
            first = int(place * (max(0, len(lines) - 4 * wanted) + 1))
            chosen += rng.choices(lines[first : first + 4 * wanted], k=wanted)
        starts = [rng.randrange(LEAD[0] * FRAME_SAMPLES, LEAD[1] * FRAME_SAMPLES) for _ in chosen]
        ends = [start + len(line.recorded) for start, line in zip(starts, chosen, strict=True)]
        sound = np.zeros((len(chosen), -(-max(ends) // FRAME_SAMPLES) * FRAME_SAMPLES), dtype=np.int16)
        for row, start, end, line in zip(sound, starts, ends, chosen, strict=True):
            row[start:end] = line.recorded
        return torch.from_numpy(sound).to(self.device).float() / 32767, [self._phones[c.record.text] for c in chosen]

    def agents(self, count: int, frames: int) -> Tensor:
        """Pieces of agents' speech and of the silence between it, float32[count, samples], the last one a sine."""
        speech, _ = self._agents.crops(count - 1, frames)
        sine = torch.from_numpy(sine_of(frames * FRAME_SAMPLES)).to(self.device)
        return torch.cat([speech, sine[None]])


def labels_of(text: str) -> list[int]:
    """The phonemes of a text as labels, see PHONES."""
    return [PHONES.index(phone) + 1 for phone in _espeak().read(text).phonemes if phone in PHONES]


@cache
def _espeak() -> Espeak:
    """The one of this process."""
    return Espeak()


class EncoderTraining:
    """An encoder, the reader of its codes, and their optimiser."""

    def __init__(self, mimi: MimiModel, speech: SpokenLines, options: EncoderOptions) -> None:
        self.options, self.speech = options, speech
        self.mimi, self._before = mimi, copy.deepcopy(mimi).requires_grad_(False)
        self.mean = copy.deepcopy(mimi).requires_grad_(False)
        self._quantizer = codebooks(self._before.quantizer)
        self.reader = Reader(len(self._quantizer.project)).to(speech.device)
        self._rng = random.Random(0)
        self._generator = torch.Generator(speech.device).manual_seed(0)
        groups = [
            {"params": learned(mimi), "base": options.rate},
            {"params": list(self.reader.parameters()), "base": READER_RATE},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=options.rate, betas=(0.9, 0.98), weight_decay=0.01)
        self.step_count = 0

    def step(self, factor: float) -> dict[str, Tensor]:
        """One step at this share of the learning rates. Returns losses, and the share of agents' codes that stay."""
        heard, phones = self.speech.callers(self._rng, self.options.callers)
        heard = around(heard, torch.zeros_like(heard), self._generator)
        own = self.speech.agents(self.options.agents, heard.shape[1] // FRAME_SAMPLES)
        features = projected(self.mimi, torch.cat([heard, own]))
        with torch.no_grad():
            before = projected(self._before, own)
            codes, vectors = quantized(features, self._quantizer)
            same = (codes[len(heard) :] == quantized(before, self._quantizer)[0]).float()
        callers, agents = features[: len(heard)], features[len(heard) :]
        missed = vectors[: len(heard)] - callers
        first, rest = (callers + missed.detach()).chunk(2, dim=-1)
        alone = torch.arange(len(heard), device=heard.device)[:, None] % 10 < 10 * FIRST_ALONE
        read = self.reader(torch.cat([first, torch.where(alone[..., None], 0, rest)], dim=-1))
        lost = ctc(read, phones)
        uncommitted = [part.square().sum(dim=-1).mean() for part in missed.chunk(2, dim=-1)]
        losses = {
            "phonemes": lost[~alone[:, 0]].mean(),
            "in the first": lost[alone[:, 0]].mean(),
            "kept": (agents - before).square().sum(dim=-1).mean(),
            "missed by the first": uncommitted[0],
            "by all": uncommitted[1],
        }
        total = lost.mean() + KEPT * losses["kept"]
        total = total + COMMITTED[0] * uncommitted[0] + COMMITTED[1] * uncommitted[1]
        for group in self.optimizer.param_groups:
            group["lr"] = group["base"] * factor
        self.optimizer.zero_grad()
        torch.autograd.backward(total)
        nn.utils.clip_grad_norm_(learned(self.mimi), 1.0)
        nn.utils.clip_grad_norm_(self.reader.parameters(), 1.0)
        self.optimizer.step()
        self.step_count += 1
        with torch.no_grad():
            torch._foreach_lerp_(learned(self.mean), learned(self.mimi), 1 - min(AVERAGED, self.step_count / 1000))
        return {name: loss.detach() for name, loss in losses.items()} | {
            "first code stays": same[..., 0].mean(),
            "codes stay": same.mean(),
        }

    def run(self, schedule: Schedule, report: Callable[[str], None]) -> None:
        """Train until the schedule's time is over."""
        began = time.monotonic()
        while (progress := schedule.progress(elapsed := time.monotonic() - began)) < 1:
            shown = self.step(schedule.rate(progress, self.step_count))
            if self.step_count % REPORTED == 1:
                values = " ".join(f"{name} {float(value):.3f}" for name, value in shown.items())
                report(f"{elapsed:5.0f} s  step {self.step_count}  {values}")


def learned(mimi: MimiModel) -> list[Tensor]:
    """What learns: everything between sound and codebooks."""
    modules: tuple[Any, ...] = (mimi.encoder, mimi.encoder_transformer, mimi.downsample, *entrances(mimi))
    return [parameter for module in modules for parameter in module.parameters()]


def entrances(mimi: MimiModel) -> tuple[nn.Conv1d, nn.Conv1d]:
    """The projections before the first codebook and before the others."""
    quantizer: Any = mimi.quantizer
    return quantizer.rvq_first.input_proj, quantizer.rvq_rest.input_proj


def projected(mimi: MimiModel, sound: Tensor) -> Tensor:
    """float32[batch, samples] -> what is quantized, `[batch, frames, 2 * width]`; `samples` are whole frames."""
    features = mimi.encode_to_latent(sound[:, None], quantize=False).transpose(1, 2)
    return F.linear(features, torch.cat([entrance.weight[:, :, 0] for entrance in entrances(mimi)]))


def quantized(features: Tensor, quantizer: Codebooks) -> tuple[Tensor, Tensor]:
    """The codes of `[batch, frames, 2 * width]`, int64[batch, frames, 8], and the vectors that they stand for."""
    flat = features.flatten(0, 1)
    codes = reference_nearest_codes(flat, quantizer.vectors, quantizer.half_squares)
    each = quantizer.vectors[torch.arange(codes.shape[1], device=codes.device), codes]
    vectors = torch.cat([each[:, 0], each[:, 1:].sum(dim=1)], dim=-1)
    return codes.view(*features.shape[:2], -1), vectors.view_as(features)


def ctc(read: Tensor, phones: Sequence[Sequence[int]]) -> Tensor:
    """What is lost of some lines' phonemes, float32[batch]: for each phoneme of a line."""
    batch, labels = read.shape[:2]
    targets = torch.tensor(list(chain.from_iterable(phones)), device=read.device)
    lengths = torch.tensor([len(one) for one in phones], device=read.device)
    whole = torch.full((batch,), labels, device=read.device)
    lost = F.ctc_loss(read.transpose(0, 1), targets, whole, lengths, reduction="none", zero_infinity=True)
    return lost / lengths.clamp(min=1)
