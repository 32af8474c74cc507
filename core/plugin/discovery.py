"""Find plugins without running any of them: installed packages, files in `plugins.folders`, and the built-ins."""

import hashlib
import importlib
import importlib.util
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from core.errors import PluginError
from core.settings.config import Config

BUILT_IN_PACKAGE = "plugins"
ENTRY_POINT_GROUP = "personaplex"
MAX_SOURCE_FILES = 500
"""A package with more files than this is treated as an authentication plugin without being searched."""


@dataclass(frozen=True)
class Candidate:
    """A plugin that was found and has not been loaded. `load` returns its module, class or object with hooks."""

    name: str
    source: str
    """Where it comes from, for messages: `built-in`, `file PATH` or `package VALUE`."""
    version: str
    load: Callable[[], Any]
    authenticates: bool
    """Whether its source mentions `authenticate` or `authorize`, or cannot be read. Such a plugin is never skipped when
    it fails to load, since skipping it would let everybody in."""


def find_plugins(config: Config) -> Iterator[Candidate]:
    """Every plugin in order of precedence: installed packages (entry points), files in `plugins.folders`, built-ins."""
    for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: entry.name):
        version = entry.dist.version if entry.dist else ""
        authenticates = _mentions_authentication(_package_sources(entry))
        yield Candidate(entry.name, f"package {entry.value}", version, entry.load, authenticates)

    package = importlib.import_module(BUILT_IN_PACKAGE)
    built_in_folders = {Path(folder).resolve() for folder in package.__path__}
    for folder in config.plugins.folders:
        if Path(folder).resolve() in built_in_folders:
            continue  # the loop below finds these as built-ins
        for path in sorted(Path(folder).glob("*.py")):
            if not path.name.startswith(("_", ".")):
                yield file_candidate(path)

    importlib.invalidate_caches()
    for found in pkgutil.iter_modules(package.__path__):
        if not found.name.startswith("_"):
            module = f"{BUILT_IN_PACKAGE}.{found.name}"
            spec = importlib.util.find_spec(module)
            sources = [Path(spec.origin)] if spec and spec.origin else []
            load = partial(importlib.import_module, module)
            yield Candidate(found.name, "built-in", "", load, _mentions_authentication(sources))


def file_candidate(path: Path) -> Candidate:
    """The plugin in a Python file, named after the file."""
    return Candidate(path.stem, f"file {path}", "", partial(_load_file, path), _mentions_authentication([path]))


def object_candidate(name: str, plugin: Any) -> Candidate:
    """A plugin that the caller holds already: a module, a class as in `loading`, or an object with hooks."""
    return Candidate(name, f"object {name}", "", lambda: plugin, authenticates=False)


def _load_file(path: Path) -> ModuleType:
    """Run a plugin file as a module whose name no other file shares."""
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    name = f"personaplex_plugin_{re.sub(r'[^0-9a-zA-Z]', '_', path.stem)}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError("is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # typing.get_type_hints looks up the module of a class there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _package_sources(entry: EntryPoint) -> list[Path]:
    """The Python files of an installed plugin's package, found without running any of them."""
    spec = importlib.util.find_spec(entry.module.partition(".")[0])
    if spec is None:
        return []
    if spec.submodule_search_locations:
        return [path for folder in spec.submodule_search_locations for path in sorted(Path(folder).rglob("*.py"))]
    return [Path(spec.origin)] if spec.origin else []


def _mentions_authentication(sources: list[Path]) -> bool:
    """Whether any of these files names an authentication hook; True also where that cannot be found out."""
    if not 0 < len(sources) <= MAX_SOURCE_FILES:
        return True
    try:
        return any(re.search(rb"authenticate|authorize", source.read_bytes()) for source in sources)
    except OSError:
        return True
