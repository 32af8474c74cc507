"""Stage `lm`: the language model learns to converse, from banks of conversations that are mixed anew again and again.

Weights of the losses as in Moshi (arXiv 2410.00037, section 3.4): the text and the first codebook above the rest;
padding, and the silence of an agent who does not speak, below. The prompt is not learned, nor are the codes of a
spliced conversation, whose sound does not say what its text says.

What the caller says is learned too, word by word, by a head that no checkpoint contains: a task that gives the layers
below it much more to go by than answers alone, which are few and say little of what was asked.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from core.boot.checkpoint_source import NANO
from core.engine.architecture import AGENT_CODEBOOKS, Architecture
from training.bank import Bank, Batch
from training.graphed import GraphedStep
from training.growing import grown, grown_state
from training.muon import Muon
from training.network import Layer, Logits, Network
from training.schedule import SAVED_S, Schedule, save_atomically
from training.shape import ARCHITECTURE
from training.together import Together

PADDING = 3
CODEBOOK_WEIGHTS = (1.0, 0.35, 0.3, 0.25, 0.2, 0.2, 0.15, 0.15)
TEXT_WEIGHT = 24.0
"""The text's share in the loss beside all codebooks together, whose shares add up to 2.6: its own cross-entropy is soon
a twentieth of theirs, and what is hard, to understand, is told by the text alone."""
HEARD_WEIGHT = 4.0
"""The share of what the caller says."""
PADDING_WEIGHT = 0.2
SILENCE_WEIGHT = 0.2
SOUNDED = 3 / 8
"""The share of positions whose codes are learned, chosen by weight: the depformer has eight steps to each."""
POSITIONS = 512
"""Positions of the conversations that a batch is counted in."""
REPORTED = 200
"""Steps between two reports."""
WEIGHT_DECAY = 0.05
BLUR = 0.04
"""The share of the agent's own codes that is replaced by chance when read back, so that a slip does not spread."""
MISHEARD, MISHEARD_ROWS = 0.12, 0.5
"""The share of the caller's codes that is replaced by others, each by itself, and the share of conversations where that
is done: a voice that is new has other codes, too, and words are to be known by all that is heard of them."""
LATE = 0.4
"""The share of conversations that are read as if they went on after minutes, see `read_positions`."""
MEAN_EVERY, MEAN_STEPS = 10, 2000
"""Steps between two states of which the mean is taken, and about how many the mean reaches back."""


@dataclass(frozen=True)
class LmOptions:
    """How the language model is trained: `batch` conversations of 512 positions a step.

    It begins with the weights of the checkpoint in the folder `begin`, grown to its own size, or at random. `text` and
    `heard` are the shares in the loss of the agent's text and of the caller's.
    """

    batch: int = 96
    rate: float = 1.2e-3
    dropout: float = 0.05
    text: float = TEXT_WEIGHT
    heard: float = HEARD_WEIGHT
    architecture: Architecture = ARCHITECTURE
    begin: Path | None = NANO

    def rows(self, positions: int) -> int:
        """How many conversations of so many positions make a step."""
        return max(1, self.batch * POSITIONS // positions)


@dataclass(frozen=True)
class Shares:
    """What counts how much in the loss: each codebook, float32[8], the agent's text and the caller's."""

    codebooks: Tensor
    text: float = TEXT_WEIGHT
    heard: float = HEARD_WEIGHT


@dataclass(frozen=True)
class Losses:
    """Mean cross-entropies where it counts: of words, of the first codebook and of the others while speaking, and of
    the caller's words, as the last layer that tells them does."""

    total: Tensor
    words: Tensor
    first: Tensor
    rest: Tensor
    heard: Tensor


class TrainingState(TypedDict):
    """What `lm.pt` holds: the last weights, the mean of the latest, and the number of steps behind them."""

    network: dict[str, Tensor]
    mean: dict[str, Tensor]
    steps: int


def losses_of(
    network: Callable[..., Logits],
    shares: Shares,
    tokens: Tensor,
    begins: Tensor,
    speaking: Tensor,
    sounds: Tensor,
    heard: Tensor,
    given: Tensor,
    context: int = 0,
) -> Losses:
    """`tokens`: int64[batch, positions, 17], and the rest as in `Bank`; `context` is the length of the model's window.

    Every row has as many positions whose codes are predicted, be they learned or, where it does not sound, not.
    """
    target = tokens[:, 1:, : 1 + AGENT_CODEBOOKS]
    read = tokens[:, :-1].clone()
    places = torch.arange(target.shape[1], device=tokens.device) + 1
    talking = places >= begins[:, None]
    blurred = (torch.rand(read.shape[:2], device=read.device) < BLUR) & (talking & speaking[:, 1:])
    strange = shuffled(read[:, :, 1 : 1 + AGENT_CODEBOOKS])
    read[:, :, 1 : 1 + AGENT_CODEBOOKS] = torch.where(blurred[..., None], strange, read[:, :, 1 : 1 + AGENT_CODEBOOKS])
    said = talking & speaking[:, 1:]
    read[:, :, 1 + AGENT_CODEBOOKS :] = misheard(read[:, :, 1 + AGENT_CODEBOOKS :], talking)
    chosen = drawn(talking * torch.where(said, 1.0, SILENCE_WEIGHT), round(SOUNDED * target.shape[1]))
    talking_aloud, said = talking & sounds[:, None], said & sounds[:, None]
    learned, said = talking_aloud.gather(1, chosen), said.gather(1, chosen)
    text, codes, hearing = network(read, target, chosen, read_positions(begins, target.shape[1], context))
    # Only prompts hold initial tokens, which are never predicted, nor learned.
    words, agent = target[:, :, 0].clamp(max=text.shape[-1] - 1), target[:, :, 1:].clamp(max=codes.shape[-1] - 1)
    agent = agent.gather(1, chosen[..., None].expand(-1, -1, AGENT_CODEBOOKS))
    code_loss = F.cross_entropy(codes.flatten(0, 2).float(), agent.flatten(), reduction="none").view_as(agent)
    code_mean = (code_loss * shares.codebooks * learned[..., None]).sum() / learned.sum().clamp(min=1)
    text_mean, spoken = text_losses(text, words, talking & ~given[:, 1:])
    heard_losses = [text_losses(logits, heard[:, 1:], talking) for logits in hearing]
    heard_mean = torch.stack([loss for loss, _ in heard_losses]).mean()
    _, understood = heard_losses[-1]
    return Losses(
        shares.text * text_mean + shares.heard * heard_mean + code_mean,
        spoken,
        mean(code_loss[..., 0], said),
        mean(code_loss[..., 1:].mean(dim=-1), said),
        understood,
    )


def misheard(codes: Tensor, talking: Tensor) -> Tensor:
    """The caller's codes, int64[batch, time, 8], some of them replaced by others of the same codebook where there is a
    conversation: `talking`, bool[batch, time]."""
    rows = torch.rand(len(codes), device=codes.device) < MISHEARD_ROWS
    wrong = torch.rand(codes.shape, device=codes.device) < MISHEARD
    return torch.where(wrong & (rows[:, None] & talking)[..., None], shuffled(codes), codes)


def shuffled(codes: Tensor) -> Tensor:
    """The frames of int64[batch, time, 8] in any order, over all conversations: each code stays in its codebook."""
    frames = codes.flatten(0, 1)
    return frames[torch.randperm(len(frames), device=codes.device)].view_as(codes)


def text_losses(logits: Tensor, target: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Two mean cross-entropies where it `counts`, bool[batch, time]: one to learn from, and that of words alone."""
    loss = F.cross_entropy(logits.flatten(0, 1).float(), target.flatten(), reduction="none").view_as(target)
    word = counts & (target != PADDING)
    weight = counts * torch.where(word, 1.0, PADDING_WEIGHT)
    return (loss * weight).sum() / weight.sum(), mean(loss, word)


def read_positions(begins: Tensor, count: int, context: int) -> Tensor:
    """By which positions the first `count` tokens of some conversations are rotated, int64[batch, count].

    Some conversations stand at a distance from their prompts, anywhere in the window: as those of a long call do whose
    prompt is pinned at the window's far end. So questions about a prompt are learned at all distances without long
    conversations, which are dear (Zhu et al., "PoSE", arXiv 2309.10400).
    """
    device = begins.device
    late = torch.rand(len(begins), device=device) < LATE
    gaps = late * (torch.rand(len(begins), device=device) * (max(context - count, 0) + 1)).long()
    places = torch.arange(count, device=device)
    return places + gaps[:, None] * (places >= begins[:, None])


def drawn(weights: Tensor, count: int) -> Tensor:
    """`count` places of each row, int64[batch, count], without putting back, by weight (Efraimidis and Spirakis)."""
    keys = torch.rand_like(weights).clamp(min=1e-9).log() / weights.clamp(min=1e-9)
    return keys.topk(count, dim=1).indices.sort(dim=1).values


def mean(values: Tensor, where: Tensor) -> Tensor:
    return (values.detach() * where).sum() / where.sum().clamp(min=1)


@torch.no_grad()
def draw_nearer(mean: Sequence[Tensor], latest: Sequence[Tensor], count: Tensor | int) -> None:
    """Let the mean of `count` states take in the latest one, which counts three times as much as each before it did on
    average (Shamir and Zhang, arXiv 1212.1824), until the mean reaches back MEAN_STEPS steps."""
    torch._foreach_lerp_(list(mean), list(latest), max(3 / (int(count) + 3), MEAN_EVERY / MEAN_STEPS))


class LmTraining:
    """The network and its optimiser; goes on where a saved state ends."""

    def __init__(self, options: LmOptions, device: torch.device) -> None:
        self.options, self.device = options, device
        self.network = Network(options.architecture, options.dropout).to(device)
        self._mean = AveragedModel(self.network, multi_avg_fn=draw_nearer)
        if device.type == "cuda":
            # Most of a step is small arithmetic between products: compiled, it is one kernel in place of many. Layers
            # of a kind share what is compiled, which takes seconds, where a whole network takes minutes.
            for layer in (*self.network.layers, *self.network.depformer_layers):
                layer.compile(dynamic=False)
        layers = cast(Iterable[Layer], (*self.network.layers, *self.network.depformer_layers))
        stacks = [stack for layer in layers for stack in layer.stacks()]
        others = [p for p in self.network.parameters() if all(p is not parameter for parameter, _ in stacks)]
        tables = [p for p in others if p.dim() > 1]
        vectors = [p for p in others if p.dim() <= 1]
        groups = [{"params": tables, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
        self._shares = Shares(torch.tensor(CODEBOOK_WEIGHTS, device=device), options.text, options.heard)
        self._rate = torch.tensor(options.rate, device=device)
        graphed = {"capturable": device.type == "cuda", "fused": device.type == "cuda"}
        self.optimizers: tuple[Muon | torch.optim.Optimizer, ...] = (
            Muon(stacks, self._rate, WEIGHT_DECAY),
            torch.optim.AdamW(groups, lr=self._rate, betas=(0.9, 0.95), **graphed),
        )
        self.step_count = 0
        self._batches: dict[int, Batch] = {}
        self._steps: dict[int, GraphedStep[Losses]] = {}

    def step(self, bank: Bank, rate: float) -> Losses:
        """One step over conversations of the bank: fewer where they are longer."""
        positions = bank.tokens.shape[1]
        batch = bank.batch(self.options.rows(positions))
        if positions not in self._batches:
            self._batches[positions] = batch
            self._steps[positions] = GraphedStep(lambda: self._learn(self._batches[positions]), self.device)
        for held, new in zip(self._batches[positions], batch, strict=True):
            held.copy_(new)
        self._rate.fill_(rate)
        self.step_count += 1
        losses = self._steps[positions]()
        if self.step_count % MEAN_EVERY == 0:
            self._mean.update_parameters(self.network)
        return losses

    def _learn(self, batch: Batch) -> Losses:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda", cache_enabled=False):
            losses = losses_of(self.network, self._shares, *batch, self.options.architecture.context)
        self.network.zero_grad()
        torch.autograd.backward(losses.total)
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        return replace(losses, total=losses.total.detach())

    def run(self, schedule: Schedule, draw: Callable[[], Bank], path: Path, report: Callable[[str], None]) -> None:
        """Train until the schedule's time is over, each step on the bank that `draw` gives, and save to `path`.

        Where several processes learn together the first one says when it is over, reports and saves.
        """
        together, elapsed = Together(self.device), 0.0
        together.share(self.network.parameters())
        began, first, due = time.monotonic(), self.step_count, SAVED_S
        while True:
            if together.is_time(self.step_count - first):
                together.average(self.network.parameters())
                elapsed = together.agreed(time.monotonic() - began)
                if schedule.progress(elapsed) >= 1:
                    break
            if elapsed >= due and together.rank == 0:
                due = elapsed + SAVED_S
                try:
                    self.save(path)
                except (OSError, RuntimeError) as error:  # The latter is PyTorch's, when the disk is full.
                    report(f"FAILED: saving ({error}); what was saved before is still there.")
            factor = schedule.rate(schedule.progress(elapsed), self.step_count - first)
            losses = self.step(draw(), self.options.rate * factor)
            if (self.step_count - first) % REPORTED == 1 and together.rank == 0:
                report(
                    f"{elapsed:5.0f} s  step {self.step_count}  words {float(losses.words):.3f}  "
                    f"heard {float(losses.heard):.3f}  first codebook {float(losses.first):.3f}  "
                    f"others {float(losses.rest):.3f}"
                )
        together.average(self._mean.module.parameters())
        if together.rank == 0:
            self.save(path)
        together.part()

    def grow(self, checkpoint: Path) -> None:
        """Begin with the weights of the checkpoint in a folder."""
        network = grown(checkpoint, self.options.architecture)
        self.network.load_state_dict(network.state_dict())

    def save(self, path: Path) -> None:
        """Write the weights, to go on from, and their mean, to export."""
        latest = self.network.state_dict()
        averaged = self._mean.module.state_dict() if int(self._mean.n_averaged) else latest
        state: TrainingState = {"network": latest, "mean": averaged, "steps": self.step_count}
        save_atomically(path, dict(state))

    def resume(self, path: Path) -> None:
        """Go on from saved weights, grown where they are a smaller model's; a mean is taken of this run's alone.

        Raises ClickException when they do not fit.
        """
        state: TrainingState = torch.load(path, map_location=self.device, weights_only=True)
        self.network.load_state_dict(grown_state(state["network"], self.options.architecture, path))
        self.step_count = state["steps"]
