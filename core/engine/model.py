"""The model at work: Mimi and the language model for all slots, one step a frame.

A user frame is stepped the moment it is encoded. User frame i of a call whose prompt has P positions brings codebook 0
of position P+i and, with the frame before it, completes that position; the step reads it and gives position P+i+1,
which completes agent frame P+i. (Kyutai's and NVIDIA's servers hold each frame back for one step and so answer 80 ms
later.)
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from core.engine.architecture import AGENT_CODEBOOKS
from core.engine.cache import SlotCache
from core.engine.call import Frame
from core.engine.codec import FRAME_SAMPLES, Codec
from core.engine.drawing import SlotDraws
from core.engine.lm import CodebookCache, LanguageModel
from core.engine.prompt import SpecialCodes
from core.engine.sampling import Sampling
from core.engine.snapshot import Snapshot

WARM_UP_STEPS = 3
"""Steps before a CUDA graph is captured, so that libraries have chosen their kernels and workspaces."""


class Model:
    """`slots` conversations on one device. Not thread-safe: one thread owns it."""

    def __init__(self, lm: LanguageModel, codec: Codec, special: SpecialCodes, slots: int) -> None:
        self.lm, self.codec, self.slots = lm, codec, slots
        device = lm.device
        self.cache = SlotCache(lm.architecture, slots, device, lm.dtype)
        self.draws = SlotDraws(slots, device)
        self._silence = torch.tensor(special.silence, device=device)
        self._sine = torch.tensor(special.sine, device=device)
        # What each slot reads at its next position, but for the user's codebook 0, which comes with the next frame.
        self._position = torch.zeros(slots, dtype=torch.int64, device=device)
        self._text = torch.zeros(slots, dtype=torch.int64, device=device)
        self._agent = torch.zeros(slots, AGENT_CODEBOOKS, dtype=torch.int64, device=device)
        self._user = torch.zeros(slots, AGENT_CODEBOOKS, dtype=torch.int64, device=device)
        # Where a step reads and writes; on a CUDA card the host's side is pinned, for copies that do not wait.
        pinned = device.type == "cuda"
        self._pcm_in = torch.zeros(slots, FRAME_SAMPLES, device=device)
        self._active = torch.zeros(slots, dtype=torch.bool, device=device)
        self._pcm_out = torch.zeros(slots, FRAME_SAMPLES, device=device)
        self._tokens_out = torch.zeros(slots, 1 + AGENT_CODEBOOKS, dtype=torch.int64, device=device)
        self._host_pcm_in = torch.zeros(slots, FRAME_SAMPLES, pin_memory=pinned)
        self._host_active = torch.zeros(slots, dtype=torch.bool, pin_memory=pinned)
        self._host_pcm_out = torch.zeros(slots, FRAME_SAMPLES, pin_memory=pinned)
        self._host_tokens_out = torch.zeros(slots, 1 + AGENT_CODEBOOKS, dtype=torch.int64, pin_memory=pinned)
        self._graph: torch.cuda.CUDAGraph | None = None

    @torch.inference_mode()
    def begin(self, slot: int, snapshot: Snapshot, sampling: Sampling, seed: int) -> None:
        """Start a conversation in a slot: prompt, sampling, new codec streams, and what the prompt's end predicts.

        Of that prediction only the text and the agent's codebook 0 are free: the prompt has already given the delayed
        codebooks of the position after it.
        """
        self.cache.load(slot, snapshot)
        self.draws.set(slot, sampling, seed)
        chosen = torch.zeros(self.slots, dtype=torch.bool, device=self.lm.device)
        chosen[slot] = True
        self.codec.reset(chosen)
        self._position[slot] = snapshot.length
        hidden = snapshot.hidden.expand(self.slots, -1)
        text = self.draws.text(self.lm.text_logits(hidden), self._position)
        first = self.lm.codebook_logits(hidden, 0, text, CodebookCache())
        self._text[slot] = text[slot]
        self._agent[slot] = self._silence
        self._agent[slot, 0] = self.draws.codebook(0, first, self._position)[slot]
        self._user[slot] = self._sine

    @torch.inference_mode()
    def step(self, frames: Mapping[int, Frame]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Answer one user frame in each of the given slots; the other slots stand still.

        Returns float32[slots, 1920] and int64[slots, 9] (text token, then the agent's codebooks), of which the given
        slots' rows count. They are the caller's to keep.
        """
        self._host_active.zero_()
        for slot, frame in frames.items():
            self._host_active[slot] = True
            self._host_pcm_in[slot] = torch.from_numpy(frame)
        self._pcm_in.copy_(self._host_pcm_in, non_blocking=True)
        self._active.copy_(self._host_active, non_blocking=True)
        if self._graph is None:
            self._step()
        else:
            self._graph.replay()
        self._host_pcm_out.copy_(self._pcm_out, non_blocking=True)
        self._host_tokens_out.copy_(self._tokens_out, non_blocking=True)
        if self.lm.device.type == "cuda":
            torch.cuda.current_stream().synchronize()
        return self._host_pcm_out.numpy().copy(), self._host_tokens_out.numpy().copy()

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Run some steps of nothing and, on a CUDA card, capture the step as one graph."""
        for _ in range(WARM_UP_STEPS):
            self.step({})
        if self.lm.device.type == "cuda":
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._step()
            self._graph = graph
            self.step({})

    @torch.inference_mode()
    def reset(self) -> None:
        """Forget everything in all slots, also what a failed step may have left half written."""
        self.codec.reset(torch.ones(self.slots, dtype=torch.bool, device=self.lm.device))
        self.cache.kept.zero_()
        for state in (self._position, self._text, self._agent, self._user):
            state.zero_()

    def _step(self) -> None:
        """From `_pcm_in` to `_pcm_out` and `_tokens_out` for all slots, on the device alone."""
        user = self.codec.encode(self._pcm_in, self._active)
        tokens = torch.cat([self._text[:, None], self._agent, user[:, :1], self._user[:, 1:]], dim=1)
        view = self.cache.at(self._position)
        hidden = self.lm(self.lm.embed(tokens[:, None]), view)[:, 0]

        position = self._position + 1
        text = self.draws.text(self.lm.text_logits(hidden), position)
        frame, previous, codes = CodebookCache(), text, []
        for codebook in range(AGENT_CODEBOOKS):
            logits = self.lm.codebook_logits(hidden, codebook, previous, frame)
            previous = self.draws.codebook(codebook, logits, position)
            codes.append(previous)
        agent = torch.stack(codes, dim=1)

        spoken = torch.cat([self._agent[:, :1], agent[:, 1:]], dim=1)
        self._pcm_out.copy_(self.codec.decode(spoken, self._active))
        self._tokens_out.copy_(torch.cat([self._text[:, None], spoken], dim=1))
        going = self._active[:, None]
        self._position.copy_(torch.where(self._active, position, self._position))
        self._text.copy_(torch.where(self._active, text, self._text))
        self._agent.copy_(torch.where(going, agent, self._agent))
        self._user.copy_(torch.where(going, user, self._user))
