"""The examples in README and documentation work: plugins load and run, YAML is a configuration or a persona, and
command lines are such as the commands take."""

import asyncio
import re
import shlex
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sybil import Document, Example, Sybil
from sybil.parsers.markdown import CodeBlockParser

from core.cli.main import main
from core.events import Identity, SessionInfo, TransformFailed
from core.plugin.host import PluginHost
from core.plugin.personas import load_personas
from core.settings.config import Config, load_config
from plugins.packaged_voices import PERSONAPLEX_VOICES
from tests.documents import PAGES, name_of

PLUGIN = re.compile(r'"""plugins/(\w+)\.py')
"""How an example begins that is a plugin's file."""
CONFIG_KEYS = set(Config.__struct_fields__) - {"source"}
SESSION = SessionInfo("s1", Identity("caller"), "teacher", "NATF2", "/ws/chat", "127.0.0.1", "opus")
SECRETS = (
    "PERSONAPLEX_PASSWORD",
    "ANNS_PASSWORD",
    "BRIDGE_TOKEN",
    "OIDC_CLIENT_ID",
    "OIDC_CLIENT_SECRET",
    "TWILIO_AUTH_TOKEN",
)
"""Variables that the examples read."""
ELSEWHERE = ("text", "mermaid", "javascript", "html")
"""Languages of blocks that are to be looked at, or (HTML) are opened in a browser by tests/browser/test_embed.py."""
FOREIGN = {"scrape_configs": "prometheus.yml"}
"""YAML of other programs, by a key it has: the name that its first line says."""


def python(example: Example) -> None:
    """A plugin loads, and frames go through it; anything else runs."""
    source = str(example.parsed)
    if plugin := PLUGIN.match(source):
        folder = example.namespace["folder"]
        (folder / "plugins").mkdir(exist_ok=True)
        (folder / "plugins" / f"{plugin[1]}.py").write_text(source)
        run_plugin(folder, plugin[1])
        return
    code = compile(source, example.path, "exec")
    if re.search(
        r"^from (livekit|openai|pipecat)", source, re.MULTILINE
    ):  # these run where their packages are installed
        return
    names: dict[str, Any] = {}
    with modules_from(example.namespace["folder"] / "plugins"):
        exec(code, names)
    for name, test in names.items():
        if name.startswith("test_"):
            asyncio.run(test())


@contextmanager
def modules_from(folder: Path) -> Iterator[None]:
    """Plugins shown before may be imported by their names."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for path in folder.glob("*.py"):
            sys.modules.pop(path.stem, None)


def run_plugin(folder: Path, name: str) -> None:
    host = load(folder, "plugins: {disabled: [loudness]}")
    (info,) = [info for info in host.describe() if info.name == name]
    assert info.state in ("on", "off"), info
    failures: list[TransformFailed] = []
    frame = np.full(1920, 0.25, np.float32)
    said = host.output_chain(SESSION, failures.append).process(frame)
    heard = host.input_chain(SESSION, failures.append).process(frame)
    assert not failures
    if "transform_" in "".join(info.hooks):
        assert not np.array_equal(said, frame) or not np.array_equal(heard, frame)


def load(folder: Path, text: str) -> PluginHost:
    """The plugins that a configuration gives. Raises ConfigError."""
    (folder / "config.yaml").write_text(text)
    return PluginHost.load(load_config(folder / "config.yaml", environment()))


def environment() -> dict[str, str]:
    """Every variable that an example reads, each with a value of its own."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    values: dict[str, str] = defaultdict(str)
    values |= {name: f"{name} is secret" for name in SECRETS}
    values["JWT_KEY"] = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return values


def yaml_block(example: Example) -> None:
    """A configuration is read and its plugins are made; a persona is loaded."""
    source, folder = str(example.parsed), example.namespace["folder"]
    data = yaml.safe_load(source)
    for key, name in FOREIGN.items():
        if key in data:
            assert source.startswith(f"# {name}\n")
            return
    if set(data) <= CONFIG_KEYS:
        load(folder, source)
        return
    (folder / "example.yaml").write_text(source)
    (folder / "config.yaml").unlink(missing_ok=True)
    (persona,) = load_personas(folder, PERSONAPLEX_VOICES, Config().personas.max_prompt_chars)
    assert persona.prompt


def shell(example: Example) -> None:
    """Each `personaplex ...` is one that the command takes. Nothing is run."""
    for words in calls_in(str(example.parsed)):
        parse(main, words)


def calls_in(source: str) -> Iterator[list[str]]:
    """The arguments of each `personaplex` that a shell would run, with or without `uv run` and variables before it."""
    for line in source.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
        lexer.whitespace_split = True
        call: list[str] = []
        for word in [*lexer, ";"]:
            if not set(word) <= set(";&|"):
                call.append(word)
                continue
            while call and ("=" in call[0] or call[0] in ("uv", "run", "--no-dev")):
                call = call[1:]
            if call and call[0] == "personaplex":
                yield call[1:]
            call = []


def parse(group: click.Group, words: list[str]) -> None:
    """Raises click's UsageError when the command line is wrong."""
    context = group.make_context("personaplex", list(words))
    name, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
    assert command is not None
    if isinstance(command, click.Group):
        parse(command, rest)
    else:
        command.make_context(name, rest, parent=context)


BLOCKS = Sybil(
    parsers=[
        CodeBlockParser("python", python),
        CodeBlockParser("yaml", yaml_block),
        CodeBlockParser("sh", shell),
        *(CodeBlockParser(language, lambda _example: None) for language in ELSEWHERE),
    ],
    pattern="*.md",
)
DOCUMENTS = [(page, BLOCKS.parse(page)) for page in PAGES]
EXAMPLES = [(page, document, example) for page, document in DOCUMENTS for example in document.examples()]


def test_no_block_is_in_a_language_that_nobody_looks_at() -> None:
    for page, document in DOCUMENTS:
        fences = re.findall(r"^\s*```(.*)$", page.read_text(), re.MULTILINE)
        assert len(fences) == 2 * len(list(document.examples())), name_of(page)
    assert {language(example) for _, _, example in EXAMPLES} == {"python", "yaml", "sh", *ELSEWHERE}


def test_every_command_has_an_example() -> None:
    shown = [
        words for _, _, example in EXAMPLES if language(example) == "sh" for words in calls_in(str(example.parsed))
    ]
    assert {words[0] for words in shown} == set(main.commands)


def language(example: Example) -> str:
    """What stands behind the fence that opens an example."""
    return str(example.document.text[example.start :]).split("\n")[0].strip("` ")


@pytest.mark.parametrize(
    ("document", "example"),
    [pytest.param(document, example, id=f"{name_of(page)}:{example.line}") for page, document, example in EXAMPLES],
)
def test_every_example_works(document: Document, example: Example, tmp_path: Path) -> None:
    """In a folder that has the plugins which the same page has shown before."""
    example.namespace["folder"] = tmp_path
    for before in document.examples():
        if before.start < example.start and (plugin := PLUGIN.match(str(before.parsed))):
            (tmp_path / "plugins").mkdir(exist_ok=True)
            (tmp_path / "plugins" / f"{plugin[1]}.py").write_text(str(before.parsed))
    example.evaluate()
