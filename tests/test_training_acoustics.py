"""The world around a caller: levels, bands, delays, and the same for the same seed."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from core.engine.call import SAMPLE_RATE
from training import noises
from training.acoustics import around, banded, clipped, echo, lossy, room, telephone
from training.formants import stretched
from training.vocoding import pitch_of, pulse_train, vocoded

pytestmark = pytest.mark.training
SECONDS = 2
SAMPLES = SECONDS * SAMPLE_RATE
KINDS = [
    noises.steady,
    noises.typing,
    noises.music,
    noises.murmur,
    noises.office,
    noises.traffic,
    noises.breath,
    noises.hum,
]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def speech(count: int = 2) -> Tensor:
    """Syllables of noise, with a second of silence after them."""
    sound = 0.1 * torch.randn(count, SAMPLES, generator=generator(9))
    sound *= (torch.arange(SAMPLES) // 2400 % 2 == 0) & (torch.arange(SAMPLES) < SAMPLE_RATE)
    return sound


def share(sound: Tensor, low: float, high: float) -> Tensor:
    """Each row's share of power within a band."""
    power = torch.fft.rfft(sound).abs().square()
    frequency = torch.linspace(0, SAMPLE_RATE / 2, power.shape[1])
    within: Tensor = power[:, (frequency >= low) & (frequency <= high)].sum(dim=1) / power.sum(dim=1)
    return within


@pytest.mark.parametrize("kind", KINDS)
def test_a_noise_has_unit_power_and_is_the_same_for_the_same_seed(kind: noises.Noise) -> None:
    made = kind(3, SAMPLES, generator())
    assert made.shape == (3, SAMPLES)
    torch.testing.assert_close(made.square().mean(dim=1), torch.ones(3))
    assert torch.equal(made, kind(3, SAMPLES, generator()))
    assert not torch.equal(made, kind(3, SAMPLES, generator(1)))
    assert not torch.equal(made[0], made[1])


def vowel(pitch: float, formant: float) -> Tensor:
    """Harmonics of a pitch, the louder the nearer to a formant: float32[1, samples]."""
    time = torch.arange(SAMPLES) / SAMPLE_RATE
    harmonics = torch.arange(1, 40) * pitch
    level = 0.05 * torch.exp(-((harmonics - formant) / 300).square()) + 0.0005
    return (level[:, None] * torch.sin(2 * torch.pi * harmonics[:, None] * time)).sum(dim=0, keepdim=True)


@pytest.mark.parametrize("factor", [0.85, 1.18])
def test_formants_move_and_the_pitch_stays(factor: float) -> None:
    sound = vowel(120.0, 1500.0)
    moved = stretched(sound, torch.tensor([factor]))
    assert moved.shape == sound.shape
    assert float(moved.square().mean()) == pytest.approx(float(sound.square().mean()), rel=1e-4)
    power = torch.fft.rfft(moved[0]).abs().square()
    frequency = torch.linspace(0, SAMPLE_RATE / 2, len(power))
    assert float((power * frequency).sum() / power.sum()) == pytest.approx(1500 * factor, rel=0.06)
    between = (frequency % 120 - 60).abs() < 40
    assert float(power[between].sum() / power.sum()) < 0.01, "there is nothing between the harmonics"
    torch.testing.assert_close(stretched(sound, torch.ones(1)), sound, atol=1e-4, rtol=0)


def test_each_row_has_a_throat_of_its_own() -> None:
    sound = vowel(120.0, 1500.0).expand(2, -1)
    moved = stretched(sound, torch.tensor([1.0, 1.18]))
    torch.testing.assert_close(moved[0], sound[0], atol=1e-4, rtol=0)
    assert not torch.allclose(moved[1], sound[1], atol=1e-2)
    assert not stretched(torch.zeros(1, SAMPLES), torch.tensor([1.1])).any(), "silence stays what it is"


def test_a_vocoder_keeps_the_formants_and_has_a_pitch_of_its_own() -> None:
    sound = vowel(120.0, 1500.0).expand(6, -1).contiguous()
    anew = vocoded(sound, generator(3))
    assert anew.shape == sound.shape
    torch.testing.assert_close(anew.square().mean(dim=1), sound.square().mean(dim=1), rtol=1e-4, atol=0)
    power = torch.fft.rfft(anew).abs().square()
    frequency = torch.linspace(0, SAMPLE_RATE / 2, power.shape[1])
    centre = (power * frequency).sum(dim=1) / power.sum(dim=1)
    assert ((centre - 1500).abs() < 200).all()
    window = torch.hann_window(1024)
    period, _ = pitch_of(torch.stft(anew, 1024, 256, window=window, return_complex=True).abs())
    pitches = SAMPLE_RATE / period.median(dim=1).values
    assert len({round(float(pitch) / 5) for pitch in pitches}) >= 4, "each row is spoken at another pitch"
    assert torch.equal(anew, vocoded(sound, generator(3)))
    assert not vocoded(torch.zeros(1, SAMPLES), generator()).any(), "silence stays what it is"


def test_a_pitch_is_found_and_pulses_have_it() -> None:
    window = torch.hann_window(1024)
    period, voiced = pitch_of(torch.stft(vowel(150.0, 900.0), 1024, 256, window=window, return_complex=True).abs())
    assert voiced[0, 4:-4].all()
    assert ((period[0, 4:-4] - SAMPLE_RATE / 150).abs() <= 2).all()
    pulses = pulse_train(torch.full((1, SAMPLES), 100.0))
    assert ((pulses[0].nonzero()[:, 0].diff() - 240).abs() <= 1).all()
    assert float(pulses.square().mean()) == pytest.approx(1, rel=0.02)
    _, voiced = pitch_of(torch.stft(torch.zeros(1, SAMPLES), 1024, 256, window=window, return_complex=True).abs())
    assert not voiced.any()


def test_babble_is_what_others_say() -> None:
    voices = torch.zeros(3, SAMPLES)
    voices[1, :2400] = speech(1)[0, :2400]
    made = noises.babble(voices, generator())
    assert made.square().mean(dim=1).gt(0.5).sum() >= 1
    assert (made == 0).float().mean() > 0.7


def test_a_telephone_passes_its_band_only() -> None:
    sound = 0.1 * torch.randn(2, SAMPLES + 1, generator=generator())
    heard = telephone(sound)
    assert heard.shape == sound.shape
    assert (share(heard, 250, 3600) > 0.97).all()
    assert (share(heard, 4000, 12_000) < 1e-4).all()
    tone = 0.3 * torch.sin(2 * torch.pi * 1000 * torch.arange(SAMPLES) / SAMPLE_RATE)[None]
    torch.testing.assert_close(telephone(tone)[:, 2400:-2400], tone[:, 2400:-2400], atol=0.03, rtol=0)
    assert (share(banded(sound, 100.0, 5000.0), 100, 5000) > 0.85).all()


def test_an_echo_comes_late_and_softer() -> None:
    agent = torch.zeros(4, SAMPLES)
    agent[:, 100] = 1.0
    heard = echo(agent, 0.2, -10.0, generator())
    first = (heard.abs() > 0.3 * heard.abs().amax(dim=1, keepdim=True)).int().argmax(dim=1)
    assert ((first - 100) / SAMPLE_RATE - 0.2).abs().max() < 0.005
    spoken = speech()
    level = 10 * (echo(spoken, 0.1, -10.0, generator()).square().mean() / spoken.square().mean()).log10()
    assert level.item() == pytest.approx(-10, abs=1.5)


def test_a_room_rings_on_and_keeps_its_head() -> None:
    sound = speech()
    wet = room(sound, generator())
    assert wet.shape == sound.shape
    assert (wet[:, SAMPLE_RATE + 2400 : SAMPLE_RATE + 4800].square().mean(dim=1) > 1e-8).all()
    assert (wet[:, -1200:].square().mean(dim=1) < 1e-4 * sound.square().mean(dim=1)).all()


@pytest.mark.parametrize("effect", [clipped, lossy])
def test_what_is_spoilt_has_no_new_peaks_and_keeps_silence(effect: Callable[[Tensor, torch.Generator], Tensor]) -> None:
    sound = speech()
    made = effect(sound, generator())
    assert made.shape == sound.shape
    assert 0.05 < (made - sound).square().mean() ** 0.5 / sound.std() < 1
    assert made[:, SAMPLE_RATE + 1200 :].abs().max() < 1e-6
    assert made.abs().max() < 1.5 * sound.abs().max()


def test_some_callers_are_perfectly_silent_and_the_rest_of_the_world_is_as_the_seed_says() -> None:
    callers, agents = speech(40), torch.zeros(40, SAMPLES)
    heard = around(callers, agents, generator())
    assert heard.isfinite().all()
    assert heard.abs().max() <= 1
    assert torch.equal(heard, around(callers, agents, generator()))
    assert torch.equal(callers, speech(40)), "what comes in is left as it is"
    silence = heard[:, -2400:].square().mean(dim=1).sqrt()
    assert 0 < (silence < 1e-7).sum() < 20
    assert 4 < (silence > 1e-3).sum() < 30
    echoed = around(callers, speech(40).roll(SAMPLE_RATE, dims=1), generator())
    assert not torch.equal(echoed, heard)
