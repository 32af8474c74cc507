"""Find plugins, load each by itself, and say what is wrong with those that cannot be used.

A plugin is a module with `@hookimpl` functions, or one with a class `Plugin` that has them as methods. The class is
made once for each host, so state lives in its instance. With a msgspec struct `Plugin.Options` it is made as
`Plugin(options)`, from the plugin's own block of config.yaml. An instance whose `enabled` is False is not used.
"""

import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import msgspec
import pluggy

from core.errors import ConfigError, PluginError
from core.plugin import hookspecs
from core.settings.config import Config
from core.settings.yaml_structs import decode, suggest

BUILT_IN = "plugins"
"""The package of the built-in plugins."""
GROUP = "personaplex"
AUTH_HOOKS = ("authenticate", "authorize")
MAX_SOURCES = 500
MARK = f"{hookspecs.PROJECT}_impl"
SPEC_MARK = f"{hookspecs.PROJECT}_spec"
"""What pluggy's markers set on the functions they mark."""
State = Literal["on", "off", "disabled", "replaced", "failed"]


@dataclass(frozen=True)
class PluginInfo:
    """What a person wants to know about a plugin that was found."""

    name: str
    source: str
    version: str
    hooks: tuple[str, ...]
    state: State
    """`off`: it says itself that it has nothing to do; `replaced`: one of the same name came before it."""
    problem: str = ""


@dataclass(frozen=True)
class Candidate:
    """A plugin that was found. `load` gives its module or class."""

    name: str
    source: str
    version: str
    load: Callable[[], Any]
    auth: bool
    """Whether its source text speaks of an auth hook, or cannot be read: then it must not be skipped when it fails."""


@dataclass(frozen=True)
class Found:
    """What became of a candidate. `plugin` is the object with the hooks, or None when it is not used."""

    candidate: Candidate
    info: PluginInfo
    plugin: Any = None


@dataclass(frozen=True)
class PluginSet:
    """A manager with all plugins that are used, and all that were found, in order of precedence."""

    manager: pluggy.PluginManager
    found: tuple[Found, ...]


def load_plugins(config: Config) -> PluginSet:
    """Find and load every plugin. Raises ConfigError with all that must stop the boot."""
    problems: list[str] = []
    found: dict[str, list[Found]] = {}
    for candidate in find_plugins(config):
        name = candidate.name
        if name in found or name in config.plugins.disabled:
            state: State = "disabled" if name in config.plugins.disabled else "replaced"
            info = PluginInfo(name, candidate.source, candidate.version, (), state)
            found.setdefault(name, []).append(Found(candidate, info))
        else:
            candidate = replace(candidate, load=cache(candidate.load))
            found[name] = [Found(candidate, *load_plugin(candidate, config, problems))]
    problems.extend(_unknown(config, "disabled", config.plugins.disabled, found))
    problems.extend(_unknown(config, "options", list(config.plugins.options), found))
    if problems:
        raise ConfigError(problems)
    everything = tuple(one for same in found.values() for one in same)
    return PluginSet(_manager(everything), everything)


def remake_plugins(plugins: PluginSet, names: Collection[str], config: Config) -> PluginSet:
    """The same plugins, those of these `names` made anew with the options that `config` has for them.

    No file of a plugin is run again. Raises ConfigError with everything that is wrong; `plugins` stay as they were.
    """
    problems = _unknown(config, "options", list(config.plugins.options), [one.info.name for one in plugins.found])
    found = []
    for one in plugins.found:
        if one.info.name in names and one.info.state in ("on", "off"):
            before = len(problems)
            one = Found(one.candidate, *load_plugin(one.candidate, config, problems))
            if one.info.state == "failed" and len(problems) == before:
                problems.append(one.info.problem)
        found.append(one)
    if problems:
        raise ConfigError(problems)
    manager = _manager(found)
    for name, plugin in plugins.manager.list_name_plugin():
        if all(name != one.info.name for one in found):
            manager.register(plugin, name)  # one that was not found, but registered by whoever runs the app
    return PluginSet(manager, tuple(found))


def _manager(found: Sequence[Found]) -> pluggy.PluginManager:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    for one in reversed(found):  # pluggy asks the one that came last first
        if one.plugin is not None:
            manager.register(one.plugin, one.info.name)
    return manager


def _unknown(config: Config, key: str, given: Sequence[str], known: Collection[str]) -> list[str]:
    return [
        f"{config.source}: plugins.{key}: there is no plugin '{name}'.{suggest(name, known)}"
        for name in given
        if name not in known
    ]


def find_plugins(config: Config) -> Iterator[Candidate]:
    """In order of precedence: installed packages (entry points), files in `plugins.folders`, built-ins."""
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        version = entry.dist.version if entry.dist else ""
        yield Candidate(entry.name, f"package {entry.value}", version, entry.load, _is_auth(_package_sources(entry)))

    package = importlib.import_module(BUILT_IN)
    built_in = {Path(folder).resolve() for folder in package.__path__}
    for folder in config.plugins.folders:
        if Path(folder).resolve() in built_in:
            continue  # these are found below, as built-ins
        for path in sorted(Path(folder).glob("*.py")):
            if not path.name.startswith(("_", ".")):
                yield Candidate(path.stem, f"file {path}", "", partial(_load_file, path), _is_auth([path]))

    importlib.invalidate_caches()
    for found in pkgutil.iter_modules(package.__path__):
        if not found.name.startswith("_"):
            module = f"{BUILT_IN}.{found.name}"
            spec = importlib.util.find_spec(module)
            sources = [Path(spec.origin)] if spec and spec.origin else []
            yield Candidate(found.name, "built-in", "", partial(importlib.import_module, module), _is_auth(sources))


def load_plugin(candidate: Candidate, config: Config, problems: list[str]) -> tuple[PluginInfo, Any]:
    """The plugin, ready to be registered, or None, and what became of it.

    `problems` receives what must stop the boot: wrong options, and whatever keeps a plugin that decides who may call,
    or any plugin where `plugins.strict` is set, from being used.
    """
    hooks: tuple[str, ...] = ()
    auth = candidate.auth
    try:
        loaded = candidate.load()
        version = candidate.version or str(getattr(loaded, "__version__", ""))
        before = len(problems)
        plugin = _make(loaded, candidate, config, problems)
        if len(problems) > before:
            return PluginInfo(candidate.name, candidate.source, version, (), "failed", problems[-1]), None
        hooks = tuple(_hook_names(plugin))
        auth = auth or any(hook in AUTH_HOOKS for hook in hooks)
        _check_hooks(plugin, hooks)
    except (Exception, SystemExit) as error:  # a plugin's module may raise anything
        problem = f"plugin {candidate.name} ({candidate.source}): {_reason(error)}"
        if config.plugins.strict or auth or isinstance(error, _AuthSpellingError):
            problems.append(f"{problem} Correct it, or name it in plugins.disabled.")
        return PluginInfo(candidate.name, candidate.source, candidate.version, hooks, "failed", problem), None
    on = bool(getattr(plugin, "enabled", True))
    return PluginInfo(candidate.name, candidate.source, version, hooks, "on" if on else "off"), plugin if on else None


class _AuthSpellingError(PluginError):
    """A hook that looks like one that decides who may call."""


def _make(loaded: Any, candidate: Candidate, config: Config, problems: list[str]) -> Any:
    """The object with the hooks: `loaded` itself, or an instance of its class `Plugin`."""
    options = config.options(candidate.name)
    key = f"plugins.options.{candidate.name}"
    kind: Any = loaded if inspect.isclass(loaded) else getattr(loaded, "Plugin", None)
    if kind is not None and kind is not loaded and _hook_names(loaded):
        raise PluginError("has both a class Plugin and functions marked @hookimpl. Make them methods of the class.")
    wanted = getattr(kind, "Options", None)
    if wanted is None:
        if options:
            problems.append(f"{config.source}: {key}: this plugin takes no options. Remove them.")
        return loaded if kind is None else kind()
    if not (inspect.isclass(wanted) and issubclass(wanted, msgspec.Struct)):
        raise PluginError("Plugin.Options must be a msgspec.Struct.")
    decoded = decode(wanted, options, config.source, problems, f"{key}.", environ=config.environment.variables)
    return None if decoded is None else kind(decoded)


def _hook_names(plugin: Any) -> list[str]:
    names = []
    for name in dir(plugin):
        attribute = inspect.getattr_static(plugin, name, None)
        function = getattr(attribute, "__func__", attribute)  # out of a static or class method
        if inspect.isroutine(attribute) and hasattr(function, MARK):
            names.append(name)
    return names


def _check_hooks(plugin: Any, hooks: tuple[str, ...]) -> None:
    """Register `plugin` with a manager of its own, which is thrown away: a misspelt hook or argument comes to light."""
    if not hooks:
        raise PluginError("has no hooks. Mark its functions with @hookimpl (from core import hookimpl).")
    known = [name for name, value in vars(hookspecs).items() if hasattr(value, SPEC_MARK)]
    for hook in hooks:
        if hook not in known:
            close = suggest(hook, known)
            kind = _AuthSpellingError if any(f"'{auth}'" in close for auth in AUTH_HOOKS) else PluginError
            raise kind(f"there is no hook '{hook}'.{close}")
    scratch = pluggy.PluginManager(hookspecs.PROJECT)
    scratch.add_hookspecs(hookspecs)
    try:
        scratch.register(plugin)
        scratch.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(" ".join(str(error).split("\n", 1)[-1].split())) from error
    for hook in hooks:
        for implementation in getattr(scratch.hook, hook).get_hookimpls():
            if implementation.hookwrapper or implementation.wrapper:
                raise PluginError(f"the hook '{hook}' is a wrapper; wrappers are not supported.")


def _load_file(path: Path) -> ModuleType:
    """Run a plugin file as a module of its own, whose name no other file has."""
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    name = f"personaplex_plugin_{re.sub(r'[^0-9a-zA-Z]', '_', path.stem)}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError("is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # typing looks a class's module up there
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


def _is_auth(sources: list[Path]) -> bool:
    if not 0 < len(sources) <= MAX_SOURCES:
        return True
    try:
        return any(re.search(rb"authenticate|authorize", source.read_bytes()) for source in sources)
    except OSError:
        return True


def _reason(error: BaseException) -> str:
    if isinstance(error, PluginError):
        return str(error)
    if isinstance(error, SyntaxError):
        return f"cannot be loaded: {type(error).__name__} in line {error.lineno}: {error.msg}."
    frames = traceback.extract_tb(error.__traceback__)
    line = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"cannot be loaded: {type(error).__name__}: {error}{line}."
