"""Load the plugins that were found, each by itself, and report what is wrong with those that cannot be used.

A plugin is a module with `@hookimpl` functions, or one with a class `Plugin` that has them as methods. The class is
instantiated once for each host, so its state lives in the instance. Where it has a msgspec struct `Plugin.Options`, it
is called as `Plugin(options)` with the plugin's own block of config.yaml. An instance whose `enabled` is False is not
used.
"""

import inspect
import traceback
import warnings
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec
import pluggy
from starlette.routing import BaseRoute

from core.errors import ConfigError, PluginError
from core.plugin import hookspecs
from core.plugin.discovery import Candidate
from core.plugin.foreign_code import foreign_code, original
from core.plugin.hook_calls import PluginThreads
from core.settings.config import Config
from core.settings.log import get_logger
from core.settings.yaml_structs import decode, suggest

AUTH_HOOKS = ("authenticate", "authorize", "login", "login_secret")
IMPL_ATTRIBUTE = f"{hookspecs.PROJECT}_impl"
"""What pluggy's `hookimpl` sets on the functions that it marks."""
SPEC_ATTRIBUTE = f"{hookspecs.PROJECT}_spec"
"""What pluggy's `hookspec` sets on the functions that it marks."""
State = Literal["on", "off", "disabled", "replaced", "failed"]
"""`off`: the plugin itself says that it has nothing to do. `replaced`: another one of its name has precedence."""


@dataclass(frozen=True)
class PluginInfo:
    """What an operator wants to know about a plugin that was found."""

    name: str
    source: str
    version: str
    hooks: tuple[str, ...]
    state: State
    problem: str = ""


@dataclass(eq=False)
class Lifetime:
    """What one plugin object has been through. It starts once and shuts down once, however many hosts share it."""

    started: bool = False
    hosts: set[object] = field(default_factory=set)
    """The hosts that use the object. It is shut down when the last of them has let go of it."""
    routes: list[BaseRoute] | None = None
    """What `register_routes` returned; None before it is called."""


@dataclass(frozen=True)
class LoadedPlugin:
    """The result of loading a candidate. `plugin` is the object with the hooks, or None when it is not used."""

    candidate: Candidate
    info: PluginInfo
    plugin: Any = None
    lifetime: Lifetime = field(default_factory=Lifetime, compare=False)


@dataclass(frozen=True)
class PluginSet:
    """Every plugin that was found, in order of precedence, and a pluggy manager with those that are used."""

    manager: pluggy.PluginManager
    loaded: tuple[LoadedPlugin, ...]
    threads: PluginThreads
    """What runs the plugins' blocking hooks."""


def load_plugins(config: Config, candidates: Iterable[Candidate], problems: list[str]) -> PluginSet:
    """Load the candidates, which come in order of precedence. All that must stop the boot is added to `problems`."""
    by_name: dict[str, list[LoadedPlugin]] = {}
    for candidate in candidates:
        name = candidate.name
        if name in by_name or name in config.plugins.disabled:
            state: State = "disabled" if name in config.plugins.disabled else "replaced"
            info = PluginInfo(name, candidate.source, candidate.version, (), state)
            by_name.setdefault(name, []).append(LoadedPlugin(candidate, info))
        else:
            candidate = replace(candidate, load=cache(candidate.load))  # a reload does not run its file again
            by_name[name] = [load_plugin(candidate, config, problems)]
    problems.extend(_unknown_names(config, "disabled", config.plugins.disabled, by_name))
    problems.extend(_unknown_names(config, "options", list(config.plugins.options), by_name))
    loaded = tuple(one for same_name in by_name.values() for one in same_name)
    return PluginSet(_register(loaded), loaded, PluginThreads())


def reload_plugins(plugins: PluginSet, names: Collection[str], config: Config) -> PluginSet:
    """The same plugins, where those of `names` are new instances with the options that `config` has for them.

    No plugin's file is run again, so a plugin that is a module, or an object that was passed in, stays the same object
    with the same lifetime. Raises ConfigError with everything that is wrong; `plugins` is left as it was.
    """
    known = [one.info.name for one in plugins.loaded]
    problems = _unknown_names(config, "options", list(config.plugins.options), known)
    loaded = []
    for one in plugins.loaded:
        if one.info.name in names and one.info.state in ("on", "off"):
            before = len(problems)
            new = load_plugin(one.candidate, config, problems)
            if new.info.state == "failed" and len(problems) == before:
                problems.append(new.info.problem)
            if new.plugin is None or new.plugin is not one.plugin:
                one = new
        loaded.append(one)
    if problems:
        raise ConfigError(problems)
    return PluginSet(_register(loaded), tuple(loaded), plugins.threads)


def load_plugin(candidate: Candidate, config: Config, problems: list[str]) -> LoadedPlugin:
    """Load one candidate and check its hooks.

    `problems` receives what must stop the boot: wrong options, and any other failure of a plugin that authenticates
    callers, or of any plugin where `plugins.strict` is set.
    """
    hooks: tuple[str, ...] = ()
    authenticates = candidate.authenticates
    try:
        before = len(problems)
        with foreign_code():
            module = candidate.load()
            version = candidate.version or str(getattr(module, "__version__", ""))
            plugin = _instantiate(module, candidate, config, problems)
        if len(problems) > before:
            info = PluginInfo(candidate.name, candidate.source, version, (), "failed", problems[-1])
            return LoadedPlugin(candidate, info)
        hooks = tuple(_hook_names(plugin))
        authenticates = authenticates or any(hook in AUTH_HOOKS for hook in hooks)
        _check_hooks(candidate.name, plugin, hooks)
    except Exception as error:  # a plugin's module may raise anything
        problem = f"plugin {candidate.name} ({candidate.source}): {_describe_load_error(error)}"
        if config.plugins.strict or authenticates or isinstance(error, _MisspeltAuthHookError):
            problems.append(f"{problem} Correct it, or name it in plugins.disabled.")
        info = PluginInfo(candidate.name, candidate.source, candidate.version, hooks, "failed", problem)
        return LoadedPlugin(candidate, info)
    if getattr(plugin, "enabled", True):
        return LoadedPlugin(candidate, PluginInfo(candidate.name, candidate.source, version, hooks, "on"), plugin)
    return LoadedPlugin(candidate, PluginInfo(candidate.name, candidate.source, version, hooks, "off"))


class _MisspeltAuthHookError(PluginError):
    """A hook whose name is close to one that authenticates callers: skipping it would let everybody in."""


def _instantiate(module: Any, candidate: Candidate, config: Config, problems: list[str]) -> Any:
    """The object with the hooks: `module` itself, or an instance of its class `Plugin`. None for wrong options."""
    options = config.options(candidate.name)
    key = f"plugins.options.{candidate.name}"
    plugin_class: Any = module if inspect.isclass(module) else getattr(module, "Plugin", None)
    if plugin_class is not None and plugin_class is not module and _hook_names(module):
        raise PluginError("has both a class Plugin and functions marked @hookimpl. Make them methods of the class.")
    options_class = getattr(plugin_class, "Options", None)
    if options_class is None:
        if options:
            problems.append(f"{config.source}: {key}: this plugin takes no options. Remove them.")
        return module if plugin_class is None else plugin_class()
    if not (inspect.isclass(options_class) and issubclass(options_class, msgspec.Struct)):
        raise PluginError("Plugin.Options must be a msgspec.Struct.")
    decoded = decode(options_class, options, config.source, problems, f"{key}.", environ=config.environment.variables)
    return None if decoded is None else plugin_class(decoded)


def _hook_names(plugin: Any) -> list[str]:
    """Names of the attributes that are marked with `@hookimpl`."""
    names = []
    for name in dir(plugin):
        attribute = inspect.getattr_static(plugin, name, None)
        function = getattr(attribute, "__func__", attribute)  # unwraps static and class methods
        if inspect.isroutine(attribute) and hasattr(function, IMPL_ATTRIBUTE):
            names.append(name)
    return names


def _check_hooks(name: str, plugin: Any, hooks: tuple[str, ...]) -> None:
    """Register the plugin with a throw-away manager. Raises PluginError for a misspelt hook or argument, and for a
    login that keeps nobody out.

    A hook or argument that is deprecated (pluggy's `warn_on_impl` and `warn_on_impl_args`) is logged.
    """
    if not hooks:
        raise PluginError("has no hooks. Mark its functions with @hookimpl (from core import hookimpl).")
    known = [name for name, value in vars(hookspecs).items() if hasattr(value, SPEC_ATTRIBUTE)]
    for hook in hooks:
        if hook not in known:
            suggestion = suggest(hook, known)
            misspelt_auth = any(f"'{auth_hook}'" in suggestion for auth_hook in AUTH_HOOKS)
            error = _MisspeltAuthHookError if misspelt_auth else PluginError
            raise error(f"there is no hook '{hook}'.{suggestion}")
    if "login" in hooks and not {"login_secret", "authenticate"}.intersection(hooks):
        raise PluginError("has the hook 'login' but no 'login_secret', so it would let everybody in without a login.")
    scratch = _new_manager()
    try:
        with warnings.catch_warnings(record=True, action="always", category=DeprecationWarning) as deprecations:
            scratch.register(plugin)
        scratch.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(" ".join(str(error).split("\n", 1)[-1].split())) from error
    for deprecation in deprecations:
        get_logger("plugins").warning("plugin uses something deprecated", plugin=name, detail=str(deprecation.message))
    for hook in hooks:
        for implementation in getattr(scratch.hook, hook).get_hookimpls():
            if implementation.hookwrapper or implementation.wrapper:
                raise PluginError(f"the hook '{hook}' is a wrapper; wrappers are not supported.")
            if hook in hookspecs.SYNC_HOOKS and inspect.iscoroutinefunction(implementation.function):
                raise PluginError(f"the hook '{hook}' cannot be async. Define it with def.")


def _new_manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


def _register(loaded: Sequence[LoadedPlugin]) -> pluggy.PluginManager:
    """A manager with the plugins that are used."""
    manager = _new_manager()
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # `_check_hooks` has logged them
        for one in reversed(loaded):  # pluggy calls the plugin that was registered last first
            if one.plugin is not None:
                manager.register(one.plugin, one.info.name)
    return manager


def _unknown_names(config: Config, key: str, names: Sequence[str], known: Collection[str]) -> list[str]:
    return [
        f"{config.source}: plugins.{key}: there is no plugin '{name}'.{suggest(name, known)}"
        for name in names
        if name not in known
    ]


def _describe_load_error(error: BaseException) -> str:
    error = original(error)
    if isinstance(error, PluginError):
        return str(error)
    if isinstance(error, SyntaxError):
        return f"cannot be loaded: {type(error).__name__} in line {error.lineno}: {error.msg}."
    frames = traceback.extract_tb(error.__traceback__)
    line = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"cannot be loaded: {type(error).__name__}: {error}{line}."
