"""The README says what is: keys, commands, endpoints, hooks (see `test_plugins.py`) and files."""

import re
from pathlib import Path

import click
import msgspec
import pytest
import yaml

from core.cli.main import main
from core.settings.config import Config

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def keys_of(struct: type[msgspec.Struct], prefix: str = "") -> list[str]:
    keys = []
    for field in msgspec.structs.fields(struct):
        inner = field.type
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            keys += keys_of(inner, f"{prefix}{field.encode_name}.")
        else:
            keys.append(prefix + field.encode_name)
    return keys


def test_every_config_key_is_explained_in_config_yaml() -> None:
    """Each key stands in the shipped file, in its section, with its value or as a comment."""
    sections = re.split(r"^(?=\w+:)", (ROOT / "config.yaml").read_text(), flags=re.MULTILINE)
    for key in keys_of(Config):
        if "." in key:
            section, name = key.split(".", 1)
            (text,) = [part for part in sections if part.startswith(f"{section}:")]
            assert re.search(rf"^\s*(# )?{name}:", text, flags=re.MULTILINE), key
    assert set(yaml.safe_load((ROOT / "config.yaml").read_text())) <= {key.split(".")[0] for key in keys_of(Config)}


def commands(group: click.Group, prefix: str) -> list[str]:
    names = []
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            names += commands(command, f"{prefix} {name}")
        else:
            names.append(f"{prefix} {name}")
    return names


@pytest.mark.parametrize("command", commands(main, "personaplex"))
def test_every_command_is_in_the_readme(command: str) -> None:
    assert command in README


def test_the_tree_in_the_readme_is_the_tree() -> None:
    """Every module of the core is named in "How it is built", and nothing is that is not there."""
    tree = README.split("## How it is built")[1].split("```")[1]
    named = set(re.findall(r"[\w/]+\.py", tree))
    there = {path.name for folder in ("core", "core/engine") for path in (ROOT / folder).glob("*.py")}
    there |= {path.name for path in (ROOT / "benchmarks").glob("*.py")}
    cli = {name for name in there if name.startswith("cli_")}
    assert not {name for name in there if name not in named and name not in cli | {"__init__.py"}}
    for name in named - {"modal_app.py"}:
        assert name in there, name


def test_every_picture_and_file_that_the_readme_links_is_there() -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)]+)\)", README):
        assert (ROOT / target).exists(), target
