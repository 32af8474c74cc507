"""Stage `codec`: a decoder learns to make speech of the codes that the frozen encoder gives for it.

The encoder and the quantizer are those of core/nano, and stay as they are, so that codes keep their meaning for the
language model. Mel distances first, then discriminators beside them. A listener, who learns beside the decoder what is
said in real speech, has to understand what the decoder makes of it.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from moshi.models.compression import MimiModel
from torch import Tensor, nn

from core.engine.call import FRAME_SAMPLES
from core.engine.mimi.spectral import SpectralNetwork, SpectralShape
from core.engine.mimi.weights import codebooks
from training.coded import CodedSpeech
from training.graphed import GraphedStep
from training.listener import Listener, listen
from training.pool import LABELS_PER_FRAME, PHONES
from training.schedule import SAVED_S, Schedule, save_atomically
from training.spectra import Discriminators, MelDistance, discriminator_loss, frozen, generator_losses

ADVERSARIAL, MATCHING = 0.5, 1.0
"""Weights of the judges' verdict and of their features beside the mel distance's, about as Vocos weighs them."""
JUDGES_RATE = 6e-4
MISHEARD, UNLIKE = 0.15, 0.5
"""Weights of what the listener mishears and of what else is different to it, times how sure it is of real sound."""
LISTENER_RATE = 1e-3
AVERAGED = 0.999
"""What the mean of the decoder's weights keeps of itself at a step. The mean is what is exported."""
SETTLED = (2, 12)
"""Frames of a crop, at least and at most, before those that count: the decoder must also do with little context."""
REPORTED = 200
"""Steps between two reports."""


@dataclass(frozen=True)
class CodecOptions:
    """How the decoder is trained.

    A step decodes `batch` crops of `frames` frames. Of each, `heard` count for the distances and the listener, and the
    last `judged` of these for the discriminators, which take part after the share `adversarial` of the time.
    """

    batch: int = 40
    frames: int = 32
    heard: int = 16
    judged: int = 8
    rate: float = 6e-4
    adversarial: float = 0.1
    shape: SpectralShape = field(default_factory=SpectralShape)


class CodecTraining:
    """The decoder, its judges and their optimisers; goes on where a saved state ends."""

    def __init__(self, mimi: MimiModel, speech: CodedSpeech, options: CodecOptions, device: torch.device) -> None:
        self.options, self.device = options, device
        self._speech = speech
        self._vectors = codebooks(mimi.quantizer).decoded.detach().clone()
        self.decoder = SpectralNetwork(options.shape).to(device)
        self.mean = copy.deepcopy(self.decoder).requires_grad_(False)
        self.judges = Discriminators().to(device)
        self.listener = Listener(1 + len(PHONES)).to(device)
        self.mel = MelDistance().to(device)
        self._rate = torch.tensor(options.rate, device=device)
        self._judges_rate = torch.tensor(JUDGES_RATE, device=device)
        graphed = {"capturable": device.type == "cuda", "fused": device.type == "cuda"}
        self.optimizer = torch.optim.AdamW(
            self.decoder.parameters(), lr=self._rate, betas=(0.8, 0.99), weight_decay=0.01, **graphed
        )
        self.judges_optimizer = torch.optim.AdamW(
            self.judges.parameters(), lr=self._judges_rate, betas=(0.8, 0.99), **graphed
        )
        listener_rate = torch.tensor(LISTENER_RATE, device=device)
        self.listener_optimizer = torch.optim.AdamW(
            self.listener.parameters(), lr=listener_rate, betas=(0.9, 0.99), **graphed
        )
        self.step_count = 0
        self._alone = GraphedStep(self._learn, device)
        self._judged = GraphedStep(self._learn_judged, device)

    def step(self, progress: float) -> dict[str, Tensor]:
        """One step at `progress` of the whole, 0 to 1. Returns losses."""
        self.step_count += 1
        return self._judged() if progress >= self.options.adversarial else self._alone()

    def decode(self, codes: Tensor) -> Tensor:
        """int64[batch, frames, 8] -> float32[batch, frames * 1920], late by `delay` samples."""
        latent = self._vectors[torch.arange(codes.shape[2], device=codes.device), codes].sum(2)
        with self._autocast():
            made: Tensor = self.decoder(latent)
        return made

    def _autocast(self) -> torch.autocast:
        on = self.device.type == "cuda"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=on, cache_enabled=False)

    def _losses(self) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Sound, what the decoder makes of its codes, and how far apart they are, where they count."""
        options = self.options
        crops = self._speech.crops(options.batch, options.frames)
        made = self.decode(crops.codes)
        latest = min(SETTLED[1], options.frames - options.heard - 1)  # The last frame's sound is not all there yet.
        begin = torch.randint(min(SETTLED[0], latest), latest + 1, (options.batch, 1), device=self.device)
        places = begin * FRAME_SAMPLES + torch.arange(options.heard * FRAME_SAMPLES, device=self.device)
        label = begin * LABELS_PER_FRAME + torch.arange(options.heard * LABELS_PER_FRAME, device=self.device)
        sound, labels = crops.sound.gather(1, places), crops.labels.gather(1, label)
        made = made.gather(1, places + options.shape.delay)
        return sound, made, {"mel": self.mel(made, sound)} | listen(self.listener, sound, made, labels)

    def _total(self, losses: dict[str, Tensor]) -> Tensor:
        """What the decoder learns from without judges, and the listener from real sound: neither moves the other."""
        known = losses["listener"].detach().neg().exp()  # The probability it gives what is said: near 0 at first.
        heard = known * (MISHEARD * losses["misheard"] + UNLIKE * losses["unlike"])
        return losses["mel"] + losses["listener"] + heard

    def _learn(self) -> dict[str, Tensor]:
        _, _, losses = self._losses()
        self._update(self._total(losses))
        return detached(losses)

    def _learn_judged(self) -> dict[str, Tensor]:
        """The judges see the end of each piece, real and made; then the decoder learns from the same judges."""
        sound, made, losses = self._losses()
        part = slice(-self.options.judged * FRAME_SAMPLES, None)
        real_part, made_part = sound[:, part], made[:, part]
        with self._autocast():
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
        """A step of the decoder, of its mean, and of the listener."""
        self.optimizer.zero_grad()
        self.listener_optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.decoder.parameters(), 1.0)
        nn.utils.clip_grad_norm_(self.listener.parameters(), 1.0)
        self.optimizer.step()
        self.listener_optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(self.mean.parameters()), list(self.decoder.parameters()), 1 - AVERAGED)

    def run(self, schedule: Schedule, path: Path, report: Callable[[str], None]) -> None:
        """Train until the schedule's time is over, and save to `path`, now and then and at the end."""
        began, first, due = time.monotonic(), self.step_count, SAVED_S
        while (progress := schedule.progress(elapsed := time.monotonic() - began)) < 1:
            if elapsed >= due:
                self.save(path)
                due = elapsed + SAVED_S
            factor = schedule.rate(progress, self.step_count - first)
            self._rate.fill_(self.options.rate * factor)
            self._judges_rate.fill_(JUDGES_RATE * factor)
            losses = self.step(progress)
            if (self.step_count - first) % REPORTED == 1:
                shown = " ".join(f"{name} {float(value):.3f}" for name, value in losses.items())
                report(f"{elapsed:5.0f} s  step {self.step_count}  {shown}")
        self.save(path)

    def save(self, path: Path) -> None:
        """Write everything, to go on from."""
        state = {name: part.state_dict() for name, part in self._parts().items()}
        save_atomically(path, state | {"steps": self.step_count, "shape": asdict(self.options.shape)})

    def begin(self, network: SpectralNetwork) -> None:
        """Begin with the weights of a network of the same shape."""
        for part in (self.decoder, self.mean):
            part.load_state_dict(network.state_dict())

    def resume(self, path: Path) -> None:
        """Go on from a saved state, or from the mean of a decoder's weights alone, whose judges are new."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        for name, part in self._parts().items():
            if name in state or name == "decoder":
                part.load_state_dict(state.get(name, state["mean"]))
        self.step_count = state.get("steps", 0)

    def _parts(self) -> dict[str, nn.Module]:
        return {"decoder": self.decoder, "mean": self.mean, "judges": self.judges, "listener": self.listener}


def detached(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """Numbers to report, which do not keep what they were made of."""
    return {name: loss.detach() for name, loss in losses.items()}
