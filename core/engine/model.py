"""The model at work: Mimi and the language model, one step a frame for all who have one.

A user frame is stepped the moment it is encoded. User frame i of a call whose prompt has P positions brings codebook 0
of position P+i and, with the frame before it, completes that position; the step reads it and gives position P+i+1,
which completes agent frame P+i. (Kyutai's and NVIDIA's servers hold each frame back for one step and so answer 80 ms
later.)

A step has a row for each call that has a frame; on a card it runs as a CUDA graph of the next larger of a few sizes.
Between steps the device holds the calls' keys and values and the codec's state; all else about a call is on the host,
and goes with its row.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from core.engine.architecture import AGENT_CODEBOOKS, STREAMS
from core.engine.call import FRAME_SAMPLES, Frame
from core.engine.kv_cache import BlockCache, blocks_for
from core.engine.lm import CodebookCache, LanguageModel
from core.engine.mimi.codec import Codec
from core.engine.prefix_cache import Snapshot
from core.engine.prompt import SpecialCodes
from core.engine.sampler import Draws
from core.engine.sampling import Sampling
from core.engine.step_buffers import (
    ACTIVE,
    AGENT,
    POSITION,
    SEED,
    SLOT,
    TABLE,
    TEMPERATURE,
    TEXT,
    TOKENS,
    TOP_K,
    USER,
    Exchange,
)

WARM_UP_STEPS = 2
"""Steps before a CUDA graph is captured, so that libraries have chosen their kernels and workspaces."""


class Model:
    """`slots` conversations on one device. Not thread-safe: one thread owns it."""

    def __init__(
        self, lm: LanguageModel, codec: Codec, special: SpecialCodes, slots: int, blocks: int | None = None
    ) -> None:
        """`blocks` of the cache that the slots share; None is a full window for each."""
        self.lm, self.codec, self.slots = lm, codec, slots
        window = blocks_for(lm.architecture.context)
        self.cache = BlockCache(lm.architecture, slots * window if blocks is None else blocks, lm.device, lm.dtype)
        self.sizes = sizes(slots) if lm.device.type == "cuda" else (slots,)
        self._window = window
        self._prompted = np.array([0, 0, *special.silence[1:], *special.sine])
        self._calls = np.zeros((TABLE + window, slots), np.int64)
        """Each slot's fields, as its next step reads them."""
        self._given = Exchange(TABLE + window, slots, lm.device)
        self._made = Exchange(STREAMS, slots, lm.device)
        """The tokens of the next positions, and what is said now."""
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}

    @torch.inference_mode()
    def begin(self, slot: int, snapshot: Snapshot, sampling: Sampling, seed: int, blocks: Sequence[int]) -> None:
        """Start a conversation in a slot, with `blocks` that the cache has lent it: prompt, sampling (complete but for
        its seed), new codec streams, and what the prompt's end predicts.

        Of that prediction only the text and the agent's codebook 0 are free: the prompt has already given the delayed
        codebooks of the position after it.
        """
        device = self.lm.device
        self.cache.load(blocks, snapshot)
        self.codec.reset(torch.arange(self.slots, device=device) == slot)
        position = torch.tensor([snapshot.length], device=device)
        draws, hidden = Draws.of([(sampling, seed)], position), snapshot.hidden[None]
        text = draws.text(self.lm.text_logits(hidden))
        first = draws.codebook(0, self.lm.codebook_logits(hidden, 0, text, CodebookCache()))

        call = self._calls[:, slot]
        call[POSITION], call[SEED], call[SLOT], call[ACTIVE] = snapshot.length, seed, slot, 1
        call[TOKENS] = self._prompted
        call[TOKENS][:2] = torch.cat([text, first]).cpu().numpy()
        call[TOP_K] = np.array([sampling.text_top_k, sampling.top_k])
        call[TEMPERATURE] = np.array([sampling.text_temperature, sampling.temperature]).view(np.int64)
        call[TABLE:] = 0
        call[TABLE:][: len(blocks)] = blocks

    def has_room(self, slot: int) -> bool:
        """Whether a slot's blocks hold one more frame; full windows always do."""
        blocks = int(np.count_nonzero(self._calls[TABLE:, slot]))
        return blocks == self._window or blocks_for(int(self._calls[POSITION, slot]) + 1) <= blocks

    @torch.inference_mode()
    def step(self, frames: Mapping[int, Frame]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Answer one user frame in each of the given slots; the other slots stand still.

        Returns float32[slots, 1920] and int64[slots, 9] (text token, then the agent's codebooks), of which the given
        slots' rows count. They are the caller's to keep.
        """
        rows, slots = len(frames), np.fromiter(frames, np.int64, len(frames))
        self._given.fields[:, :rows] = self._calls[:, slots]
        self._given.fields[:, rows:] = 0  # Rows of nobody, who write to block 0.
        for row, frame in enumerate(frames.values()):
            self._given.pcm[row] = frame
        self.run(rows)
        return self._take(slots)

    @torch.inference_mode()
    def run(self, rows: int) -> None:
        """Have the device make a step of the rows that were laid out last, and wait for it."""
        size = next(size for size in self.sizes if size >= rows)
        self._given.send()
        if size in self._graphs:
            self._graphs[size].replay()
        else:
            self._step(size)
        self._made.fetch()
        if self.lm.device.type == "cuda":
            torch.cuda.current_stream().synchronize()

    def _take(self, slots: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Take over what a step has made: the slots' next tokens, and what they say now."""
        made = self._made.fields[:, : len(slots)]
        tokens = self._calls[TOKENS]
        pcm = np.zeros((self.slots, FRAME_SAMPLES), np.float32)
        said = np.zeros((self.slots, 1 + AGENT_CODEBOOKS), np.int64)
        pcm[slots] = self._made.pcm[: len(slots)]
        said[slots, :2] = tokens[:2, slots].T
        said[slots, 2:] = made[AGENT][1:].T
        tokens[:, slots] = made
        self._calls[POSITION, slots] += 1
        return pcm, said

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Run some steps of nothing and, on a CUDA card, capture one graph for each size."""
        for size in reversed(self.sizes):  # The largest first: the others then need no memory of their own.
            for _ in range(WARM_UP_STEPS):
                self.run(size)
            if self.lm.device.type == "cuda":
                pool = next(iter(self._graphs.values())).pool() if self._graphs else None
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, pool=pool):
                    self._step(size)
                self._graphs[size] = graph
                self.run(size)

    @torch.inference_mode()
    def reset(self) -> None:
        """Forget everything in all slots, also what a failed step may have left half written."""
        self.codec.reset(torch.ones(self.slots, dtype=torch.bool, device=self.lm.device))
        self._calls.fill(0)

    def _step(self, size: int) -> None:
        """From what is given to what is made, for the first `size` rows, on the device alone."""
        given, made = self._given.device, self._made.device
        rows = given.fields[:, :size]
        active, slots = rows[ACTIVE] > 0, rows[SLOT]
        tokens, position = rows[TOKENS].T, rows[POSITION]
        draws = Draws(rows[SEED], position + 1, rows[TEMPERATURE].view(torch.float64).float(), rows[TOP_K])

        user = self.codec.encode(given.pcm[:size], active, slots)
        read = torch.cat([tokens[:, TEXT], tokens[:, AGENT], user[:, :1], tokens[:, USER][:, 1:]], dim=1)
        view = self.cache.at(position, rows[TABLE:].T)
        hidden = self.lm(self.lm.embed(read[:, None]), view)[:, 0]
        text = draws.text(self.lm.text_logits(hidden))
        agent = self._codebooks(hidden, text, draws)
        spoken = torch.cat([tokens[:, AGENT][:, :1], agent[:, 1:]], dim=1)
        made.pcm[:size].copy_(self.codec.decode(spoken, active, slots))
        made.fields[:, :size].copy_(torch.cat([text[:, None], agent, user], dim=1).T)

    def _codebooks(self, hidden: Tensor, text: Tensor, draws: Draws) -> Tensor:
        """The agent's codebooks of a position, int64[rows, 8], given its text."""
        frame, previous, codes = CodebookCache(), text, []
        for codebook in range(AGENT_CODEBOOKS):
            logits = self.lm.codebook_logits(hidden, codebook, previous, frame)
            previous = draws.codebook(codebook, logits)
            codes.append(previous)
        return torch.stack(codes, dim=1)


def sizes(slots: int) -> tuple[int, ...]:
    """The numbers of rows that steps are made for: powers of two, and all slots."""
    powers = [1]
    while 2 * powers[-1] < slots:
        powers.append(2 * powers[-1])
    return (*(size for size in powers if size < slots), slots)
