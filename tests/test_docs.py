"""The documentation says what is: settings, commands, endpoints, the protocol, links and folders.

Hooks are compared in `test_plugins.py`, metrics in `test_metrics.py`; the examples are run in `test_docs_examples.py`.
"""

import ast
import asyncio
import os
import re
import subprocess
import sys
import typing
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from http import HTTPStatus
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import click
import msgspec
import pytest
import yaml
from starlette.routing import Route, WebSocketRoute

import core
import core.testing
from core import events
from core.cli.main import main
from core.http.app import create_app
from core.plugin.discovery import find_plugins
from core.plugin.host import PluginHost
from core.session import protocol
from core.session.chat_request import parse_query
from core.session.protocol import CloseCode, Kind
from core.settings.config import Config, read_config
from core.testing import EchoEngine
from deploy.choices import Deployment
from tests.documents import PAGES, README, ROOT, anchors, codes, doc, links, name_of, rows, section

README_BYTES = 9_000


def test_the_readme_fits_a_page() -> None:
    assert len(README.read_bytes()) <= README_BYTES


@pytest.mark.slow
async def test_the_readme_shows_what_serve_prints() -> None:
    """With the shipped configuration and nano, as on a machine without a GPU."""
    (shown,) = re.findall(r"```text\n( +engine .*?)```", README.read_text(), re.DOTALL)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PERSONAPLEX_")}
    fixed = {"PERSONAPLEX_ENGINE__NAME": "nano", "PERSONAPLEX_ENGINE__DEVICE": "cpu", "PERSONAPLEX_SERVER__PORT": "0"}
    command = (sys.executable, "-c", "from core.cli.main import main; main()", "serve")
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=clean | fixed, stdout=PIPE, stderr=PIPE)
    assert process.stderr is not None
    printed: list[str] = []
    try:
        async with asyncio.timeout(100):
            while not printed or "serves at" not in printed[-1]:
                line = await process.stderr.readline()
                assert line, printed
                printed.append(line.decode().rstrip())
    finally:
        process.terminate()
        await process.communicate()
    ready = re.sub(r":\d+ ", ":8998 ", printed[-1])
    for line in shown.splitlines():
        assert any(one.startswith(line.removesuffix("...")) for one in [*printed, ready]), line


# Settings.


def settings_of(struct: type[msgspec.Struct], prefix: str = "") -> dict[str, object]:
    """Every key and its default."""
    found: dict[str, object] = {}
    for field in msgspec.structs.fields(struct):
        inner = field.type
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            found |= settings_of(inner, f"{prefix}{field.encode_name}.")
        else:
            default = field.default
            if default is msgspec.NODEFAULT and field.default_factory is not msgspec.NODEFAULT:
                default = field.default_factory()
            found[prefix + field.encode_name] = msgspec.to_builtins(default)
    return found


SETTINGS = {key: value for key, value in settings_of(Config).items() if "." in key}


def defaults_in(text: str) -> dict[str, object]:
    """The keys of a table of settings, each with the default that it says."""
    return {codes(key)[0]: yaml.safe_load(default.strip("`")) for key, default, _ in rows(text)}


def plain(value: object) -> object:
    """A default as YAML has it."""
    return list(value) if isinstance(value, tuple) else value


def test_every_config_key_is_explained_in_config_yaml() -> None:
    """Each key stands in the shipped file, in its section, with its value or as a comment."""
    sections = re.split(r"^(?=\w+:)", (ROOT / "config.yaml").read_text(), flags=re.MULTILINE)
    for key in SETTINGS:
        name, _, rest = key.partition(".")
        (text,) = [part for part in sections if part.startswith(f"{name}:")]
        assert re.search(rf"^\s*(# )?{rest}:", text, flags=re.MULTILINE), key
    assert set(yaml.safe_load((ROOT / "config.yaml").read_text())) <= {key.split(".")[0] for key in SETTINGS}


def test_every_config_key_is_documented_with_its_default() -> None:
    wanted = {key: plain(value) for key, value in SETTINGS.items()}
    assert defaults_in(section(doc("configuration"), "Keys")) == wanted


def test_every_option_of_the_built_in_plugins_is_documented_with_its_default() -> None:
    wanted: dict[str, object] = {}
    for name in built_in_plugins():
        options = getattr(getattr(import_module(f"plugins.{name}"), "Plugin", None), "Options", None)
        if options is not None:
            wanted |= {key: plain(value) for key, value in settings_of(options, f"{name}.").items()}
    assert defaults_in(section(doc("configuration"), "Options of the built-in plugins")) == wanted


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_page_speaks_of_a_setting_that_is_not_there(page: Path) -> None:
    others = {"session"} if re.search(r"live|pipecat", page.stem) else set()  # whose events begin with that word
    sections = "|".join({key.split(".")[0] for key in SETTINGS} - others)
    for key in re.findall(rf"`((?:{sections})\.(?!tgz\b)\w+)", page.read_text()):
        assert key in SETTINGS, key


def built_in_plugins() -> list[str]:
    """Files and packages."""
    found = [path for path in (ROOT / "plugins").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    return [path.stem for path in found if not path.name.startswith("_")]


def test_every_built_in_plugin_is_documented() -> None:
    documented = [codes(name)[0] for name, _ in rows(section(doc("plugins"), "Built-in plugins"))]
    assert sorted(documented) == sorted(built_in_plugins())
    assert {plugin.name for plugin in find_plugins(Config()) if plugin.source == "built-in"} == set(documented)


# The command line.


def commands(group: click.Group, name: str) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, and the group itself, with the words that call them."""
    yield name, group
    for word, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from (pair for pair in commands(command, f"{name} {word}") if pair[1] is not command)
        else:
            yield f"{name} {word}", command


def test_every_command_and_option_is_documented() -> None:
    table = rows(section(doc("configuration"), "The command line"))
    documented = {codes(name)[0]: set(re.findall(r"`(--[\w-]+)", options)) for name, options in table}
    assert documented == {
        name: {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
        for name, command in commands(main, "personaplex")
    }


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_page_speaks_of_a_command_or_module_that_is_not_there(page: Path) -> None:
    text = page.read_text()
    for name in re.findall(r"`personaplex ([a-z]+)", text):
        assert name in main.commands, name
    for module in re.findall(r"python -m ((?:benchmarks|training)[\w.]*)", text):
        assert find_spec(module), module
    for function in re.findall(r"modal_app\.py::(\w+)", text):
        assert f"\ndef {function}(" in (ROOT / "modal_app.py").read_text(), function


def test_every_variable_of_the_modal_deployment_is_documented() -> None:
    defaults = {
        codes(name)[0]: default.strip("`") for name, default, _ in rows(section(doc("modal"), "What may be chosen"))
    }
    there = {name.upper(): value for name, value in vars(Deployment()).items() if name != "deployed"}
    assert set(defaults) == set(there)
    for name, value in there.items():
        if value != "":
            assert defaults[name] == str(value).replace("True", "true"), name


# Endpoints and the wire.


async def test_every_endpoint_is_documented(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("plugins: {options: {password: {password: sesame}}}")
    config, problems = read_config(tmp_path / "config.yaml", {})
    assert not problems
    host = PluginHost.load(config)
    there = {"GET /"}
    for route in [*create_app(config, EchoEngine(), host).routes, *host.routes()]:
        if isinstance(route, WebSocketRoute):
            there.add(f"WS {route.path}")
        elif isinstance(route, Route) and route.path != "/{name:path}":
            there |= {f"{method} {route.path}" for method in (route.methods or set()) - {"HEAD"}}
    assert {codes(path)[0] for path, _ in rows(section(doc("protocol"), "Endpoints"))} == there


class Asked(dict[str, str]):
    """A query that knows which parameters were looked for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def get(self, name: str, default: typing.Any = None) -> typing.Any:
        self.names.add(name)
        return super().get(name, default)


def test_every_query_parameter_is_documented() -> None:
    asked = Asked()
    parse_query(asked)
    table = rows(section(doc("protocol"), "The query"))
    documented = {name for ours, theirs, _ in table for name in codes(ours) + codes(theirs)}
    assert documented == asked.names | {"ticket"}  # which belongs to a plugin


def test_every_message_kind_is_documented() -> None:
    table = rows(section(doc("protocol"), "Messages"))
    assert [(int(kind), name) for kind, name, _, _ in table] == [(kind.value, kind.name) for kind in Kind]


def test_every_close_code_is_documented() -> None:
    table = rows(section(doc("protocol"), "Close codes"))
    assert [(int(code), name) for code, name, _ in table] == [(code.value, code.name) for code in CloseCode]


def calls_of(name: str, *folders: str) -> Iterator[ast.Call]:
    """Every call of a function or method of that name in the source."""
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    function = node.func
                    called = getattr(function, "attr", None) or getattr(function, "id", None)
                    if called == name:
                        yield node


def metadata_types() -> dict[str, list[str]]:
    """What the server sends as METADATA: the names of its values, by type."""
    kinds = typing.get_args(protocol.ServerMetadata)
    return {kind.__struct_config__.tag: list(kind.__struct_fields__) for kind in kinds}


def refusals() -> set[tuple[int, str]]:
    """Why the core may refuse a call, with the status of the answer."""
    found = set()
    for call in calls_of("RefusedError", "core/session", "core/http"):
        status = ast.literal_eval(call.args[0])
        given = [ast.literal_eval(keyword.value) for keyword in call.keywords if keyword.arg == "reason"]
        found.add((status, given[0] if given else HTTPStatus(status).name.lower()))
    return found


def test_every_metadata_type_is_documented_with_its_values() -> None:
    table = rows(section(doc("protocol"), "METADATA"))
    assert {codes(name)[0]: codes(values) for name, values, _ in table} == metadata_types()
    (warning,) = [when for name, _, when in table if codes(name) == ["warning"]]
    assert set(codes(warning)) == {"limit", *typing.get_args(events.Limit)}


def test_every_end_reason_is_documented() -> None:
    documented = [codes(reason)[0] for reason, _, _ in rows(section(doc("protocol"), "End reasons"))]
    assert sorted(documented) == sorted(typing.get_args(events.EndReason))


def test_every_refusal_reason_is_documented() -> None:
    table = rows(section(doc("protocol"), "Refusals"))
    documented = {(int(status), codes(reason)[0]) for status, reason, _ in table}
    assert len(documented) == len(table)
    assert documented == refusals()
    assert {reason for _, reason in refusals()} == set(typing.get_args(events.RefusalReason))


def test_every_public_name_is_documented() -> None:
    names = [name for _, names in rows(section(doc("plugins"), "What `core` exports")) for name in codes(names)]
    assert sorted(names) == sorted(core.__all__)
    names = [codes(name)[0] for name, _ in rows(section(doc("plugins"), "Testing a plugin"))]
    assert sorted(names) == sorted(core.testing.__all__)


def test_every_event_is_documented() -> None:
    documented = [codes(name)[0] for name, _ in rows(section(doc("plugins"), "Events"))]
    there = [*typing.get_args(events.SessionEvent), *typing.get_args(events.ServiceEvent)]
    assert documented == [event.__name__ for event in there]


# Links and files.


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    for name in re.findall(r"`((?:core|tests|plugins|benchmarks|dashboards|docs)/[\w/.-]+?)/?`", page.read_text()):
        assert (ROOT / name).exists() or name == "plugins/shout.py", name
    if page.name == "page.md":
        for name in re.findall(r"`([\w-]+\.js)`", page.read_text()):
            assert (ROOT / "web" / name).exists(), name


def tracked() -> list[Path]:
    """The files that belong to the project. Skips where that cannot be told."""
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("needs a git checkout, to know which folders belong to the project")
    return [Path(line) for line in listing.stdout.splitlines()]


def test_the_tree_in_the_readme_is_the_tree() -> None:
    """Each folder of the project, and each room of the core, and no other."""
    (tree,) = re.findall(r"```text\n(core/ .*?)```", README.read_text(), re.DOTALL)
    named: set[str] = set()
    above: list[str] = []
    for indent, name in re.findall(r"^( *)([\w/]+)/ ", tree, re.MULTILINE):
        above = [*above[: len(indent) // 2], name]
        named.add("/".join(above))
    files = [path for path in tracked() if (ROOT / path).exists() and not path.parts[0].startswith(".")]
    there = {path.parts[0] for path in files if len(path.parts) > 1}
    there |= {path.parent.as_posix() for path in files if path.parts[0] == "core" and path.parts[1] != "nano"}
    there |= {path.parent.as_posix() for path in files if path.parts[0] == "docs"} | {"core/nano"}
    assert named == there


def test_every_room_of_the_core_is_described() -> None:
    described = {codes(room)[0] for room, _ in rows(section(doc("architecture"), "Rooms"))}
    rooms = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "core").rglob("__init__.py")}
    assert described == rooms - {"core"} | {"core/nano"}
