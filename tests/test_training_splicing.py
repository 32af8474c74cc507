"""Spliced conversations: personas that come once, and codes that do not say what the text says are not learned."""

import random
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from core.engine.architecture import AGENT_CODEBOOKS, STREAMS
from core.engine.prompt import SpecialCodes
from tests.agents_lines import add_agents_lines
from training.composer import SPLICED, Composer
from training.dialogues import FRAMES_PER_SECOND, PADDING, VOICE_FRAMES
from training.encoded import SHIFTS, AgentLine, Lines
from training.lm import CODEBOOK_WEIGHTS, HEARD_WEIGHT, TEXT_WEIGHT, Losses, Shares, losses_of
from training.network import Logits
from training.scripts import episode
from training.shape import ARCHITECTURE
from training.splicing import Splicer
from training.tokenizer import make_tokenizer, read_tokenizer

pytestmark = pytest.mark.training


def spoken(text: str, code: int, frames_a_word: Iterable[int], late: float = 0.0) -> AgentLine:
    """A line whose words have codes `code`, `code` + 1, and so on; each begins `late` frames into its first."""
    frames = list(frames_a_word)
    begins = np.cumsum([0, *frames[:-1]]) + late
    codes = np.repeat(np.arange(code, code + len(frames)), frames).astype(np.int16)
    codes = np.broadcast_to(codes[None, :, None], (SHIFTS, len(codes), AGENT_CODEBOOKS))
    return AgentLine(text, "Anna", tuple(begins / FRAMES_PER_SECOND), codes)


def test_a_line_is_made_of_its_words_wherever_they_were_said() -> None:
    said = [spoken("We have bread.", 10, (2, 3, 5), late=0.25), spoken("It is three dollars.", 20, (1, 2, 4, 6))]
    line = Splicer("Anna", said).line(random.Random(0), "We have three dollars.")
    assert (line.text, line.speaker) == ("We have three dollars.", "Anna")
    frames = [10] * 2 + [11] * 3 + [22] * 4 + [23] * 6
    assert line.codes.shape == (SHIFTS, len(frames), AGENT_CODEBOOKS)
    assert line.codes[0, :, 0].tolist() == line.codes[-1, :, -1].tolist() == frames
    begins = [second * FRAMES_PER_SECOND for second in line.words]
    assert begins == pytest.approx([0.25, 2.25, 5.0, 9.0])


def test_a_word_that_was_never_said_sounds_like_one_about_as_long() -> None:
    said = [spoken("I apologise.", 10, (1, 9)), spoken("Oh extraordinary", 20, (2, 11))]
    splicer = Splicer("Anna", said)
    lengths = [splicer.line(random.Random(seed), "Marguerite").codes.shape[1] for seed in range(50)]
    assert sum(length > 5 for length in lengths) > 45
    with pytest.raises(ValueError, match="Anna has said no words"):
        Splicer("Anna", [])


def test_most_conversations_are_about_somebody_who_never_comes_again(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    make_tokenizer(path, 400, count=150)
    tokenizer = read_tokenizer(path)
    special = SpecialCodes(silence=tuple(range(8)), sine=tuple(range(8, 16)))
    one, lines = episode(random.Random(8), "service"), Lines()
    add_agents_lines(lines, "kokoro-0", one.lines(), frames=4, seconds=0.3)
    composer = Composer(lines, {"kokoro-0": one}, tokenizer, special, ARCHITECTURE, {})
    prompts: list[str] = []
    for seed in range(60):
        dialogue = composer.compose(random.Random(seed), 600)
        prompt = tokenizer.decode([piece for piece in dialogue.prompt[VOICE_FRAMES:, 0].tolist() if piece < 400])
        text = tokenizer.decode([piece for piece in dialogue.text.tolist() if piece not in (0, PADDING)])
        assert dialogue.sounds == (one.prompt in prompt)
        greeting = one.greeting.split()
        assert text.split()[: len(greeting)] == greeting or not dialogue.sounds
        assert dialogue.speaking.any()
        assert set(dialogue.agent[dialogue.speaking][:, 0].tolist()) == {20}
        if not dialogue.sounds:
            prompts.append(prompt)
    assert len(prompts) == len(set(prompts)) == pytest.approx(60 * SPLICED, abs=12)


def losses(sounds: list[bool], codes: int = 7) -> tuple[Losses, Tensor, Tensor]:
    """Of two rows, whose codes are 1 and `codes`, and where the logits of text and codes are learned."""
    torch.manual_seed(0)
    positions, card = 41, 10
    tokens = torch.ones(2, positions, STREAMS, dtype=torch.int64)
    tokens[1, :, 1 : 1 + AGENT_CODEBOOKS] = codes
    text = torch.zeros(2, positions - 1, card, requires_grad=True)
    likely = torch.zeros(card)
    likely[1] = 3.0
    made: list[Tensor] = []

    def network(_read: Tensor, _target: Tensor, chosen: Tensor, _positions: Tensor) -> Logits:
        made.append(likely.expand(*chosen.shape, AGENT_CODEBOOKS, card).clone().requires_grad_())
        return Logits(text, made[0], (torch.zeros(2, positions - 1, card),))

    speaking = torch.arange(positions).expand(2, -1) % 3 > 0
    heard = torch.full((2, positions), PADDING)
    shares = Shares(torch.tensor(CODEBOOK_WEIGHTS))
    begins, given = torch.tensor([5, 5]), torch.zeros_like(speaking)
    found = losses_of(network, shares, tokens, begins, speaking, torch.tensor(sounds), heard, given)
    torch.autograd.backward(found.total)
    assert text.grad is not None
    assert made[0].grad is not None
    return found, text.grad.abs().sum(dim=(1, 2)), made[0].grad.abs().sum(dim=(1, 2, 3))


def test_only_codes_that_sound_as_their_text_are_learned() -> None:
    both, text, codes = losses([True, True])
    assert (text > 0).all()
    assert (codes > 0).all()
    one, text, codes = losses([True, False])
    assert (text > 0).all()
    assert codes[0] > 0
    assert codes[1] == 0
    other, *_ = losses([True, False], codes=3)
    assert one.total == other.total
    learned = torch.log(torch.exp(torch.tensor(3.0)) + 9) - 3
    torch.testing.assert_close(one.first, learned)
    torch.testing.assert_close(one.rest, learned)
    assert both.first > one.first
    texts = TEXT_WEIGHT * one.words + HEARD_WEIGHT * torch.log(torch.tensor(10.0))
    torch.testing.assert_close(one.total.detach(), texts + sum(CODEBOOK_WEIGHTS) * learned)


def test_a_batch_may_have_no_codes_to_learn() -> None:
    none, text, codes = losses([False, False])
    assert (text > 0).all()
    assert (codes == 0).all()
    texts = TEXT_WEIGHT * none.words + HEARD_WEIGHT * torch.log(torch.tensor(10.0))
    torch.testing.assert_close(none.total.detach(), texts)


def test_the_speech_of_the_shipped_personas_and_of_late_shards_go_together(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader", reason="the training group is not installed: uv sync --group training")
    from training.shards import read_index, read_shard, shard_paths
    from training.speech import SHIPPED, episodes_of, make_shard
    from training.voices import ESPEAK, KOKORO

    first = {name for shard in range(SHIPPED) for name in episodes_of(KOKORO, shard)}
    late = {name for shard in (4000, 5999) for name in episodes_of(KOKORO, shard)}
    assert {name.partition("-")[0] for name in first} == {"shipped"}
    assert {name.partition("-")[0] for name in late} == {"kokoro"}
    assert len({agent.name for _, agent in episodes_of(KOKORO, 4000).values()}) == 4
    for shard in (0, 123456):
        make_shard(ESPEAK, tmp_path, shard, count=1)
    assert [*chain.from_iterable(read_index(path).episodes for path in shard_paths(tmp_path))] == [
        "espeak-0.0",
        "espeak-123456.0",
    ]
    assert all(read_shard(path) for path in shard_paths(tmp_path))
