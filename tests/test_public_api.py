"""What a plugin may rely on: `from core import ...`, typed, and enough for the built-in plugins."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import core

ROOT = Path(__file__).parent.parent
BUILT_INS = sorted((ROOT / "plugins").rglob("*.py"))
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def documented_plugins() -> list[str]:
    """Every Python block of the documentation that is a plugin."""
    blocks = [block for path in DOCUMENTS for block in re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)]
    return [block for block in blocks if "hookimpl" in block]


PLUGINS = {str(path.relative_to(ROOT / "plugins")): path.read_text() for path in BUILT_INS} | {
    source.split("\n", 1)[0][:60]: source for source in documented_plugins()
}


def test_there_are_plugins_to_look_at() -> None:
    assert len(BUILT_INS) > 5
    assert documented_plugins()


@pytest.mark.parametrize("name", PLUGINS)
def test_a_plugin_imports_nothing_of_the_project_but_the_public_api(name: str) -> None:
    for node in ast.walk(ast.parse(PLUGINS[name])):
        if isinstance(node, ast.ImportFrom):
            if node.level == 1 and "/" in name:  # of a package's own modules
                continue
            assert node.level == 0, "a relative import"
            if node.module == "core":
                assert {alias.name for alias in node.names} <= set(core.__all__)
                continue
            modules = [node.module or ""]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        else:
            continue
        assert not {"core", "plugins"} & {module.partition(".")[0] for module in modules}, modules


def test_every_public_name_is_there() -> None:
    for name in core.__all__:
        assert getattr(core, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'hookimp'"):
        core.hookimp  # type: ignore[attr-defined]  # noqa: B018


def test_type_checkers_see_the_same_names_from_the_same_modules() -> None:
    tree = ast.parse(Path(core.__file__).read_text())
    [guarded] = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = [node for node in guarded.body if isinstance(node, ast.ImportFrom)]
    assert {alias.asname: node.module for node in imports for alias in node.names} == core._PUBLIC


def test_importing_core_loads_no_heavy_package() -> None:
    code = "import core, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "core" in loaded
    assert not {"torch", "numpy", "starlette", "moshi", "rich", "pluggy"} & set(loaded)


@pytest.mark.slow
@pytest.mark.parametrize("source", documented_plugins(), ids=lambda source: source.split("\n", 1)[0][:60])
def test_a_documented_plugin_passes_a_strict_type_check(
    source: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """From outside the project, against the package as it is installed."""
    (tmp_path / "plugin.py").write_text(source)
    cache = request.config.cache
    assert cache is not None
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(cache.mkdir("mypy")), "plugin.py"]
    checked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (checked.returncode, checked.stdout) == (0, "Success: no issues found in 1 source file\n")
