"""Persona files: what people write, right and wrong."""

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.engine.sampling import Sampling
from core.errors import ConfigError
from core.plugin.persona_images import LARGEST, PersonaImage
from core.plugin.personas import Persona, PersonaFolder, invalid_field, load_personas, read_persona
from core.settings.config import load_config, shipped

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
VOICES = ["NATF2", "NATM2", "VARF0", "VARM0"]


def load(folder: Path, limit: int = 4000) -> tuple[Persona, ...]:
    return load_personas(folder, VOICES, limit)


def test_a_persona_is_read_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "wise-owl.yaml").write_text(
        """
name: Wise owl
description: Hoots.
voice: NATF2
prompt: >
  You are an owl.

  You hoot.
greeting: |
  Hoot!  Who
  is there?
sampling: {temperature: 0.5, text_top_k: 10}
group: Birds
starters: ["Do you sleep?", "  What  is that? "]
emoji: 🏴‍☠️
image: owl.jpg
pin_prompt: false
"""
    )
    (tmp_path / "owl.jpg").write_bytes(PNG)  # told by its content
    (owl,) = load(tmp_path)
    assert (owl.group, owl.starters, owl.emoji) == ("Birds", ("Do you sleep?", "What is that?"), "🏴‍☠️")
    assert owl.image == PersonaImage(PNG)
    assert owl.image.media_type == "image/png"
    assert owl.pin_prompt is False
    assert owl.greeting == "Hoot! Who is there?"
    assert (owl.id, owl.name, owl.voice, owl.prompt) == ("wise-owl", "Wise owl", "NATF2", "You are an owl. You hoot.")
    assert owl.sampling == Sampling(temperature=0.5, text_top_k=10)
    assert "hoot" not in repr(owl)


def test_the_shipped_personas_are_good_and_hold_the_trained_prompts() -> None:
    allow = load_config(shipped("config.yaml"), {}).voices.allow
    personas = {persona.id: persona for persona in load_personas(shipped("personas"), allow, 4000)}
    assert len(personas) >= 8
    assert personas["assistant"].prompt == (
        "You are a wise and friendly teacher. Answer questions or provide advice in a clear and engaging way."
    )
    assert personas["conversation"].prompt == "You enjoy having a good conversation."
    roles = [persona for persona in personas.values() if persona.prompt.startswith("You work for ")]
    assert len(roles) >= 4
    assert all(" which is a" in role.prompt and " Information: " in role.prompt for role in roles)
    assert all(persona.description for persona in personas.values())
    assert {persona.voice for persona in personas.values()} == set(allow)


def test_every_problem_of_every_file_is_named_at_once(tmp_path: Path) -> None:
    files = {
        "Bad Name.yaml": "name: A\nvoice: NATF2",
        "typo.yaml": "name: A\nvoice: NATF2\npromt: x\nsampling: {temprature: 1}",
        "types.yaml": "name: 3\nvoice: NATF2\nprompt: [a]",
        "no.yaml": "name: No\nvoice: NATF2",
        "agent.yaml": "name: 007\nvoice: NATF2",
        "empty.yaml": "name:\nvoice: NATF2",
        "notepad.yaml.txt": "name: A\nvoice: NATF2",
        "Capital.YAML": "name: A\nvoice: NATF2",
        "twice.yaml": "name: A\nvoice: NATF2",
        "twice.yml": "name: A\nvoice: NATF2",
        "hot.yaml": "name: A\nvoice: NATF2\nsampling: {temperature: 9}",
        "voice.yaml": "name: A\nvoice: NATF9",
        "missing.yaml": "prompt: x",
        "long.yaml": f"name: A\nvoice: NATF2\nprompt: {'x' * 50}",
        "chatty.yaml": f"name: A\nvoice: NATF2\ngreeting: {'x' * 1001}",
        "bell.yaml": 'name: A\nvoice: NATF2\ngreeting: "Hello\\a"',
        "broken.yaml": "name: [",
        "words.yaml": "name: A\nvoice: NATF2\nemoji: smile",
        "many.yaml": "name: A\nvoice: NATF2\nstarters: [a, b, c, d, e, f, g]",
        "silent.yaml": "name: A\nvoice: NATF2\nstarters: ['']",
        "away.yaml": "name: A\nvoice: NATF2\nimage: ../secret.png",
        "hidden.yaml": "name: A\nvoice: NATF2\nimage: .secret.png",
        "gone.yaml": "name: A\nvoice: NATF2\nimage: gone.png",
        "script.yaml": "name: A\nvoice: NATF2\nimage: script.svg",
        "huge.yaml": "name: A\nvoice: NATF2\nimage: huge.png",
        "folder.yaml": "name: A\nvoice: NATF2\nimage: folder.png",
        "good.yaml": "name: A\nvoice: NATF2",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "script.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    (tmp_path / "huge.png").write_bytes(PNG + bytes(LARGEST))
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, limit=20)
    found = caught.value.problems
    for name, part in {
        "Bad Name.yaml": "the file's name is the persona's id",
        "typo.yaml": "promt: unknown key. Did you mean 'prompt'?",
        "types.yaml": "name: expected str, got int",
        "no.yaml": "name: expected str, got bool; write it in quotes",
        "agent.yaml": "name: expected str, got int; write it in quotes",
        "empty.yaml": "name: missing",
        "notepad.yaml.txt": "Rename it to notepad.yaml",
        "Capital.YAML": "use small letters",
        "twice.yml": "twice.yaml has the same name",
        "hot.yaml": "sampling: temperature must lie between",
        "voice.yaml": "voice: the voice 'NATF9' is not offered. Offered: NATF2",
        "missing.yaml": "voice: missing",
        "long.yaml": "prompt: 50 characters; personas.max_prompt_chars allows 20",
        "broken.yaml": "not valid YAML",
        "words.yaml": "emoji: expected one such as",
        "many.yaml": "starters: expected array of length <= 6",
        "silent.yaml": "starters[0]: expected str of length >= 1",
        "away.yaml": "image: expected the name of a file beside this one",
        "hidden.yaml": "image: expected the name of a file beside this one",
        "gone.yaml": "image: gone.png cannot be read: No such file",
        "script.yaml": "image: expected PNG, JPEG or WebP",
        "huge.yaml": "image: 256 KiB; at most 256",
        "folder.yaml": "image: folder.png cannot be read: Is a directory",
    }.items():
        assert any(problem.startswith(f"{tmp_path / name}: ") and part in problem for problem in found), name
    assert any("sampling.temprature" in problem for problem in found)
    assert not any("good.yaml" in problem for problem in found)


def test_files_beside_are_skipped_and_near_endings_taken(tmp_path: Path) -> None:
    for name in ("ann.yaml", "bob.yml", "cat.YAML", "dan.YmL"):
        (tmp_path / name).write_text("name: A\nvoice: NATF2\ndescription:\nsampling:\nprompt:")
    for name in ("._ann.yaml", ".ann.yaml", ".ann.yaml.swp", "ann.yaml~", "ann.yaml.bak", "README.md"):
        (tmp_path / name).write_bytes(b"\x00\x05\x16\x07 no text")
    (tmp_path / "old.yaml").mkdir()
    found = load(tmp_path)
    assert [persona.id for persona in found] == ["ann", "bob", "cat", "dan"]
    assert {(persona.description, persona.prompt, persona.sampling) for persona in found} == {("", "", Sampling())}


def test_a_picture_that_comes_changes_or_goes_is_seen(tmp_path: Path) -> None:
    (tmp_path / "owl.yaml").write_text("name: Owl\nvoice: NATF2\nimage: owl.png")
    folder = PersonaFolder(tmp_path, 4000)
    with pytest.raises(ConfigError):
        folder.load(VOICES)
    (tmp_path / "owl.png").write_bytes(PNG)
    (first,) = folder.load(VOICES)
    assert folder.load(VOICES)[0] is first
    (tmp_path / "owl.png").write_bytes(b"\xff\xd8\xff" + bytes(20))
    (second,) = folder.load(VOICES)
    assert first.image is not None
    assert second.image is not None
    assert (first.image.media_type, second.image.media_type) == ("image/png", "image/jpeg")
    (tmp_path / "owl.png").unlink()
    with pytest.raises(ConfigError):
        folder.load(VOICES)


def test_only_what_has_changed_is_read_again(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"p{number}.yaml").write_text(f"name: P{number}\nvoice: NATF2")
    folder = PersonaFolder(tmp_path, 4000)
    before = folder.load(VOICES)
    (tmp_path / "p7.yaml").write_text("name: Seven\nvoice: NATF2")
    after = folder.load(VOICES)
    assert [new.name for old, new in zip(before, after, strict=True) if old is not new] == ["Seven"]
    (tmp_path / "p7.yaml").unlink()
    assert len(folder.load(VOICES)) == 19
    with pytest.raises(ConfigError, match="'NATF2' is not offered"):  # no file has changed, but what is offered has
        folder.load(["NATM2"])
    assert len(folder.load(VOICES)) == 19


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="personas cannot be read"):
        load(tmp_path / "none")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from(["name", "voice", "prompt", "description", "sampling", "x"]),
        st.none()
        | st.text(max_size=30)
        | st.floats()
        | st.lists(st.text(max_size=5), max_size=3)
        | st.dictionaries(st.sampled_from(["temperature", "top_k", "seed"]), st.floats() | st.integers(), max_size=3),
    )
)
def test_any_yaml_gives_a_persona_or_problems(tmp_path: Path, data: object) -> None:
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
    problems: list[str] = []
    persona = read_persona(tmp_path / "a.yaml", 4000, problems)
    assert (persona is None) == bool(problems)
    assert all(problem.startswith(f"{tmp_path / 'a.yaml'}: ") for problem in problems)
    assert persona is None or (persona.id == "a" and invalid_field(persona) == "")
