"""The model at work: Mimi and the language model, one step for all calls that have a frame.

A user frame is stepped the moment it is encoded. User frame i of a call whose prompt has P positions brings codebook 0
of position P+i and, with the frame before it, completes that position; the step reads it and predicts position P+i+1,
which completes agent frame P+i. (Kyutai's and NVIDIA's servers hold each frame back for one step and so answer 80 ms
later.)

A step has a row for each call that has a frame. On a GPU it runs as a CUDA graph, captured for a few batch sizes, of
which the smallest that fits is replayed. Between steps the device holds the calls' keys and values and the codec's
state; all other state of a call is on the host and goes along with its row.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from core.engine.architecture import AGENT_CODEBOOKS, STREAMS
from core.engine.call import FRAME_SAMPLES, Frame
from core.engine.kv_cache import BlockCache, blocks_for, pinned_frames
from core.engine.lm import CodebookCache, LanguageModel
from core.engine.mimi.codec import Codec
from core.engine.prefix_cache import PrefixCacheEntry
from core.engine.prompt import SpecialCodes
from core.engine.sampler import Sampler, force_text
from core.engine.sampling import Sampling
from core.engine.speech_queue import UNFORCED, Forced
from core.engine.step_buffers import AGENT, TEXT, USER, InputBuffer, OutputBuffer, call_states, fill_rows

WARM_UP_STEPS = 2
"""Steps before a CUDA graph is captured, so that libraries have chosen their kernels and workspaces."""


NOTHING_FORCED: Mapping[int, Forced] = MappingProxyType({})


class StepOutputs(NamedTuple):
    """What a step gives the calls, of which only the rows of the stepped slots are meaningful. It may be kept."""

    pcm: npt.NDArray[np.float32]
    """float32[slots, 1920]."""
    tokens: npt.NDArray[np.int64]
    """int64[slots, 9], the text token and the agent's codebooks that sound in `pcm`."""
    text: npt.NDArray[np.int64]
    """int64[slots, 2], the text token that the next frame brings, and the one that the model chose itself."""


class Model:
    """`slots` conversations on one device. Not thread-safe: one thread owns it."""

    def __init__(
        self,
        lm: LanguageModel,
        codec: Codec,
        special: SpecialCodes,
        slots: int,
        blocks: int | None = None,
        cache_dtype: torch.dtype | None = None,
    ) -> None:
        """`blocks` is the size of the KV cache that all slots share; None is a full window for each slot.

        `cache_dtype` is the cache's, int8 or a floating-point one; None is the model's.
        """
        self.lm, self.codec, self.slots = lm, codec, slots
        window = blocks_for(lm.architecture.context)
        blocks = slots * window if blocks is None else blocks
        self.cache = BlockCache(lm.architecture, blocks, lm.device, cache_dtype or lm.dtype)
        self.batch_sizes = batch_sizes(slots) if lm.device.type == "cuda" else (slots,)
        self._window = window
        self._prompted = np.array([0, 0, *special.silence[1:], *special.sine])
        """The tokens that a prompt leaves for the position after it; text and the agent's codebook 0 are sampled."""
        self._calls = call_states(slots, window)
        self._inputs = InputBuffer(slots, window, lm.device)
        self._outputs = OutputBuffer(slots, lm.device)
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}

    @torch.inference_mode()
    def begin(
        self,
        slot: int,
        prompt: PrefixCacheEntry,
        sampling: Sampling,
        seed: int,
        blocks: Sequence[int],
        forced: Forced = UNFORCED,
        pin: bool = False,
    ) -> tuple[int, int]:
        """Start a conversation in a slot: load the prompt into `blocks`, which the cache has allocated for it, start
        new codec streams, and sample the prediction at the prompt's end.

        `sampling` is complete but for its seed. Of the prediction only the text and the agent's codebook 0 are free:
        the prompt already determines the delayed codebooks of the position after it. With `pin` the prompt stays in the
        window, as `pinned_frames` says. Returns the text token, which may be `forced`, and the one that the model chose
        itself.
        """
        device = self.lm.device
        self.cache.load(blocks, prompt)
        self.codec.reset(torch.arange(self.slots, device=device) == slot)
        position = torch.tensor([prompt.length], device=device)
        sampler, hidden = Sampler.of([(sampling, seed)], position), prompt.hidden[None]
        own = sampler.text(self.lm.text_logits(hidden))
        text = force_text(own, torch.tensor([forced], device=device).T)
        first = sampler.codebook(0, self.lm.codebook_logits(hidden, 0, text, CodebookCache()))

        calls = self._calls
        calls.position[slot], calls.seed[slot], calls.slot[slot], calls.active[slot] = prompt.length, seed, slot, 1
        calls.pinned[slot] = pinned_frames(prompt.length, self.lm.architecture.context) if pin else 0
        calls.tokens[:, slot] = self._prompted
        sampled = torch.cat([text, first, own]).cpu().numpy()
        calls.tokens[:2, slot] = sampled[:2]
        calls.top_k[:, slot] = sampling.text_top_k, sampling.top_k
        calls.temperature[:, slot] = sampling.text_temperature, sampling.temperature
        calls.block_table[:, slot] = 0
        calls.block_table[: len(blocks), slot] = blocks
        return int(sampled[0]), int(sampled[2])

    def has_room(self, slot: int) -> bool:
        """Whether a slot's blocks hold one more frame, which a full window always does."""
        blocks = int(np.count_nonzero(self._calls.block_table[:, slot]))
        return blocks == self._window or blocks_for(int(self._calls.position[slot]) + 1) <= blocks

    def skip_to(self, position: int) -> None:
        """Set all slots to a position, for measurements of what their calls cost there."""
        self._calls.position[:] = position

    def window(self, slot: int) -> float:
        """How full a slot's window is, from 0 to 1; at 1, each new frame takes the place of an old one."""
        return min(1.0, int(self._calls.position[slot]) / self.lm.architecture.context)

    @torch.inference_mode()
    def step(self, frames: Mapping[int, Frame], forced: Mapping[int, Forced] = NOTHING_FORCED) -> StepOutputs:
        """Answer one user frame in each of the given slots; the other slots do not move.

        In the slots of `forced`, the text token that this step samples, which the next frame brings, may be replaced.
        """
        rows, slots = len(frames), np.fromiter(frames, np.int64, len(frames))
        fill_rows(self._inputs.host_calls, self._calls, slots)  # Padding rows write to block 0.
        for row, (slot, frame) in enumerate(frames.items()):
            self._inputs.host_pcm[row] = frame
            if slot in forced:
                self._inputs.host_calls.forced[:, row] = forced[slot]
        self.run(rows)
        return self._collect(slots)

    @torch.inference_mode()
    def run(self, rows: int) -> None:
        """Run a step on the device for the first `rows` rows of the input buffer, and wait for it."""
        size = next(size for size in self.batch_sizes if size >= rows)
        self._inputs.send()
        if size in self._graphs:
            self._graphs[size].replay()
        else:
            self._step(size)
        self._outputs.fetch()
        if self.lm.device.type == "cuda":
            torch.cuda.current_stream().synchronize()

    def _collect(self, slots: npt.NDArray[np.int64]) -> StepOutputs:
        """Advance the slots' state by the outputs of a step, and return what is for the calls."""
        outputs = self._outputs.host_tokens[:, : len(slots)]
        predicted = outputs[:STREAMS]
        tokens = self._calls.tokens
        pcm = np.zeros((self.slots, FRAME_SAMPLES), np.float32)
        spoken = np.zeros((self.slots, 1 + AGENT_CODEBOOKS), np.int64)
        text = np.zeros((self.slots, 2), np.int64)
        pcm[slots] = self._outputs.host_pcm[: len(slots)]
        spoken[slots, :2] = tokens[:2, slots].T
        spoken[slots, 2:] = predicted[AGENT][1:].T
        text[slots] = outputs[[0, -1]].T
        tokens[:, slots] = predicted
        self._calls.position[slots] += 1
        return StepOutputs(pcm, spoken, text)

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Run some steps without calls and, on a GPU, capture one graph for each batch size."""
        for size in reversed(self.batch_sizes):  # The largest first: the others then need no memory of their own.
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
        """Clear the state of all slots, including what a failed step may have left half written."""
        self.codec.reset(torch.ones(self.slots, dtype=torch.bool, device=self.lm.device))
        self._calls.integers.fill(0)
        self._calls.temperature.fill(0)

    def _step(self, size: int) -> None:
        """Compute outputs from inputs for the first `size` rows, on the device alone."""
        inputs, outputs = self._inputs, self._outputs
        calls, pcm = inputs.device_calls.first(size), inputs.device_pcm[:size]
        tokens, active = calls.tokens.T, calls.active > 0
        sampler = Sampler(calls.seed, calls.position + 1, calls.temperature, calls.top_k)

        user = self.codec.encode(pcm, active, calls.slot)
        current = torch.cat([tokens[:, TEXT], tokens[:, AGENT], user[:, :1], tokens[:, USER][:, 1:]], dim=1)
        attend = self.cache.attention(calls.position, calls.block_table.T, calls.pinned)
        hidden = self.lm(self.lm.embed(current[:, None]), attend)[:, 0]
        own = sampler.text(self.lm.text_logits(hidden))
        text = force_text(own, calls.forced)
        agent = self._codebooks(hidden, text, sampler)
        spoken = torch.cat([tokens[:, AGENT][:, :1], agent[:, 1:]], dim=1)
        outputs.device_pcm[:size].copy_(self.codec.decode(spoken, active, calls.slot))
        outputs.device_tokens[:, :size].copy_(torch.cat([text[:, None], agent, user, own[:, None]], dim=1).T)

    def _codebooks(self, hidden: Tensor, text: Tensor, sampler: Sampler) -> Tensor:
        """Sample the agent's codebooks of a position, int64[rows, 8], given its text."""
        cache, previous, codes = CodebookCache(), text, []
        for codebook in range(AGENT_CODEBOOKS):
            logits = self.lm.codebook_logits(hidden, codebook, previous, cache)
            previous = sampler.codebook(codebook, logits)
            codes.append(previous)
        return torch.stack(codes, dim=1)


def batch_sizes(slots: int) -> tuple[int, ...]:
    """The numbers of rows for which steps are captured: the powers of two below the number of slots, and that."""
    powers = [1]
    while 2 * powers[-1] < slots:
        powers.append(2 * powers[-1])
    return (*(size for size in powers if size < slots), slots)
