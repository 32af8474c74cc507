"""The listener beside the codec: it learns what is said in real sound, and teaches what makes the copy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from core.engine.call import FRAME_SAMPLES, SAMPLE_RATE
from tests.engines import CPU
from training.listener import Listener, listen
from training.pool import LABEL_SAMPLES, LABELS_PER_FRAME, PHONES, SpeechPool
from training.shards import Line, LineRecord

pytestmark = pytest.mark.training
FRAMES = 8
SAID = "aiostz"


def line(rng: np.random.Generator, phones: int = 40) -> Line:
    """A tenth of a second of a buzz for each phone, which sounds at frequencies of its own."""
    said = rng.choice(list(SAID), phones)
    time = np.arange(SAMPLE_RATE // 10) / SAMPLE_RATE
    tones = {phone: (300 * (1 + n), 4000 - 450 * n) for n, phone in enumerate(SAID)}
    pcm = np.concatenate([sum(0.1 * np.sin(2 * np.pi * tone * time) for tone in tones[phone]) for phone in said])
    pcm = np.round(32767 * (pcm + 0.003 * rng.standard_normal(len(pcm)))).astype(np.int16)
    begins = tuple((0.1 * n, str(phone)) for n, phone in enumerate(said))
    return Line(LineRecord("", "", "", 0, len(pcm), (), begins), pcm)


@pytest.fixture(scope="module")
def pool() -> SpeechPool:
    rng = np.random.default_rng(0)
    return SpeechPool([line(rng) for _ in range(6)], CPU)


def test_it_hears_each_label_where_it_is() -> None:
    """There are as many answers as labels, and each depends on the sound about it alone, but for the norms."""
    listener = Listener(1 + len(PHONES))
    for layer in listener.layers:
        assert isinstance(layer, torch.nn.Sequential)
        layer[1] = torch.nn.Identity()
    sound = torch.zeros(1, FRAMES * FRAME_SAMPLES)
    place = 13
    changed = sound.clone()
    changed[:, place * LABEL_SAMPLES : (place + 1) * LABEL_SAMPLES] = torch.randn(LABEL_SAMPLES)
    with torch.inference_mode():
        before, after = listener(sound)[0], listener(changed)[0]
    assert before.shape == (1, 1 + len(PHONES), FRAMES * LABELS_PER_FRAME)
    moved = (after - before).abs().sum(dim=1)[0].nonzero().flatten()
    assert (moved[0], moved[-1]) == (place - 9, place + 9)


def test_it_learns_what_is_said_and_tells_another_line_from_it(pool: SpeechPool) -> None:
    torch.manual_seed(0)
    listener = Listener(1 + len(PHONES))
    optimizer = torch.optim.AdamW(listener.parameters(), lr=2e-3)
    for _ in range(30):
        sound, labels = pool.crops(4, FRAMES)
        optimizer.zero_grad()
        F.cross_entropy(listener(sound)[0], labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    sound, labels = pool.crops(4, FRAMES)
    losses = {
        name: {key: float(loss.detach()) for key, loss in listen(listener, sound, made, labels).items()}
        for name, made in (("same", sound), ("soft", 0.7 * sound), ("other", sound.roll(1, dims=0)))
    }
    assert losses["same"]["listener"] < 1.5, "chance is 3.8"
    assert losses["same"]["misheard"] == losses["same"]["listener"]
    assert losses["same"]["unlike"] == 0
    for key in ("misheard", "unlike"):
        assert losses["other"][key] > 1.5 * losses["soft"][key], key


def test_a_copy_moves_what_made_it_alone(pool: SpeechPool) -> None:
    listener = Listener(1 + len(PHONES))
    sound, labels = pool.crops(2, FRAMES)
    made = (0.5 * sound).requires_grad_()
    losses = listen(listener, sound.requires_grad_(), made, labels)
    (losses["misheard"] + losses["unlike"]).backward()  # type: ignore[no-untyped-call]
    assert made.grad is not None
    assert made.grad.abs().max() > 0
    assert sound.grad is None
    assert all(parameter.grad is None for parameter in listener.parameters())
    losses["listener"].backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in listener.parameters())
