"""Plain `moshi`, for comparison: its own LMGen and Mimi, batched, with its own CUDA graphs."""

from contextlib import nullcontext
from typing import Any

import torch
from moshi.models.compression import MimiModel
from moshi.models.lm import LMGen
from moshi.models.loaders import _lm_kwargs, get_moshi_lm
from moshi.modules.conv import StreamingConv1d
from moshi.utils.compile import no_compile
from torch import Tensor

from benchmarks.untrained import ARCHITECTURE, MIMI, untrained_mimi
from core.engine.architecture import FIXED
from core.engine.call import FRAME_SAMPLES
from core.engine.mimi.codec import eager_moshi


class PlainMoshi:
    """`callers` conversations as `moshi` itself would run them in one batch, with windows of the size we use."""

    def __init__(self, device: torch.device, callers: int) -> None:
        full = device.type == "cuda"
        kwargs: dict[str, Any] = dict(_lm_kwargs)
        if not full:
            kwargs |= ARCHITECTURE.to_config() | dict(FIXED)
        dtype = torch.bfloat16 if full else torch.float32
        lm = get_moshi_lm(None, kwargs, device=device, dtype=dtype)
        self.lm = LMGen(lm, support_out_of_sync=True)
        self.mimi = untrained_mimi(torch.Generator(device).manual_seed(1), None if full else MIMI)
        self.lm.streaming_forever(callers)
        self.mimi.streaming_forever(callers)
        self.pcm = torch.randn(callers, 1, FRAME_SAMPLES, device=device) * 0.1

    @torch.no_grad()
    def frame(self) -> None:
        """One frame for all callers, from PCM to PCM on the host."""
        # Its compiled kernels are for GPUs; on a CPU they need a compiler and gain nothing.
        with nullcontext() if self.pcm.is_cuda else no_compile():
            tokens = self.lm.step(self.mimi.encode(self.pcm))
            self.mimi.decode(tokens[:, 1:].clamp(min=0)).cpu()  # type: ignore[index]


class PlainMimi:
    """`moshi`'s own Mimi, streaming `slots` conversations, a row each: what our `MimiCodec` is held against."""

    def __init__(self, mimi: MimiModel, slots: int) -> None:
        """Streams anew, with as many slots, where `mimi` is streaming already."""
        self._mimi = mimi
        if mimi.is_streaming:
            mimi._stop_streaming()
        with eager_moshi():
            mimi.streaming_forever(slots)
        states = mimi.get_streaming_state()
        # One mask for all modules: Mimi has about a hundred, and each would copy it at every step.
        self._active = torch.ones(slots, dtype=torch.bool, device=next(mimi.parameters()).device)
        for state in states.values():
            state.exec_mask = self._active
        # A convolution that pads by repeating its first sample binds a new tensor at each step where the others
        # write in place; a captured graph would read the old one for ever.
        self._first = [
            (states[name], states[name].first)
            for name, module in mimi.named_modules()
            if isinstance(module, StreamingConv1d) and module.pad_mode == "replicate"
        ]

    def encode(self, pcm: Tensor, active: Tensor) -> Tensor:
        self._active.copy_(active)
        with eager_moshi():
            codes: Tensor = self._mimi.encode(pcm[:, None])
        for state, first in self._first:
            first.copy_(state.first)
            state.first = first
        return codes[:, :, 0]

    def decode(self, codes: Tensor, active: Tensor) -> Tensor:
        self._active.copy_(active)
        with eager_moshi():
            pcm: Tensor = self._mimi.decode(codes[:, :, None])
        return pcm[:, 0]

    def reset(self, chosen: Tensor) -> None:
        self._mimi.reset_streaming(chosen)
