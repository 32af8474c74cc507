"""Plain `moshi`, for comparison: its own LMGen and Mimi, batched, with its own CUDA graphs."""

from contextlib import nullcontext
from typing import Any

import torch
from moshi.models.lm import LMGen
from moshi.models.loaders import _lm_kwargs, get_moshi_lm
from moshi.utils.compile import no_compile

from core.engine.architecture import FIXED
from core.engine.codec import FRAME_SAMPLES
from core.engine.nano import ARCHITECTURE, MIMI, untrained_mimi


class PlainMoshi:
    """`callers` conversations as `moshi` itself would run them in one batch, with windows of the size we use."""

    def __init__(self, device: torch.device, callers: int) -> None:
        full = device.type == "cuda"
        kwargs: dict[str, Any] = dict(_lm_kwargs)
        if not full:
            kwargs |= vars(ARCHITECTURE) | dict(FIXED)
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
        # Its compiled kernels are for cards; on a CPU they need a compiler and gain nothing.
        with nullcontext() if self.pcm.is_cuda else no_compile():
            tokens = self.lm.step(self.mimi.encode(self.pcm))
            self.mimi.decode(tokens[:, 1:].clamp(min=0)).cpu()  # type: ignore[index]
