"""Where plugins come from, and what becomes of those that cannot be loaded."""

import os
import subprocess
import sys
import tempfile
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.events import Identity, SessionInfo
from core.plugin import discovery, hookspecs
from core.plugin.host import PluginHost
from tests.plugin_folder import IMPORTS, Folder

SESSION = SessionInfo("s1", Identity("caller"), "teacher", "NATF2", "/ws/chat", "127.0.0.1", "opus")
FRAME = np.full(1920, 0.25, np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def states(host: PluginHost) -> dict[str, str]:
    return {info.name: info.state for info in host.describe() if info.state != "replaced"}


def test_the_built_ins_are_there(folder: Folder) -> None:
    host = folder.load()
    assert states(host) == {
        "budget": "off",
        "folder_voices": "on",
        "jwt_auth": "off",
        "loudness": "on",
        "metrics": "on",
        "openai_live": "on",
        "packaged_voices": "on",
        "password": "off",
        "recording": "off",
        "session_log": "on",
        "twilio": "off",
        "yaml_personas": "on",
        "delegate": "off",
        "greeting": "off",
        "guardrail": "off",
        "transcribe": "off",
    }
    assert not host.protected


def test_the_ten_line_example_works_when_dropped_into_a_folder(folder: Folder) -> None:
    folder.plugin(
        "shout",
        """
class Gain:
    def process(self, frame):
        return (frame * 2).clip(-1, 1)

@hookimpl
def transform_output(session):
    return Gain()
""",
    )
    chain = folder.load("plugins: {disabled: [loudness]}").output_chain(SESSION, folder.failures.append)
    assert chain.plugins == ("shout",)
    assert np.array_equal(chain.process(FRAME), np.full(1920, 0.5, np.float32))
    assert folder.failures == []


def test_order_is_packages_then_files_then_built_ins(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "acme_voices.py").write_text(
        IMPORTS + "__version__ = '3.2'\n@hookimpl\ndef list_voices(): return ['acme']\n"
        "@hookimpl\ndef transform_output(session): return type('A', (), {'process': lambda self, frame: frame})()\n"
    )
    monkeypatch.syspath_prepend(site)
    entry = EntryPoint("acme", "acme_voices", "personaplex")
    monkeypatch.setattr(discovery, "entry_points", lambda group: [entry] if group == "personaplex" else [])
    folder.plugin("zebra", "@hookimpl\ndef transform_output():\n  return type('Z', (), {'process': lambda s, f: f})()")
    host = folder.load()
    infos = host.describe()
    assert [info.name for info in infos[:2]] == ["acme", "zebra"]
    assert infos[0].version == "3.2"
    assert infos[0].source == "package acme_voices"
    assert str(tmp_path / "plugins" / "zebra.py") in infos[1].source
    assert host.output_chain(SESSION, folder.failures.append).plugins == ("acme", "zebra", "loudness")


def test_a_file_replaces_the_built_in_of_its_name(folder: Folder) -> None:
    host = folder.plugin("loudness", "@hookimpl\ndef shutdown(): pass").load()
    assert [(info.state, info.hooks) for info in host.describe() if info.name == "loudness"] == [
        ("on", ("shutdown",)),
        ("replaced", ()),
    ]
    assert host.output_chain(SESSION, folder.failures.append).plugins == ()


# What is in a folder

VIP = {
    "__init__.py": "from core import hookimpl\nfrom .names import NAMES\nfrom . import names\n"
    "@hookimpl\ndef list_voices(): return NAMES\n",
    "names.py": "from .deep.er import NAME\nNAMES = [NAME]\n",
    "deep/__init__.py": "",
    "deep/er.py": "NAME = 'vip'\n",
}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


async def test_a_package_is_a_plugin_and_may_import_its_own_modules(folder: Folder) -> None:
    write(folder.path / "plugins" / "vip", VIP)
    host = await folder.started()
    [info] = [info for info in host.describe() if info.name == "vip"]
    assert (info.state, info.source) == ("on", f"folder {folder.path / 'plugins' / 'vip'}")
    assert "vip" in await host.list_voices()


def test_a_package_that_fails_leaves_nothing_behind_and_may_decide_who_may_call(
    folder: Folder,
) -> None:
    before = set(sys.modules)
    write(folder.path / "plugins" / "vip", VIP | {"deep/er.py": "1 / 0\n"})
    assert states(folder.load())["vip"] == "failed"
    assert not [name for name in set(sys.modules) - before if "vip" in name]
    write(folder.path / "plugins" / "vip", {"deep/er.py": "1 / 0\n# as authorize says\n"})
    assert "ZeroDivisionError" in folder.problems()


NEARLY = {
    "gain.PY": {"gain.PY": ""},
    "gain.pyw": {"gain.pyw": ""},
    "gain.pyc": {"gain.pyc": ""},
    "gain.cpython-311-x86_64-linux-gnu.so": {"gain.cpython-311-x86_64-linux-gnu.so": ""},
    "gain.py.off": {"gain.py.off": ""},
    "gain.py~": {"gain.py~": ""},
    "gain": {"gain/gain.py": ""},
    "gain.d": {"gain.d/__init__.py": ""},
    "acme_gain-1.0-py3-none-any.whl": {"acme_gain-1.0-py3-none-any.whl": ""},
}


@pytest.mark.parametrize("name", NEARLY)
def test_what_looks_like_a_plugin_and_is_not_loaded_is_named(
    folder: Folder, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(folder.path / "plugins", NEARLY[name])
    host = folder.load()
    assert states(host)[name] == "failed"
    assert f"plugin {name} (file {folder.path / 'plugins' / name}): is not loaded" in caplog.text
    assert states(folder.load(f"plugins: {{disabled: ['{name}']}}"))[name] == "disabled"
    assert "is not loaded" in folder.problems("plugins: {strict: true}")


@pytest.mark.parametrize("name", ["gate.PY", "gate.pyc", "gate/gate.py", "gate.d/__init__.py"])
def test_what_looks_like_a_plugin_that_decides_who_may_call_stops_the_boot(folder: Folder, name: str) -> None:
    write(folder.path / "plugins", {name: "def authorize(identity, persona): return False\n"})
    assert f"plugin {name.partition('/')[0]} (file" in folder.problems()


def test_what_is_set_aside_or_is_no_plugin_stops_nothing(folder: Folder) -> None:
    files = {"gate.py.off": "def authenticate(): pass", "README.md": "", "data/words.txt": "", "_lib/a.py": ""}
    more = {".hidden.py": "1/0", "gain.pyc": "", "gain.py": f"{IMPORTS}@hookimpl\ndef shutdown(): pass\n", "a.pyi": ""}
    write(folder.path / "plugins", files | more)
    found = {info.name: info.state for info in folder.load().describe() if info.source.startswith(("file", "folder"))}
    assert found == {"gate.py.off": "failed", "gain": "on"}


@pytest.mark.skipif(not hasattr(os, "setuid") or os.geteuid() != 0, reason="only root can become somebody else")
def test_a_folder_that_the_services_user_may_not_read_stops_the_boot() -> None:
    """As the user `nobody`, in folders that everybody may enter."""
    unreadable = {"all": ("plugins", 0), "list only": ("plugins", 0o600), "one": ("plugins/vip", 0)}
    with tempfile.TemporaryDirectory(dir="/tmp") as path:  # pytest's own folders are root's alone
        Path(path).chmod(0o755)
        folders = {Path(path) / name: where for name, where in unreadable.items()}
        for folder, (where, mode) in folders.items():
            folder.mkdir()
            (folder / "config.yaml").write_text("")
            write(folder / "plugins" / "vip", VIP)
            (folder / where).chmod(mode)
        code = (
            "import os, sys\nfrom pathlib import Path\nfrom core.plugin.host import PluginHost\n"
            "from core.settings.config import load_config\nimport core.engine.prompt, core.plugin.loading\n"
            "os.setgid(65534)\nos.setuid(65534)\n"
            "for config in sys.argv[1:]:\n"
            "    try: PluginHost.load(load_config(Path(config), {}))\n"
            "    except Exception as error: print(type(error).__name__, error)\n"
        )
        command = [sys.executable, "-c", code, *(str(folder / "config.yaml") for folder in folders)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    problems = done.stdout.splitlines()
    assert len(problems) == len(folders), done
    for (folder, (where, _)), problem in zip(folders.items(), problems, strict=True):
        assert problem.startswith(f"ConfigError plugins.folders: {folder / where}"), done
        assert "cannot be read: Permission denied" in problem


def test_a_disabled_plugin_is_not_even_run(folder: Folder) -> None:
    folder.plugin("bomb", "raise SystemExit('bang')")
    host = folder.load("plugins: {disabled: [bomb, loudness]}")
    assert states(host)["bomb"] == states(host)["loudness"] == "disabled"


def test_two_hosts_share_no_state(folder: Folder) -> None:
    folder.plugin(
        "counter",
        """
class Plugin:
    def __init__(self): self.names = []
    @hookimpl
    def list_voices(self):
        self.names.append(f"v{len(self.names)}")
        return self.names
""",
    )
    first, second = folder.load(), folder.load()
    assert first is not second
    for host in (first, second):
        plugin: Any = host._manager.get_plugin("counter")
        assert plugin.list_voices() == ["v0"]


# Plugins that cannot be loaded

BROKEN = {
    "syntax": ("def startup(:", "SyntaxError in line 3"),
    "raises": ("1 / 0", "ZeroDivisionError"),
    "exits": ("import sys; sys.exit(1)", "SystemExit"),
    "panics": ("class Panic(BaseException): pass\nraise Panic('at the disco')", "Panic: at the disco (broken.py, line"),
    "imports": ("import there_is_no_such_module", "there_is_no_such_module"),
    "empty": ("def startup(config): pass", "has no hooks"),
    "misspelt": (
        "@hookimpl\ndef transform_ouput(session): pass",
        "no hook 'transform_ouput'. Did you mean 'transform_output'",
    ),
    "argument": ("@hookimpl\ndef transform_output(sesion): pass", "sesion"),
    "wrapper": (
        "@hookimpl(wrapper=True)\ndef transform_output(session):\n  return (yield)",
        "wrappers are not supported",
    ),
    "both": ("@hookimpl\ndef shutdown(): pass\nclass Plugin:\n  @hookimpl\n  def shutdown(self): pass", "both"),
    **{
        f"async {hook}": (f"@hookimpl\nasync def {hook}(): pass", f"the hook '{hook}' cannot be async")
        for hook in hookspecs.SYNC_HOOKS
        if hook not in ("login", "login_secret")  # whoever authenticates is never skipped
    },
    "options": ("class Plugin:\n  Options = dict\n  @hookimpl\n  def shutdown(self): pass", "msgspec.Struct"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_plugin_is_named_and_skipped_unless_strict(folder: Folder, kind: str) -> None:
    source, says = BROKEN[kind]
    folder.plugin("broken", source)
    host = folder.load()
    (info,) = [info for info in host.describe() if info.name == "broken"]
    assert info.state == "failed"
    assert "broken.py" in info.problem
    assert says in info.problem
    assert states(host)["yaml_personas"] == "on"
    found = folder.problems("plugins: {strict: true}")
    assert says in found
    assert "plugins.disabled" in found


def test_the_hooks_that_may_be_async_are_those_whose_result_may_be_awaited() -> None:
    hooks = {name: value for name, value in vars(hookspecs).items() if hasattr(value, hookspecs.PROJECT + "_spec")}
    sync = {name for name, hook in hooks.items() if "Awaitable" not in str(hook.__annotations__["return"])}
    assert sync == set(hookspecs.SYNC_HOOKS)


@pytest.mark.parametrize(
    "source",
    [
        "@hookimpl\ndef authenticate(connection:",
        "raise RuntimeError\n@hookimpl\ndef authenticate(connection): pass",
        "1/0\n@hookimpl\nasync def authorize(identity, persona): pass",
        "@hookimpl\ndef authenticate(conection): pass",
        "@hookimpl\nasync def login_secret(name): pass",
        "@hookimpl\nasync def login(): pass\n@hookimpl\ndef login_secret(name): pass",
        "@hookimpl\ndef authentcate(connection): pass",
        "@hookimpl\ndef login(): pass",  # and no login_secret, so that everybody would be let in
        "class Plugin:\n  def __init__(self): raise OSError\n  @hookimpl\n  def authenticate(self, connection): pass",
    ],
)
def test_a_plugin_that_decides_who_may_call_is_always_strict(folder: Folder, source: str) -> None:
    assert "gate.py" in folder.plugin("gate", source).problems()
    assert states(folder.load("plugins: {disabled: [gate]}"))["gate"] == "disabled"


def test_a_package_that_decides_who_may_call_is_strict_too(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "site" / "acme_gate"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("import there_is_no_such_module")
    (package / "gate.py").write_text("def authenticate(connection): pass")
    monkeypatch.syspath_prepend(package.parent)
    for value in ("acme_gate", "acme_gate.gate", "there_is_no_such_package"):
        entry = EntryPoint("gate", value, "personaplex")
        monkeypatch.setattr(discovery, "entry_points", lambda group, entry=entry: [entry])
        assert value in folder.problems()


def test_a_plugin_that_uses_a_deprecated_hook_works_and_is_named_in_the_log(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    specification = vars(hookspecs.notices)["personaplex_spec"]
    monkeypatch.setitem(specification, "warn_on_impl", DeprecationWarning("notices goes away; use sentences."))
    host = folder.plugin("old", "@hookimpl\ndef notices(): return ['Hello.']").load()
    assert host.notices() == ["Hello."]
    assert "'plugin': 'old', 'detail': 'notices goes away; use sentences.'" in caplog.text


# Options

WITH_OPTIONS = """
import msgspec
class Plugin:
    class Options(msgspec.Struct):
        speed: int
        names: list[str] = []
    def __init__(self, options): self.options = options
    @hookimpl
    def list_voices(self): return [f"v{self.options.speed}", *self.options.names]
"""


async def test_a_plugin_gets_its_own_options_typed(folder: Folder) -> None:
    host = await folder.plugin("mine", WITH_OPTIONS).started("plugins: {options: {mine: {speed: 3, names: [a]}}}")
    assert {"v3", "a"} <= set(await host.list_voices())


def test_wrong_options_name_file_and_key_all_at_once(folder: Folder) -> None:
    folder.plugin("mine", WITH_OPTIONS)
    folder.plugin("plain", "@hookimpl\ndef shutdown(): pass")
    options = "{mine: {sped: 1, names: 3}, plain: {a: 1}, loudness: {target_db: 5}, min: {}}"
    found = folder.problems(f"plugins: {{disabled: [nobody], options: {options}}}")
    where = str(folder.path / "config.yaml")
    for part in (
        f"{where}: plugins.options.mine.sped: unknown key. Did you mean 'speed'?",
        f"{where}: plugins.options.mine.names: expected array, got int",
        f"{where}: plugins.options.mine.speed: missing",
        f"{where}: plugins.options.plain: this plugin takes no options",
        f"{where}: plugins.options.loudness: target_db must lie between",
        f"{where}: plugins.options: there is no plugin 'min'. Did you mean 'mine'?",
        f"{where}: plugins.disabled: there is no plugin 'nobody'",
    ):
        assert part in found
