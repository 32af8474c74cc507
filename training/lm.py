"""Stage `lm`: the language model learns to converse, from banks of conversations that are mixed anew again and again.

Weights of the losses as in Moshi (arXiv 2410.00037, section 3.4): the text and the first codebook above the rest;
padding, and the silence of an agent who does not speak, below. The prompt is not learned, nor are the codes of a
renamed conversation, whose sound does not say what its text says.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.engine.architecture import AGENT_CODEBOOKS, Architecture
from training.bank import Bank, Batch
from training.graphed import GraphedStep
from training.network import Network
from training.schedule import Schedule, save_atomically
from training.shape import ARCHITECTURE

PADDING = 3
CODEBOOK_WEIGHTS = (1.0, 0.35, 0.3, 0.25, 0.2, 0.2, 0.15, 0.15)
TEXT_WEIGHT = 3.0
"""The text's share in the loss beside all codebooks together, whose shares add up to 2.6, as in Moshi: its own
cross-entropy is soon a twentieth of theirs, and it would hardly be heard."""
PADDING_WEIGHT = 0.2
SILENCE_WEIGHT = 0.2
HEARD = 3 / 8
"""The share of positions whose codes are learned, chosen by weight: the depformer has eight steps to each."""
POSITIONS = 512
"""Positions of the conversations that a batch is counted in."""
REPORTED = 200
"""Steps between two reports."""
BLUR = 0.04
"""The share of the agent's own codes that is replaced by chance when read back, so that a slip does not spread."""


@dataclass(frozen=True)
class LmOptions:
    """How the language model is trained: `batch` conversations of 512 positions a step."""

    batch: int = 96
    rate: float = 1.2e-3
    dropout: float = 0.1
    architecture: Architecture = ARCHITECTURE


@dataclass(frozen=True)
class Losses:
    """Mean cross-entropies where it counts: of words, of the first codebook and of the others while speaking."""

    total: Tensor
    words: Tensor
    first: Tensor
    rest: Tensor


def losses_of(
    network: Callable[..., tuple[Tensor, Tensor]],
    shares: Tensor,
    tokens: Tensor,
    begins: Tensor,
    speaking: Tensor,
    sounds: Tensor,
) -> Losses:
    """`tokens`: int64[batch, positions, 17], see `Bank`; `shares`: each codebook's weight, float32[8].

    Every row has as many positions whose codes are predicted, be they learned or, where it does not sound, not.
    """
    target = tokens[:, 1:, : 1 + AGENT_CODEBOOKS]
    read = tokens[:, :-1].clone()
    places = torch.arange(target.shape[1], device=tokens.device) + 1
    talking = places >= begins[:, None]
    blurred = (torch.rand(read.shape[:2], device=read.device) < BLUR) & (talking & speaking[:, 1:])
    strange = read[:, :, 1 : 1 + AGENT_CODEBOOKS].flatten(0, 1)
    strange = strange[torch.randperm(len(strange), device=read.device)].view_as(target[:, :, 1:])
    read[:, :, 1 : 1 + AGENT_CODEBOOKS] = torch.where(blurred[..., None], strange, read[:, :, 1 : 1 + AGENT_CODEBOOKS])
    said = talking & speaking[:, 1:]
    chosen = drawn(talking * torch.where(said, 1.0, SILENCE_WEIGHT), round(HEARD * target.shape[1]))
    talking_aloud, said = talking & sounds[:, None], said & sounds[:, None]
    heard, said = talking_aloud.gather(1, chosen), said.gather(1, chosen)
    text, codes = network(read, target, chosen)
    # Only prompts hold initial tokens, which are never predicted, nor learned.
    words, agent = target[:, :, 0].clamp(max=text.shape[-1] - 1), target[:, :, 1:].clamp(max=codes.shape[-1] - 1)
    agent = agent.gather(1, chosen[..., None].expand(-1, -1, AGENT_CODEBOOKS))
    text_loss = F.cross_entropy(text.flatten(0, 1).float(), words.flatten(), reduction="none").view_as(talking)
    code_loss = F.cross_entropy(codes.flatten(0, 2).float(), agent.flatten(), reduction="none").view_as(agent)

    word = talking & (target[:, :, 0] != PADDING)
    text_weight = talking * torch.where(word, 1.0, PADDING_WEIGHT)
    text_mean = (text_loss * text_weight).sum() / text_weight.sum()
    code_mean = (code_loss * shares * heard[..., None]).sum() / heard.sum().clamp(min=1)
    return Losses(
        TEXT_WEIGHT * text_mean + code_mean,
        mean(text_loss, word),
        mean(code_loss[..., 0], said),
        mean(code_loss[..., 1:].mean(dim=-1), said),
    )


def drawn(weights: Tensor, count: int) -> Tensor:
    """`count` places of each row, int64[batch, count], without putting back, by weight (Efraimidis and Spirakis)."""
    keys = torch.rand_like(weights).clamp(min=1e-9).log() / weights.clamp(min=1e-9)
    return keys.topk(count, dim=1).indices.sort(dim=1).values


def mean(values: Tensor, where: Tensor) -> Tensor:
    return (values.detach() * where).sum() / where.sum().clamp(min=1)


class LmTraining:
    """The network and its optimiser; goes on where a saved state ends."""

    def __init__(self, options: LmOptions, device: torch.device) -> None:
        self.options, self.device = options, device
        self.network = Network(options.architecture, options.dropout).to(device)
        # Most of a step is small arithmetic between products: compiled, it is one kernel in place of many.
        self._compiled = torch.compile(self.network, dynamic=False) if device.type == "cuda" else self.network
        matrices = [p for p in self.network.parameters() if p.dim() > 1]
        vectors = [p for p in self.network.parameters() if p.dim() <= 1]
        groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
        self._shares = torch.tensor(CODEBOOK_WEIGHTS, device=device)
        self._rate = torch.tensor(options.rate, device=device)
        graphed = {"capturable": device.type == "cuda", "fused": device.type == "cuda"}
        self.optimizer = torch.optim.AdamW(groups, lr=self._rate, betas=(0.9, 0.95), **graphed)
        self.step_count = 0
        self._batches: dict[int, Batch] = {}
        self._steps: dict[int, GraphedStep[Losses]] = {}

    def step(self, bank: Bank, rate: float) -> Losses:
        """One step over conversations of the bank: fewer where they are longer."""
        positions = bank.tokens.shape[1]
        batch = bank.batch(max(1, self.options.batch * POSITIONS // positions))
        if positions not in self._batches:
            self._batches[positions] = batch
            self._steps[positions] = GraphedStep(lambda: self._learn(self._batches[positions]), self.device)
        for held, new in zip(self._batches[positions], batch, strict=True):
            held.copy_(new)
        self._rate.fill_(rate)
        self.step_count += 1
        return self._steps[positions]()

    def _learn(self, batch: Batch) -> Losses:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda", cache_enabled=False):
            losses = losses_of(self._compiled, self._shares, *batch[:4])
        self.optimizer.zero_grad()
        torch.autograd.backward(losses.total)
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        return replace(losses, total=losses.total.detach())

    def run(self, schedule: Schedule, banks: Callable[[float], list[Bank]], report: Callable[[str], None]) -> None:
        """Train until the schedule's time is over; `banks` gives those there are after so many seconds."""
        began, first = time.monotonic(), self.step_count
        while (progress := schedule.progress(elapsed := time.monotonic() - began)) < 1:
            rate = self.options.rate * schedule.rate(progress, self.step_count - first)
            losses = self.step(random.choice(banks(elapsed)), rate)
            if (self.step_count - first) % REPORTED == 1:
                report(
                    f"{elapsed:5.0f} s  step {self.step_count}  words {float(losses.words):.3f}  "
                    f"first codebook {float(losses.first):.3f}  others {float(losses.rest):.3f}"
                )

    def save(self, path: Path) -> None:
        """Write the weights, to go on from."""
        save_atomically(path, {"network": self.network.state_dict(), "steps": self.step_count})

    def resume(self, path: Path) -> None:
        """Go on from saved weights."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.step_count = state["steps"]
