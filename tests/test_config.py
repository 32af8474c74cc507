"""config.yaml and the environment: what people write, right and wrong."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from core.boot.check import check
from core.errors import ConfigError
from core.settings.config import Config, load_config, read_config, shipped
from core.settings.yaml_structs import Secret

Write = Callable[[str], Path]
"""Writes config.yaml, and says where."""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return path

    return write


def problems(path: Path, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(path, environ or {})
    return list(caught.value.problems)


def test_an_empty_file_is_a_configuration(write: Write) -> None:
    config = load_config(write(""), {})
    assert config.server.port == 8998
    assert config.voices.allow == ("*",)
    assert Path(config.personas.folder) == shipped("personas").absolute()


def test_every_problem_is_named_at_once_with_file_and_key(write: Write) -> None:
    path = write(
        """
servr: {port: 1}
server: {port: many, hots: x, queue: -1}
engine: {dtype: float8, slots: some}
voices: {allow: NATF2}
session: {max_s: .nan, idle_s: 0}
log: [json]
"""
    )
    found = problems(path)
    assert all(problem.startswith(f"{path}: ") for problem in found)
    for key in (
        "servr",
        "server.port",
        "server.hots",
        "server.queue",
        "engine.dtype",
        "engine.slots",
        "voices.allow",
        "session.max_s",
        "session.idle_s",
        "log",
    ):
        assert any(problem.startswith(f"{path}: {key}: ") for problem in found), (key, found)
    assert len(found) == 10
    assert any("Did you mean 'host'?" in problem for problem in found)


def test_a_broken_section_leaves_the_others_readable(write: Write) -> None:
    config, found = read_config(write("server: {port: x}\nsession: {max_s: 60}"), {})
    assert len(found) == 1
    assert config.session.max_s == 60
    assert config.server.port == 8998


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("server: {port: 1", "not valid YAML in line"),
        ("server: {port: 1}\nserver: {port: 2}", "the key 'server' is given twice"),
        ("a: &a [x, x]\nb: [*a, *a]", "text that begins with & must be in quotes"),
        ("b: [*a, *a]", "aliases (*name) are not allowed"),
        ("- one\n- two", "must be a mapping"),
        ("[" * 5000, "nested too deeply"),
        ("a: 2024-13-45", "not valid YAML"),
        ("\x00", "not valid YAML"),
    ],
)
def test_what_is_no_yaml_is_an_error_that_names_the_file(write: Write, text: str, says: str) -> None:
    path = write(text)
    found = problems(path)
    assert found
    assert found[0].startswith(f"{path}: ")
    assert says in found[0]


def test_a_file_that_is_no_text_and_one_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    assert problems(path) == [f"{path}: not UTF-8 text. Save it as UTF-8."]
    assert "cannot be read" in problems(tmp_path / "none.yaml")[0]


def test_values_come_from_the_environment(write: Write) -> None:
    path = write("server: {host: {env: HOST}, port: {env: PORT}}\nengine: {token: {env: NO_TOKEN, default: null}}")
    config = load_config(path, {"HOST": "0.0.0.0", "PORT": "9000"})
    assert (config.server.host, config.server.port, config.engine.token) == ("0.0.0.0", 9000, None)
    assert any("server.host" in problem and "HOST is not set" in problem for problem in problems(path))
    wrong = problems(path, {"HOST": "h", "PORT": "high"})
    assert wrong == [f"{path}: server.port: expected int, got str (from the environment variable PORT)."]


def test_any_key_can_be_overridden_from_the_environment(write: Write) -> None:
    path = write("server: {port: 1}")
    environ = {
        "PERSONAPLEX_SERVER__PORT": "9000",
        "PERSONAPLEX_VOICES__ALLOW": "[NATF2, VAR*]",
        "PERSONAPLEX_ENGINE__SLOTS": "auto",
        "PERSONAPLEX_PERSONAS__CUSTOM": "true",
        "PERSONAPLEX_PLUGINS__OPTIONS__LOUDNESS__TARGET_DB": "-20",
        "PERSONAPLEX_PASSWORD": "not a key",
    }
    config = load_config(path, environ)
    assert config.server.port == 9000
    assert config.voices.allow == ("NATF2", "VAR*")
    assert config.engine.slots == "auto"
    assert config.personas.custom is True
    assert config.options("loudness") == {"target_db": "-20"}

    wrong = problems(
        path, {"PERSONAPLEX_SERVER__PROT": "1", "PERSONAPLEX_SERVER__PORT__X": "1", "PERSONAPLEX_X__Y": "1"}
    )
    assert len(wrong) == 3
    assert all("PERSONAPLEX_" in problem for problem in wrong)


@pytest.mark.parametrize("secret", ["12345", "true", "0x10", "{a:b", "null"])
def test_a_secret_stays_text_and_is_never_shown(write: Write, secret: str) -> None:
    path = write("plugins: {options: {password: {password: {env: PW}}}}")
    config = load_config(path, {"PERSONAPLEX_ENGINE__TOKEN": secret, "PW": "pw-is-" + secret})
    assert config.engine.token == Secret(secret)
    assert config.engine.token.reveal() == secret
    assert config.options("password") == {"password": "pw-is-" + secret}
    assert "Secret(***)" in repr(config)
    assert "pw-is-" not in repr(config)


def test_a_wrong_secret_is_not_in_the_error(write: Write) -> None:
    path = write("engine: {token: 271828}\nserver: {port: {env: PORT}}")
    found = problems(path, {"PORT": "hunter2"})
    assert any("engine.token" in problem and "quotes" in problem for problem in found)
    assert not any("271828" in problem or "hunter2" in problem for problem in found)
    assert load_config(path, {"PORT": "1", "PERSONAPLEX_ENGINE__TOKEN": ""}).engine.token is None


def test_folders_are_those_beside_the_file(write: Write, tmp_path: Path) -> None:
    (tmp_path / "who").mkdir()
    (tmp_path / "plugins").mkdir()
    (tmp_path / "model").mkdir()
    config = load_config(write("personas: {folder: who}\nengine: {checkpoint: model}"), {})
    assert Path(config.personas.folder) == tmp_path / "who"
    assert Path(config.voices.folder) == tmp_path / "voices"
    assert config.plugins.folders == (str(tmp_path / "plugins"),)
    assert config.engine.checkpoint == str(tmp_path / "model")

    found = problems(write("personas: {folder: nobody}\nplugins: {folders: [pluginz]}\nserver: {web: w}"))
    assert {problem.split(": ")[1] for problem in found} == {"personas.folder", "plugins.folders", "server.web"}


def test_personas_beside_the_file_come_before_the_shipped_ones(write: Write, tmp_path: Path) -> None:
    (tmp_path / "personas").mkdir()
    assert Path(load_config(write(""), {}).personas.folder) == tmp_path / "personas"


async def test_the_shipped_settings_work_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(None, {})
    assert config.voices.allow == ("NATF2", "NATM2", "VARF0", "VARM0")
    assert Path(config.personas.folder) == shipped("personas").absolute()
    assert (await check(None, {})).problems == ()


def test_a_file_in_the_current_folder_is_taken(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("server: {port: 7}")
    monkeypatch.chdir(tmp_path)
    assert load_config(None, {}).server.port == 7


def test_the_shipped_file_states_the_defaults() -> None:
    given = yaml.safe_load(shipped("config.yaml").read_text())
    config, default = load_config(shipped("config.yaml"), {}), Config()
    for section in ("server", "engine", "session", "log"):
        known = {name: getattr(getattr(default, section), name) for name in getattr(default, section).__struct_fields__}
        assert set(given[section]) == set(known)
        assert {name: getattr(getattr(config, section), name) for name in known if name != "web"} == {
            name: value for name, value in known.items() if name != "web"
        }


async def test_check_names_problems_of_every_kind_at_once(write: Write, tmp_path: Path) -> None:
    (tmp_path / "personas").mkdir()
    (tmp_path / "personas" / "a.yaml").write_text("name: A\nvoice: NATF9\ntypo: 1")
    path = write("server: {port: x}\nvoices: {allow: [NATF2, NOPE]}\npersonas: {default: b}")
    found = "\n".join((await check(path, {})).problems)
    for part in ("server.port", "a.yaml: typo", "voices.allow: there is no voice 'NOPE'"):
        assert part in found
    wrong = write("server: {port: x}\nplugins: {options: {loudness: {target: 1}, lodness: {}}, disabled: [nope]}")
    found = "\n".join((await check(wrong, {})).problems)
    for part in ("server.port", "plugins.options.loudness.target: unknown key", "'lodness'", "'nope'"):
        assert part in found


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
keys = st.sampled_from(["server", "engine", "voices", "personas", "session", "plugins", "log", "env", "port", "allow"])


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(keys | st.text(max_size=8), st.dictionaries(keys, values, max_size=3) | values, max_size=5))
def test_any_yaml_gives_a_config_and_problems_that_name_the_file(tmp_path: Path, data: object) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
    config, found = read_config(path, {})
    assert isinstance(config, Config)
    assert all(problem.startswith(str(path)) for problem in found)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_any_bytes_give_a_config_and_problems_that_name_the_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    config, found = read_config(path, {})
    assert isinstance(config, Config)
    assert all(problem.startswith(str(path)) for problem in found)


def test_a_page_must_know_where_the_calls_are(write: Write) -> None:
    path = write("server: {role: page}")
    [problem] = problems(path)
    assert str(path) in problem
    assert "socket" in problem
    for wrong in ("https://calls.example", "wss://calls.example/path", "wss://a; script-src *"):
        assert "server.socket" in problems(write(f"server: {{role: page, socket: {wrong!r}}}"))[0]
    config = load_config(write("server: {role: page, socket: 'wss://calls.example'}"), {})
    assert config.server.socket == "wss://calls.example"


# What is allowed, and values that YAML takes for something else


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("engine: {dtype: float8}", "engine.dtype: expected auto, float32, bfloat16, got 'float8'."),
        ("engine: {dtype: 16}", "engine.dtype: expected auto, float32, bfloat16, got 16."),
        ("engine: {device: tpu}", "engine.device: expected auto, cpu, cuda, got 'tpu'."),
        ("engine: {slots: some}", "engine.slots: expected auto, or a number, got 'some'."),
        ("log: {format: no}", "log.format: expected auto, console, json, got False."),
        ("server: {origins: ['https://a.example/']}", "server.origins[0]: expected an origin such as https://"),
        ("server: {socket: 'http://a'}", "server.socket: expected an address such as wss://"),
        ("server: {host: 127}", "server.host: expected str, got int; write it in quotes to make it text."),
        ("voices: {allow: [No]}", "voices.allow[0]: expected str, got bool; write it in quotes to make it text."),
        ("server: {host: 2024-01-01}", "server.host: expected str, got date; write it in quotes to make it text."),
    ],
)
def test_a_wrong_value_says_what_is_allowed(write: Write, text: str, says: str) -> None:
    [problem] = problems(write(text))
    assert problem.startswith(f"{write(text)}: {says}")


def test_what_is_allowed_says_nothing_of_a_variable(write: Write) -> None:
    [problem] = problems(write(""), {"PERSONAPLEX_ENGINE__DTYPE": "hunter2"})
    assert problem.endswith(
        "expected auto, float32, bfloat16 (from the environment variable PERSONAPLEX_ENGINE__DTYPE)."
    )


def test_a_key_without_a_value_has_its_default(write: Write) -> None:
    empty = "server:\n  port:\n  origins:\nengine:\n  token:\nvoices: {allow: }\nplugins:\n  options:\n    password:\n"
    config = load_config(write(empty), {})
    assert (config.server, config.voices, config.engine.token) == (
        replace(Config().server, web=config.server.web),
        replace(Config().voices, folder=config.voices.folder),
        None,
    )


# Paths


def test_a_home_is_expanded_wherever_a_path_is_given(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("personas", "plugins", "web", "model"):
        (tmp_path / "home" / name).mkdir(parents=True)
    config = load_config(
        write(
            "{server: {web: ~/web}, engine: {checkpoint: ~/model, cache: ~/cache}, voices: {folder: ~/voices}, "
            "personas: {folder: ~/personas}, plugins: {folders: [~/plugins]}}"
        ),
        {},
    )
    found = (
        *(config.server.web, config.engine.checkpoint, config.engine.cache, config.voices.folder),
        *(config.personas.folder, *config.plugins.folders),
    )
    names = ("web", "model", "cache", "voices", "personas", "plugins")
    assert found == tuple(str(tmp_path / "home" / name) for name in names)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_config(Path("~/config.yaml"), {})[0].source == str(tmp_path / "config.yaml")


PATH_KEYS = {
    "server.web": "server: {web: PATH}",
    "engine.cache": "engine: {cache: PATH}",
    "engine.checkpoint": "engine: {checkpoint: PATH}",
    "voices.folder": "voices: {folder: PATH}",
    "personas.folder": "personas: {folder: PATH}",
    "plugins.folders": "plugins: {folders: [PATH]}",
}


@pytest.mark.parametrize("key", PATH_KEYS)
@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("~nobody-here/p", "there is no user 'nobody-here'"),
        ("x" * 300, "File name too long"),
        ("a\0b", "not valid YAML"),
    ],
)
async def test_a_path_that_cannot_be_is_a_sentence(write: Write, key: str, given: str, says: str) -> None:
    path = write(PATH_KEYS[key].replace("PATH", given))
    found = (await check(path, {})).problems
    if len(given) == 300 and key in ("engine.checkpoint", "engine.cache"):
        return  # a name on the hub, or a folder that is made when it is needed
    assert any(says in problem for problem in found), found
    assert all("rror:" not in problem for problem in found), "a sentence, not a Python error"


AS_ANOTHER_USER = """
import asyncio, json, os, pathlib, sys
from core.boot.check import check
paths = [pathlib.Path(path) for path in sys.argv[1:]]
for path in paths:
    asyncio.run(check(path, {}))  # imports what is imported late, while everything can be read
os.environ.pop("HOME", None)
if os.getuid() == 0:
    os.setgroups([])
    os.setresgid(54321, 54321, 54321)
    os.setresuid(54321, 54321, 54321)  # a user without an entry in /etc/passwd, as some platforms have it
print(json.dumps([asyncio.run(check(path, {})).problems for path in paths]))
"""


@pytest.mark.slow
def test_what_another_user_may_not_read_is_a_sentence() -> None:
    """Nobody knows the home of this user, and folders are closed to it."""
    keys = ["server.web", "voices.folder", "personas.folder", "plugins.folders"]
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users altogether
        folder = Path(name)
        folder.chmod(0o755)
        closed = folder / "closed"
        (closed / "below").mkdir(parents=True)
        (closed / "below" / "index.html").touch()
        (closed / "config.yaml").touch()
        texts = [PATH_KEYS[key].replace("PATH", "closed/below") for key in keys] + ["voices: {folder: ~/voices}"]
        paths = [folder / f"{number}.yaml" for number in range(len(texts))]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text)
        closed.chmod(0)
        command = [sys.executable, "-c", AS_ANOTHER_USER, *map(str, paths), str(closed / "config.yaml")]
        result = subprocess.run(command, cwd=shipped("config.yaml").parent, capture_output=True, text=True, check=False)
        closed.chmod(0o755)
    assert result.returncode == 0, result.stderr
    *below, home, settings_folder = ("\n".join(found) for found in json.loads(result.stdout.splitlines()[-1]))
    for found in below:
        assert f"{closed / 'below'}" in found
        assert "Permission denied" in found
    assert "config.yaml: cannot be read: Permission denied." in settings_folder
    if os.getuid() == 0:  # whoever runs the tests else has an entry in /etc/passwd
        assert "~/voices: the home folder is not known. Set the variable HOME, or write the whole path." in home


def test_a_current_folder_that_is_gone_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ConfigError, match="the current folder does not exist any more"):
        load_config(Path("config.yaml"), {})
