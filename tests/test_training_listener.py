"""The listener beside the codec: it learns what is said in real sound, and teaches what makes the copy."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from core.engine.call import FRAME_SAMPLES, SAMPLE_RATE
from tests.engines import CPU
from training.codec import CodecOptions, CodecTraining
from training.listener import Listener, listen
from training.pool import LABEL_SAMPLES, LABELS_PER_FRAME, PHONES, SpeechPool
from training.shape import codec_shape
from training.shards import Line, LineRecord

pytestmark = pytest.mark.training
FRAMES = 8
OPTIONS = CodecOptions(batch=2, frames=FRAMES, mimi=codec_shape(dim=32, filters=4, layers=1, codebook_size=64))
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


@pytest.fixture
def training(pool: SpeechPool) -> CodecTraining:
    torch.manual_seed(0)
    return CodecTraining(pool, OPTIONS, CPU)


def weights_of(module: torch.nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


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


@pytest.mark.parametrize("progress", [0.0, 0.9])
def test_it_learns_beside_the_codec_as_if_there_were_none(
    training: CodecTraining, monkeypatch: pytest.MonkeyPatch, progress: float
) -> None:
    """A step moves the codec and the listener; the listener just as where the codec's copy is not heard."""
    codec, before = weights_of(training.mimi), weights_of(training.listener)
    start = {name: part.state_dict() for name, part in training._parts().items()}
    start = {name: {key: value.clone() for key, value in state.items()} for name, state in start.items()}

    def step(other: Callable[..., dict[str, Tensor]]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        monkeypatch.setattr("training.codec.listen", other)
        again = CodecTraining(training._pool, OPTIONS, CPU)
        for name, part in again._parts().items():
            part.load_state_dict(start[name])
        torch.manual_seed(1)
        losses = again.step(progress)
        return weights_of(again.mimi), weights_of(again.listener), losses

    heard_codec, heard, losses = step(listen)
    alone_codec, alone, _ = step(lambda listener, real, _, labels: listen(listener, real, real, labels))
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert not torch.equal(heard, before)
    assert torch.equal(heard, alone)
    assert not torch.equal(heard_codec, codec)
    assert not torch.equal(heard_codec, alone_codec)


def test_it_is_kept_with_the_codec(training: CodecTraining, pool: SpeechPool, tmp_path: Path) -> None:
    training.step(0.0)
    training.save(tmp_path / "codec.pt")
    again = CodecTraining(pool, OPTIONS, CPU)
    again.resume(tmp_path / "codec.pt")
    assert torch.equal(weights_of(again.listener), weights_of(training.listener))


def test_a_codec_alone_can_be_gone_on_from(training: CodecTraining, pool: SpeechPool, tmp_path: Path) -> None:
    torch.save({"mimi": training.mimi.state_dict()}, tmp_path / "codec.pt")
    again = CodecTraining(pool, OPTIONS, CPU)
    fresh = weights_of(again.listener)
    again.resume(tmp_path / "codec.pt")
    assert torch.equal(weights_of(again.mimi), weights_of(training.mimi))
    assert torch.equal(weights_of(again.listener), fresh)
