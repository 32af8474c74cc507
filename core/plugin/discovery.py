"""Find plugins without running any of them: installed packages, what is in `plugins.folders`, and the built-ins.

In a folder, a plugin is a file NAME.py or a package NAME/__init__.py. What looks like a plugin and is none of these is
found as one that cannot be loaded, so that no plugin is missing without a word.
"""

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
from typing import Any, NoReturn

from core.errors import ConfigError, PluginError
from core.settings.config import Config

BUILT_IN_PACKAGE = "plugins"
ENTRY_POINT_GROUP = "personaplex"
MAX_SOURCE_FILES = 500
"""A package with more files than this is treated as an authentication plugin without being searched."""

COMPILED = (".pyc", ".pyo")
PYTHON_SUFFIXES = (".py", ".pyw", ".pyd", ".so", ".whl", ".egg", *COMPILED)
"""In small letters, the ends of names of what Python can load in one way or another."""
SET_ASIDE = re.compile(r"\.py(?![a-z0-9])(?!$)", re.IGNORECASE)
"""Names of plugins that somebody has renamed, such as `gain.py.off`, `gain.py~` and `gain.py.bak`."""


@dataclass(frozen=True)
class Candidate:
    """A plugin that was found and has not been loaded. `load` returns its module, class or object with hooks."""

    name: str
    source: str
    """Where it comes from, for messages: `built-in`, `file PATH`, `folder PATH` or `package VALUE`."""
    version: str
    load: Callable[[], Any]
    authenticates: bool
    """Whether its source mentions a hook that decides who may call, or cannot be read. Such a plugin is never skipped
    when it fails to load, since skipping it would let everybody in."""


def find_plugins(config: Config) -> Iterator[Candidate]:
    """Every plugin in order of precedence: installed packages (entry points), what is in `plugins.folders`, built-ins.

    Raises ConfigError where a folder cannot be read: a plugin that hides a persona may be in it.
    """
    for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: entry.name):
        version = entry.dist.version if entry.dist else ""
        authenticates = _mentions_authentication(_package_sources(entry))
        yield Candidate(entry.name, f"package {entry.value}", version, entry.load, authenticates)

    package = importlib.import_module(BUILT_IN_PACKAGE)
    built_in_folders = {Path(folder).resolve() for folder in package.__path__}
    for folder in config.plugins.folders:
        if Path(folder).resolve() in built_in_folders:
            continue  # the loop below finds these as built-ins
        try:
            yield from _folder_candidates(Path(folder))
        except OSError as error:
            raise ConfigError(
                [
                    f"plugins.folders: {error.filename or folder} cannot be read: {error.strerror}. Let the service's "
                    "user read it and all folders in it, or remove it."
                ]
            ) from None

    importlib.invalidate_caches()
    for found in pkgutil.iter_modules(package.__path__):
        if not found.name.startswith("_"):
            module = f"{BUILT_IN_PACKAGE}.{found.name}"
            spec = importlib.util.find_spec(module)
            sources = [Path(spec.origin)] if spec and spec.origin else []
            load = partial(importlib.import_module, module)
            yield Candidate(found.name, "built-in", "", load, _mentions_authentication(sources))


def file_candidate(path: Path) -> Candidate:
    """The plugin in a Python file or in the folder of a package, named after it."""
    if path.is_dir():
        load = partial(_load_file, path / "__init__.py", path.name)
        return Candidate(path.name, f"folder {path}", "", load, _mentions_authentication(sorted(path.rglob("*.py"))))
    load = partial(_load_file, path, path.stem)
    return Candidate(path.stem, f"file {path}", "", load, _mentions_authentication([path]))


def object_candidate(name: str, plugin: Any) -> Candidate:
    """A plugin that the caller holds already: a module, a class as in `loading`, or an object with hooks."""
    return Candidate(name, f"object {name}", "", lambda: plugin, authenticates=False)


def _folder_candidates(folder: Path) -> Iterator[Candidate]:
    """What is in a folder of plugins, ordered by name; nothing where there is no folder. Raises OSError."""
    try:
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith(("_", ".")))
    except FileNotFoundError:
        return
    for path in paths:
        problem = _why_not_loaded(path)
        if problem:
            files = [path] if path.is_file() else [file for file in sorted(path.rglob("*")) if file.is_file()]
            authenticates = not SET_ASIDE.search(path.name) and _mentions_authentication(files)
            yield Candidate(path.name, f"file {path}", "", partial(_refuse, problem), authenticates)
        elif path.suffix == ".py" or (path / "__init__.py").is_file():
            yield file_candidate(path)


def _why_not_loaded(path: Path) -> str:
    """Why something that looks like a plugin cannot be loaded; "" for a plugin, and for what does not look like one.

    Raises OSError where that cannot be found out.
    """
    if path.is_dir():
        names = [child.name for child in path.iterdir()]
        if "__init__.py" in names:
            return "is not loaded: the name of a package's folder has no dot. Rename it." if path.suffix else ""
        looks_like_one = any(Path(name).suffix.lower() in PYTHON_SUFFIXES for name in names)
        return "is not loaded: a folder is a plugin when it has a file __init__.py." if looks_like_one else ""
    if path.suffix == ".py":
        return "is not loaded: it is no regular file." if path.exists() and not path.is_file() else ""
    if path.suffix in COMPILED and path.with_suffix(".py").is_file():
        return ""  # its source is loaded
    looks_like_one = path.suffix.lower() in PYTHON_SUFFIXES or SET_ASIDE.search(path.name) is not None
    return "is not loaded: the name of a plugin's file ends in .py." if looks_like_one else ""


def _refuse(problem: str) -> NoReturn:
    raise PluginError(problem)


def _load_file(path: Path, plugin: str) -> ModuleType:
    """Run a plugin's file as a module whose name no other file shares; `__init__.py` as a package."""
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    name = f"personaplex_plugin_{re.sub(r'[^0-9a-zA-Z]', '_', plugin)}_{digest}"
    folders = [str(path.parent)] if path.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=folders)
    if spec is None or spec.loader is None:
        raise PluginError("is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # typing.get_type_hints looks up the module of a class there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        for loaded in [one for one in sys.modules if one == name or one.startswith(f"{name}.")]:
            del sys.modules[loaded]
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
        return any(re.search(rb"authenticate|authorize|login_secret", source.read_bytes()) for source in sources)
    except OSError:
        return True
