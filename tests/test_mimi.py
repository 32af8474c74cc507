"""The engine's Mimi against `moshi`'s own."""

from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.baseline import PlainMimi
from benchmarks.untrained import MIMI, untrained_mimi
from core.engine.mimi.codec import MimiCodec

SLOTS = 3


@pytest.fixture
def mimi() -> Any:
    """Nano's, with nothing that is neutral: biases, norms and layer scales are random too."""
    generator = torch.Generator().manual_seed(1)
    mimi = untrained_mimi(generator, MIMI)
    for name, parameter in mimi.named_parameters():
        if "layer_scale" in name:
            parameter.data.normal_(0.0, 0.3, generator=generator)
        elif name.endswith("bias") or "norm" in name:
            parameter.data.normal_(float("norm" in name and name.endswith("weight")), 0.1, generator=generator)
    assert sum(isinstance(module, nn.LayerNorm) for module in mimi.modules()) == 4
    return mimi


@torch.inference_mode()
def test_it_makes_the_codes_and_the_sound_of_moshis(mimi: Any) -> None:
    """Past the end of the attention's window, with slots that pause and slots that begin anew."""
    ours, plain = MimiCodec(mimi, SLOTS), PlainMimi(mimi, SLOTS)
    generator, slots = torch.Generator().manual_seed(2), torch.arange(SLOTS)
    for frame in range(130):
        active = torch.rand(SLOTS, generator=generator) < 0.8
        if frame == 90:
            for codec in (ours, plain):
                codec.reset(torch.tensor([False, True, False]))
        pcm = torch.randn(SLOTS, 1920, generator=generator) * 0.1
        codes = plain.encode(pcm, active)
        assert torch.equal(ours.encode(pcm, active, slots)[active], codes[active])
        torch.testing.assert_close(ours.decode(codes, active, slots)[active], plain.decode(codes, active)[active])


@torch.inference_mode()
def test_rows_may_be_any_slots_in_any_order(mimi: Any) -> None:
    """Rows that do not count may name a slot that another row stands for."""
    whole, some = MimiCodec(mimi, SLOTS), MimiCodec(mimi, SLOTS)
    generator = torch.Generator().manual_seed(3)
    everybody = torch.ones(SLOTS, dtype=torch.bool)
    for slots in ([2, 0, 0], [0, 2, 2], [2, 0, 2]):
        pcm = torch.randn(SLOTS, 1920, generator=generator) * 0.1
        rows, active = torch.tensor(slots), torch.tensor([True, True, False])
        codes = whole.encode(pcm, everybody, torch.arange(SLOTS))
        sound = whole.decode(codes, everybody, torch.arange(SLOTS))
        assert torch.equal(some.encode(pcm[rows], active, rows)[:2], codes[rows][:2])
        torch.testing.assert_close(some.decode(codes[rows], active, rows)[:2], sound[rows][:2])
