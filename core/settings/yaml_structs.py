"""From YAML and environment text to typed structs, with every problem named at once.

`msgspec` checks one value and stops at the first problem; people would rather see them all. So structs are taken apart
here, field by field, and every problem is one sentence with its file and key.
"""

import dataclasses
import difflib
import math
import re
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import msgspec
import yaml

from core.errors import PersonaplexError

MAX_FILE_BYTES = 1_000_000
"""More than any configuration or persona needs; keeps a wrong file from filling the memory."""

T = TypeVar("T")
MISSING = object()


class Secret:
    """Text that must not be seen in logs, errors or `repr`. Only `reveal` gives it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself: hand it to what needs it and to nothing else."""
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "Secret(***)"


class EnvironmentText(str):
    """Text from the environment variable `variable`. Hidden in `repr`, since such text is often a secret."""

    variable: str

    def __new__(cls, text: str, variable: str) -> "EnvironmentText":
        self = super().__new__(cls, text)
        self.variable = variable
        return self

    def __repr__(self) -> str:
        return f"<text of {self.variable}>"


class _Loader(yaml.SafeLoader):
    """Plain YAML without aliases (a few lines of them can stand for gigabytes) and without a key given twice."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.constructor.ConstructorError(problem="aliases (*name) are not allowed", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        problem=f"the key '{key.value}' is given twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str) -> Any:
    """YAML text as plain values. Raises ValueError with a one-line message."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - _Loader is a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"not valid YAML{line}: {error.problem or error.context}") from None
    except RecursionError:
        raise ValueError("not valid YAML: nested too deeply") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise ValueError(f"not valid YAML: {' '.join(str(error).split())}") from None


def read_yaml(path: Path, problems: list[str]) -> dict[str, Any]:
    """The mapping in a YAML file. What is wrong goes to `problems`, and the mapping is then empty."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ValueError(f"larger than {MAX_FILE_BYTES} bytes; this cannot be right")
        data = parse_yaml(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        problems.append(f"{path}: not UTF-8 text. Save it as UTF-8.")
        return {}
    except OSError as error:
        problems.append(f"{path}: cannot be read: {error.strerror or error}.")
        return {}
    except ValueError as error:
        problems.append(f"{path}: {error}.")
        return {}
    if data is None:
        return {}
    if not isinstance(data, dict):
        problems.append(f"{path}: must be a mapping of keys to values, not {describe_type(data)}.")
        return {}
    return data


def decode(kind: type[T], data: Mapping[Any, Any], where: str, problems: list[str], prefix: str = "") -> T | None:
    """Make a `kind` (msgspec struct or dataclass) of `data`, or None when something was wrong.

    Problems read `{where}: {key}: what is wrong`. `prefix` is put before each key, such as `plugins.options.loudness.`.
    """
    hints = get_type_hints(kind, include_extras=True)
    required = _required(kind)
    before = len(problems)
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key not in hints:
            problems.append(f"{where}: {prefix}{key}: unknown key{_from(value)}.{suggest(str(key), hints)}")
            continue
        field = hints[key]
        if _is_record(field):
            value = _mapping(value, f"{where}: {prefix}{key}", problems)
            found: Any = decode(field, value, where, problems, f"{prefix}{key}.")
        else:
            found = _convert(value, field, f"{where}: {prefix}{key}", problems)
        values[key] = found
    for key in sorted(required - data.keys()):
        problems.append(f"{where}: {prefix}{key}: missing. Add it.")
    if len(problems) > before:
        return None
    try:
        return kind(**values)
    except (ValueError, PersonaplexError) as error:
        problems.append(f"{where}: {prefix.removesuffix('.') or 'whole'}: {error}")
        return None


def suggest(name: str, known: Iterable[str]) -> str:
    """What may have been meant by an unknown name, as a sentence to follow another: it begins with a space."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f" Did you mean '{close[0]}'?"
    return f" Known: {', '.join(names)}." if names else ""


def describe_type(value: object) -> str:
    """What a person calls the type of a YAML value."""
    names = {dict: "a mapping", list: "a list", bool: "true or false", int: "a number", float: "a number"}
    if value is None:
        return "nothing"
    return "text" if isinstance(value, str) else names.get(type(value), "something else")


def _required(kind: type) -> set[str]:
    if issubclass(kind, msgspec.Struct):
        return {field.name for field in msgspec.structs.fields(kind) if field.required}
    return {
        field.name
        for field in dataclasses.fields(kind)  # type: ignore[arg-type] # all records here are one or the other
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }


def _is_record(kind: object) -> bool:
    return isinstance(kind, type) and (issubclass(kind, msgspec.Struct) or dataclasses.is_dataclass(kind))


def _mapping(value: Any, where: str, problems: list[str]) -> Mapping[Any, Any]:
    """A section's mapping: empty when only its head is there, read as YAML when it comes from the environment."""
    if isinstance(value, EnvironmentText):
        try:
            value = parse_yaml(value)
        except ValueError as error:
            problems.append(f"{where}: {error}{_from(value)}.")
            return {}
    if value is None:
        return {}
    if not isinstance(value, dict):
        problems.append(f"{where}: must be a mapping of keys to values, not {describe_type(value)}.")
        return {}
    return value


def _convert(value: Any, kind: Any, where: str, problems: list[str]) -> Any:
    try:
        return _checked(value, kind)
    except msgspec.ValidationError as error:
        problem = error
    if isinstance(value, EnvironmentText) and value:  # such as `9000` or `[NATF2, VARF0]`, where no text is wanted
        try:
            return _checked(parse_yaml(value), kind)
        except msgspec.ValidationError as error:
            problem = error
        except ValueError as error:
            problems.append(f"{where}: {error}{_from(value)}.")
            return None
    message, _, place = str(problem).partition(" - at `$")
    message = re.sub(r"`", "", message).replace("Expected", "expected", 1)
    problems.append(f"{where}{place.rstrip('`')}: {message}{_from(value)}.")
    return None


def _checked(value: Any, kind: Any) -> Any:
    found = msgspec.convert(value, kind, dec_hook=_secret)
    if isinstance(found, float) and not math.isfinite(found):
        raise msgspec.ValidationError("Expected a finite number")
    return found


def _secret(kind: type, value: Any) -> Any:
    if kind is not Secret:
        raise NotImplementedError(f"values of {kind} cannot be read from YAML")
    if not isinstance(value, str):
        raise ValueError(f"Expected text, got {describe_type(value)}; put it in quotes")
    if not value:
        raise ValueError("Expected text, but it is empty; set it, or leave it out altogether")
    return Secret(str(value))


def _from(value: object) -> str:
    """Where a value comes from, when that is not the file."""
    if isinstance(value, dict):
        return next((source for item in value.values() if (source := _from(item))), "")
    return f" (from the environment variable {value.variable})" if isinstance(value, EnvironmentText) else ""
