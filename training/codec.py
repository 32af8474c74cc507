"""Stage `codec`: a small Mimi learns to carry speech in 900 bits a second.

Mel distances first, then discriminators beside them. The first codebook also learns which phonemes are spoken, as
Mimi's learns from a speech model (arXiv 2410.00037, section 3.3.2), so that the language model finds words in it. And
a listener, who learns beside the codec what is said in real speech, has to understand what the codec makes of it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from moshi.models.compression import MimiModel
from moshi.models.loaders import get_mimi
from moshi.quantization.core_vq import EuclideanCodebook
from moshi.quantization.vq import ResidualVectorQuantizer
from torch import Tensor, nn

from core.engine.architecture import AGENT_CODEBOOKS
from training.graphed import GraphedStep
from training.listener import Listener, listen
from training.pool import LABELS_PER_FRAME, PHONES, SpeechPool, worldly
from training.schedule import Schedule, save_atomically
from training.shape import MIMI
from training.spectra import Discriminators, MelDistance, discriminator_loss, frozen, generator_losses

ADVERSARIAL, MATCHING = 0.3, 1.0
"""Weights of the judges' verdict and of their features beside the mel distance's."""
JUDGES_RATE = 3e-4
MISHEARD, UNLIKE = 0.3, 1.0
"""Weights of what the listener mishears and of what else is different to it, times how sure it is of real sound.

With a sureness of a third the norm of either gradient is a fifth to four fifths of the mel distance's.
"""
LISTENER_RATE = 1e-3
WHOLE = 0.5
"""The share of rows that pass unquantized at first; none do once the discriminators take part."""
REPORTED = 200
"""Steps between two reports."""


@dataclass(frozen=True)
class CodecOptions:
    """How the codec is trained. `adversarial` is the share of the time after which the discriminators take part."""

    batch: int = 48
    frames: int = 24
    rate: float = 8e-4
    adversarial: float = 0.65
    commitment: float = 0.25
    phonemes: float = 0.5
    mimi: dict[str, Any] = field(default_factory=lambda: MIMI)


class PhonemeHead(nn.Module):
    """From the first codebook's vectors to the phonemes of the frame, four labels each."""

    def __init__(self, dim: int, phones: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(dim, 256, 3, padding=1), nn.GELU(), nn.Conv1d(256, LABELS_PER_FRAME * phones, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """float32[batch, dim, frames] -> logits `[batch, frames * 4, phones]`."""
        logits: Tensor = self.layers(x).transpose(1, 2)
        return logits.reshape(len(x), logits.shape[1] * LABELS_PER_FRAME, -1)


def reconstruct(mimi: MimiModel, sound: Tensor, whole: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mimi's `forward`, which also gives the first codebook's vectors: sound, vectors, and the commitment penalty.

    Rows of which `whole`, bool[batch], is true pass unquantized, as in Mimi's training (arXiv 2410.00037).
    """
    parts: Any = mimi  # Moshi types its modules for every kind of codec, not for this one.
    x = parts.encoder(sound[:, None])
    (x,) = parts.encoder_transformer(x)
    x = parts.downsample(x)
    first, first_penalty = quantize(parts.quantizer.rvq_first, x, whole)
    rest, rest_penalty = quantize(parts.quantizer.rvq_rest, x, whole)
    (y,) = parts.decoder_transformer(parts.upsample(first + rest))
    made: Tensor = parts.decoder(y)[:, 0, : sound.shape[1]]
    count = AGENT_CODEBOOKS
    return made, first, (first_penalty + (count - 1) * rest_penalty) / count


def quantize(quantizer: ResidualVectorQuantizer, x: Tensor, whole: Tensor) -> tuple[Tensor, Tensor]:
    """The quantizer's `forward` without its bookkeeping, which copies numbers to the GPU, as no graph may."""
    projected = quantizer.input_proj(x)
    result = quantizer.vq(projected, n_q=quantizer.n_q)
    passed = torch.where(whole[:, None, None], projected, result.quantized)
    return quantizer.output_proj(passed), result.loss.mean()


def detached(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """Numbers to report, which do not keep what they were made of."""
    return {name: loss.detach() for name, loss in losses.items()}


class CodecTraining:
    """The codec, its judges and their optimisers; goes on where a saved state ends."""

    def __init__(self, pool: SpeechPool, options: CodecOptions, device: torch.device) -> None:
        self.options, self.device = options, device
        self.mimi = get_mimi(None, options.mimi, device=device, num_codebooks=AGENT_CODEBOOKS)
        self.mimi.train()
        for parameter in self.mimi.parameters():
            parameter.requires_grad_(True)
        for module in self.mimi.modules():
            if isinstance(module, EuclideanCodebook):
                module.check_unused_every = module._next_unused_check = 1  # The same at every step, as a graph is.
                # Its moving averages would else be part of every step's history.
                module.register_forward_pre_hook(lambda _, given: (given[0].detach(), *given[1:]))
        self.head = PhonemeHead(options.mimi["seanet"]["dimension"], 1 + len(PHONES)).to(device)
        self.judges = Discriminators().to(device)
        self.listener = Listener(1 + len(PHONES)).to(device)
        self.mel = MelDistance().to(device)
        self._rate = torch.tensor(options.rate, device=device)
        self._whole = torch.tensor(WHOLE, device=device)
        maker = [*self.mimi.parameters(), *self.head.parameters()]
        graphed = {"capturable": device.type == "cuda", "fused": device.type == "cuda"}
        self.optimizer = torch.optim.AdamW(maker, lr=self._rate, betas=(0.8, 0.99), weight_decay=0.01, **graphed)
        judges_rate = torch.tensor(JUDGES_RATE, device=device)
        self.judges_optimizer = torch.optim.AdamW(self.judges.parameters(), lr=judges_rate, betas=(0.5, 0.9), **graphed)
        listener_rate = torch.tensor(LISTENER_RATE, device=device)
        self.listener_optimizer = torch.optim.AdamW(
            self.listener.parameters(), lr=listener_rate, betas=(0.9, 0.99), **graphed
        )
        self.step_count = 0
        self.use(pool)

    def use(self, pool: SpeechPool) -> None:
        """Take crops from this pool from now on."""
        self._pool = pool
        self._alone = GraphedStep(self._learn, self.device)
        self._judged = GraphedStep(self._learn_judged, self.device)

    def step(self, progress: float) -> dict[str, Tensor]:
        """One step at `progress` of the whole, 0 to 1. Returns losses."""
        self.step_count += 1
        return self._judged() if progress >= self.options.adversarial else self._alone()

    def _losses(self) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Sound, what the codec makes of it, and how far apart they are."""
        sound, labels = self._pool.crops(self.options.batch, self.options.frames)
        sound = worldly(sound)
        whole = torch.rand(len(sound), device=self.device) < self._whole
        made, vectors, penalty = reconstruct(self.mimi, sound, whole)
        phones = F.cross_entropy(self.head(vectors).flatten(0, 1), labels.flatten())
        losses = {"mel": self.mel(made, sound), "phones": phones, "penalty": penalty}
        return sound, made, losses | listen(self.listener, sound, made, labels)

    def _total(self, losses: dict[str, Tensor]) -> Tensor:
        """What the codec learns from all but the judges, and the listener from real sound: neither moves the other."""
        options = self.options
        total = losses["mel"] + options.commitment * losses["penalty"] + options.phonemes * losses["phones"]
        known = losses["listener"].detach().neg().exp()  # The probability it gives what is said: near 0 at first.
        return total + losses["listener"] + known * (MISHEARD * losses["misheard"] + UNLIKE * losses["unlike"])

    def _learn(self) -> dict[str, Tensor]:
        _, _, losses = self._losses()
        self._update(self._total(losses))
        return detached(losses)

    def _learn_judged(self) -> dict[str, Tensor]:
        """The judges see half of each crop, real and made; then the codec learns from the same judges."""
        sound, made, losses = self._losses()
        half = sound.shape[1] // 2
        real_part, made_part = sound[:, half:], made[:, half:]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda", cache_enabled=False):
            real = self.judges(real_part)
            losses["judges"] = discriminator_loss(real, self.judges(made_part.detach()))
            with frozen(self.judges):
                losses["adversarial"], losses["matching"] = generator_losses(real, self.judges(made_part))
        self.judges_optimizer.zero_grad()
        torch.autograd.backward(losses["judges"])
        nn.utils.clip_grad_norm_(self.judges.parameters(), 10.0)
        self._update(self._total(losses) + ADVERSARIAL * losses["adversarial"] + MATCHING * losses["matching"])
        self.judges_optimizer.step()
        return detached(losses)

    def _update(self, loss: Tensor) -> None:
        """A step of the codec and of the listener."""
        self.optimizer.zero_grad()
        self.listener_optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.mimi.parameters(), 1.0)
        nn.utils.clip_grad_norm_(self.listener.parameters(), 1.0)
        self.optimizer.step()
        self.listener_optimizer.step()

    def run(
        self,
        schedule: Schedule,
        report: Callable[[str], None],
        refresh: Callable[[float], SpeechPool | None] = lambda _: None,
    ) -> None:
        """Train until the schedule's time is over; `refresh` may give a larger pool after so many seconds."""
        began, first = time.monotonic(), self.step_count
        while (progress := schedule.progress(elapsed := time.monotonic() - began)) < 1:
            if (pool := refresh(elapsed)) is not None:
                self.use(pool)
            self._rate.fill_(self.options.rate * schedule.rate(progress, self.step_count - first))
            self._whole.fill_(WHOLE * max(0.0, 1 - progress / self.options.adversarial))
            losses = self.step(progress)
            if (self.step_count - first) % REPORTED == 1:
                shown = " ".join(f"{name} {float(value):.3f}" for name, value in losses.items())
                report(f"{elapsed:5.0f} s  step {self.step_count}  {shown}")

    def save(self, path: Path) -> None:
        """Write everything, to go on from."""
        state = {name: part.state_dict() for name, part in self._parts().items()}
        save_atomically(path, state | {"steps": self.step_count})

    def resume(self, path: Path) -> None:
        """Go on from a saved state, or from a codec's weights alone."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        for name, part in self._parts().items():
            if name in state:
                part.load_state_dict(state[name])
        self.step_count = state.get("steps", 0)

    def _parts(self) -> dict[str, nn.Module]:
        return {"mimi": self.mimi, "head": self.head, "judges": self.judges, "listener": self.listener}
