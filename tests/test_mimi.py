"""The engine's Mimi against `moshi`'s own."""

from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.baseline import PlainMimi
from benchmarks.untrained import MIMI, untrained_mimi
from core.engine.mimi.codec import MimiCodec
from core.engine.mimi.spectral import SpectralMimi, SpectralNetwork, SpectralShape
from core.engine.mimi.spectral_decoder import synthesis_matrix

SLOTS = 3
SPECTRAL = SpectralShape(latent=64, dim=32, heads=2, feedforward=48, context=6, blocks=3, hidden=48)


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


@pytest.mark.slow
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


@pytest.fixture
def spectral_mimi(mimi: Any) -> SpectralMimi:
    """With a decoder of spectra, nothing of which is neutral, and whose sound is about as loud as speech."""
    generator, network = torch.Generator().manual_seed(4), SpectralNetwork(SPECTRAL)
    for name, parameter in network.named_parameters():
        neutral = "norm" in name and name.endswith("weight")
        parameter.data.normal_(float(neutral), 0.1 if parameter.dim() < 2 else 0.2, generator=generator)
    network.spectrum.bias.data[: SPECTRAL.bins] -= 3.0
    return SpectralMimi(mimi, network.eval())


@torch.inference_mode()
def test_a_decoder_of_spectra_makes_the_sound_of_the_whole_network(spectral_mimi: SpectralMimi) -> None:
    """Past the end of the attention's window, with slots that pause, one that begins anew, and rows in any order."""
    codec = MimiCodec(spectral_mimi, SLOTS)
    generator = torch.Generator().manual_seed(5)
    codes = torch.randint(512, (SLOTS, 8, 60), generator=generator)
    whole = spectral_mimi.decode(codes).view(SLOTS, -1, 1920)
    assert 0.01 < float(whole.abs().max()) < 10
    position = torch.zeros(SLOTS, dtype=torch.int64)
    checked = 0
    for step in range(60):
        slots = torch.randperm(SLOTS, generator=generator)
        active = torch.rand(SLOTS, generator=generator) < 0.6
        if step == 20:
            codec.reset(torch.tensor([False, True, False]))
            position[1] = 0
        sound = codec.decode(codes[slots, :, position[slots]], active, slots)
        torch.testing.assert_close(sound[active], whole[slots, position[slots]][active], atol=1e-5, rtol=1e-4)
        position[slots[active]] += 1
        checked += int(active.sum())
    assert checked > 90
    assert int(position.min()) > 10


@torch.inference_mode()
def test_a_slot_sounds_the_same_alone_and_among_others(spectral_mimi: SpectralMimi) -> None:
    """Rows that do not count may name a slot that another row stands for."""
    whole, some = MimiCodec(spectral_mimi, SLOTS), MimiCodec(spectral_mimi, SLOTS)
    codes = torch.randint(512, (10, SLOTS, 8), generator=torch.Generator().manual_seed(6))
    for step in codes:
        sound = whole.decode(step, torch.ones(SLOTS, dtype=torch.bool), torch.arange(SLOTS))
        rows = torch.tensor([2, 2, 0])
        got = some.decode(step[rows], torch.tensor([True, False, True]), rows)
        torch.testing.assert_close(got[[0, 2]], sound[[2, 0]], atol=1e-5, rtol=1e-4)
        alone = some.decode(step[1:2], torch.tensor([True]), torch.tensor([1]))
        torch.testing.assert_close(alone, sound[1:2], atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_the_matrix_for_a_gpu_is_the_inverse_fourier_transform() -> None:
    generator = torch.Generator().manual_seed(7)
    envelope = torch.rand(96, generator=generator)
    spectra = torch.randn(5, 49, dtype=torch.complex64, generator=generator)
    parts = torch.cat([spectra.real, spectra.imag], dim=1)
    expected = torch.fft.irfft(spectra, n=96, norm="ortho") * envelope
    matrix = synthesis_matrix(envelope)
    torch.testing.assert_close(parts @ matrix.T, expected)
    assert matrix.is_contiguous(), "as the kernel reads it"


@torch.inference_mode()
def test_a_codec_with_a_decoder_of_spectra_encodes_as_before(mimi: Any, spectral_mimi: SpectralMimi) -> None:
    codecs = [MimiCodec(each, 1) for each in (mimi, spectral_mimi)]
    everybody, slots = torch.tensor([True]), torch.tensor([0])
    for pcm in 0.1 * torch.randn(4, 1, 1920, generator=torch.Generator().manual_seed(8)):
        before, after = (codec.encode(pcm, everybody, slots) for codec in codecs)
        assert torch.equal(before, after)
