"""The settings: `config.yaml` and the environment become one frozen `Config`.

Every key has a default, so an empty file is a valid configuration. A value `{env: NAME}` comes from the environment
variable NAME, which must be set unless the value has a `default`: `{env: NAME, default: null}`. Some secrets have a
variable as their default: HF_TOKEN for `engine.token`, PERSONAPLEX_PASSWORD for the option of the plugin `password`.
Every key can be overridden by a variable such as `PERSONAPLEX_SERVER__PORT=9000`: section and key in capitals, joined
by two underscores. The text of a variable is used as it is where the key takes text, and parsed as YAML otherwise. Line
ends at its end are removed, since secrets made from files have one.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Any

import msgspec

from core.errors import ConfigError
from core.settings.paths import absolute_path, is_folder
from core.settings.sections import Sections
from core.settings.yaml_files import read_yaml
from core.settings.yaml_structs import EnvironmentText, decode

ENVIRONMENT_PREFIX = "PERSONAPLEX_"


@dataclass(frozen=True)
class Environment:
    """The environment variables that settings are read with. Not shown in `repr`, since they include secrets."""

    variables: Mapping[str, str] = dataclass_field(default_factory=dict, repr=False)


class Config(Sections, frozen=True, forbid_unknown_fields=True):
    """All settings of one service. The paths in a Config made by `load_config` are absolute."""

    source: str = "config.yaml"
    """The file that the settings come from, for messages."""
    environment: Environment = Environment()
    """The defaults of plugins' options that are variables, which are decoded when the plugins are loaded."""

    def options(self, plugin: str) -> Mapping[str, Any]:
        """The options of one plugin; empty when it has none."""
        return self.plugins.options.get(plugin) or {}


def shipped(name: str) -> Path:
    """A file or folder that comes with the project: `config.yaml`, `personas` or `web`.

    In a checkout it lies beside the package `core`, in an installed wheel in `core/shipped`.
    """
    inside = Path(__file__).parent.parent / "shipped" / name
    return inside if inside.exists() else Path(__file__).parent.parent.parent / name


def load_config(path: Path | None, environ: Mapping[str, str]) -> Config:
    """The settings in the file `path`; None is `config.yaml` in the current folder or else the one that is shipped.

    Relative paths in the file are relative to its folder. Raises ConfigError with every problem.
    """
    config, problems = read_config(path, environ)
    if problems:
        raise ConfigError(problems)
    return config


def read_config(path: Path | None, environ: Mapping[str, str]) -> tuple[Config, list[str]]:
    """The settings as in `load_config`, and every problem. A section with a problem has its default values."""
    problems: list[str] = []
    try:
        if path is None:
            here = Path("config.yaml")
            path = here if os.path.lexists(here) else shipped("config.yaml")
        path = absolute_path(Path(), path)
    except ValueError as error:
        return Config(source=str(path)), [str(error)]
    data = read_yaml(path, problems)
    data = {key: _substitute_environment(value, environ, f"{path}: {key}", problems) for key, value in data.items()}
    _apply_overrides(data, environ, problems)
    data.setdefault("engine", {})  # which has a default in the environment

    sections = {}
    for key in data:
        found = decode(Sections, {key: data[key]}, str(path), problems, environ=environ)
        if found is not None:
            sections[key] = getattr(found, key)
    config = Config(source=str(path), environment=Environment(dict(environ)), **sections)
    return _resolve_paths(config, path.parent, problems), problems


def _substitute_environment(value: Any, environ: Mapping[str, str], where: str, problems: list[str]) -> Any:
    """The value with each `{env: NAME}` in it replaced by that environment variable."""
    if isinstance(value, list):
        return [
            _substitute_environment(item, environ, f"{where}[{index}]", problems) for index, item in enumerate(value)
        ]
    if not isinstance(value, dict):
        return value
    if "env" not in value or not value.keys() <= {"env", "default"}:
        return {key: _substitute_environment(item, environ, f"{where}.{key}", problems) for key, item in value.items()}
    name = value["env"]
    if not isinstance(name, str) or not name:
        problems.append(f"{where}: env must name an environment variable.")
    elif name in environ:
        return EnvironmentText(environ[name], name)
    elif "default" not in value:
        problems.append(
            f"{where}: the environment variable {name} is not set. Set it, or write {{env: {name}, default: ...}}."
        )
    return value.get("default")


def _apply_overrides(data: dict[str, Any], environ: Mapping[str, str], problems: list[str]) -> None:
    """Set each key that a variable such as `PERSONAPLEX_SECTION__KEY` names, in place."""
    for name in sorted(environ):
        if not name.startswith(ENVIRONMENT_PREFIX) or "__" not in name:
            continue
        *parents, last = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        place = data
        for parent in parents:
            if place.get(parent) is None:
                place[parent] = {}
            place = place[parent]
            if not isinstance(place, dict):
                problems.append(f"the environment variable {name}: '{parent}' is not a mapping, so it has no '{last}'.")
                break
        else:
            place[last] = EnvironmentText(environ[name], name)


def _resolve_paths(config: Config, base: Path, problems: list[str]) -> Config:
    """The settings with absolute paths. A path that cannot be used, or a missing folder that must exist, is added to
    `problems`.
    """

    def path(key: str, given: str, default: Path | str, must_exist: bool = True) -> str:
        with _noted(f"{config.source}: {key}", problems):
            if given:
                found = absolute_path(base, given)
                if must_exist and not is_folder(found):
                    raise ValueError(f"the folder {found} does not exist. Make it, or correct it.")
                return str(found)
        return str(default)

    def beside(name: str) -> Path | None:
        with _noted(config.source, problems):
            return base / name if is_folder(base / name) else None
        return None

    plugins, personas, engine = beside("plugins"), beside("personas") or shipped("personas").absolute(), config.engine
    folders = tuple(filter(None, (path("plugins.folders", name, "") for name in config.plugins.folders)))
    checkpoint = path("engine.checkpoint", engine.checkpoint, base, must_exist=False)
    with suppress(ValueError):  # a repository's name, which may be too long for a folder's
        if is_folder(Path(checkpoint)):
            engine = msgspec.structs.replace(engine, checkpoint=checkpoint)
    cache = engine.cache and path("engine.cache", engine.cache, base, must_exist=False)
    replace = msgspec.structs.replace
    return replace(
        config,
        server=replace(config.server, web=path("server.web", config.server.web, shipped("web").absolute())),
        engine=replace(engine, cache=cache),
        voices=replace(config.voices, folder=path("voices.folder", config.voices.folder, base / "voices", False)),
        personas=replace(config.personas, folder=path("personas.folder", config.personas.folder, personas)),
        plugins=replace(config.plugins, folders=folders or ((str(plugins),) if plugins else ())),
    )


@contextmanager
def _noted(where: str, problems: list[str]) -> Iterator[None]:
    """Add what a ValueError says to `problems`, and go on."""
    try:
        yield
    except ValueError as error:
        problems.append(f"{where}: {error}")
