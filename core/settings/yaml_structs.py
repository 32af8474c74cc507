"""Decode plain values from YAML and environment variables into typed structs, and report every problem at once.

`msgspec.convert` stops at the first problem, while people want to see all of them. So this module walks through a
struct field by field and leaves only single values to msgspec. Each problem is one sentence that names file and key.
"""

import dataclasses
import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from core.errors import PersonaplexError
from core.settings.yaml_files import describe_type, parse_yaml

T = TypeVar("T")
_VARIABLE = r"\$\{[A-Za-z_][^}]*\}|\$[A-Z_][A-Z0-9_]*"
"""Text that a shell would expand to the value of a variable."""


class Secret:
    """Text that never appears in logs, errors or `repr`. Only `reveal` returns it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself. Pass it to what needs it and to nothing else."""
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "Secret(***)"


_EMPTY_IS_NONE = "empty text is None"
OptionalToken = Annotated[Secret | None, _EMPTY_IS_NONE]
"""A secret that may be missing without harm, such as a token for downloads: a variable set to nothing means none.

A password is a plain `Secret | None`, for which empty text is an error: it must not open the service."""


@dataclass(frozen=True)
class FromEnvironment:
    """Metadata of a field, `Annotated[Secret | None, FromEnvironment("NAME")]`: its default is that variable.

    The variable counts whichever file the other settings come from, unless the file has the key.
    """

    variable: str


class EnvironmentText(str):
    """The value of the environment variable named `variable`. Hidden in `repr`, since it is often a secret.

    Line ends at its end are removed: variables that are made from files have one.
    """

    variable: str

    def __new__(cls, text: str, variable: str) -> "EnvironmentText":
        self = super().__new__(cls, text.rstrip("\r\n"))
        self.variable = variable
        return self

    def __repr__(self) -> str:
        return f"<text of {self.variable}>"


def decode(
    kind: type[T],
    data: Mapping[Any, Any],
    where: str,
    problems: list[str],
    prefix: str = "",
    environ: Mapping[str, str] | None = None,
) -> T | None:
    """Decode `data` into a `kind`, a msgspec struct or dataclass; None after adding what is wrong to `problems`.

    A problem reads `{where}: {prefix}{key}: what is wrong`, with a prefix such as `plugins.options.loudness.`. A key
    without a value counts as left out, unless its type has None. `environ` has the variables that are the defaults of
    `FromEnvironment` fields.
    """
    hints = get_type_hints(kind, include_extras=True)
    data = {key: value for key, value in data.items() if value is not None or key not in hints or _has_none(hints[key])}
    data = {**_defaults(hints, environ or {}), **data}
    required = _required_fields(kind)
    before = len(problems)
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key not in hints:
            problems.append(f"{where}: {prefix}{key}: unknown key{_origin(value)}.{suggest(str(key), hints)}")
            continue
        field = hints[key]
        if _is_struct(field):
            value = _mapping(value, f"{where}: {prefix}{key}", problems)
            decoded: Any = decode(field, value, where, problems, f"{prefix}{key}.", environ)
        else:
            decoded = _convert(value, field, f"{where}: {prefix}{key}", problems)
        values[key] = decoded
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
    """A suggestion for an unknown name: a sentence with a leading space, to append to another, or ""."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f" Did you mean '{close[0]}'?"
    return f" Known: {', '.join(names)}." if names else ""


def _defaults(hints: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, EnvironmentText]:
    """The values of the fields whose default is an environment variable that is set."""
    return {
        name: EnvironmentText(environ[source.variable], source.variable)
        for name, hint in hints.items()
        for source in getattr(hint, "__metadata__", ())
        if isinstance(source, FromEnvironment) and source.variable in environ
    }


def _required_fields(kind: type) -> set[str]:
    if issubclass(kind, msgspec.Struct):
        return {field.name for field in msgspec.structs.fields(kind) if field.required}
    return {
        field.name
        for field in dataclasses.fields(kind)  # type: ignore[arg-type] # every struct here is one or the other
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }


def _is_struct(kind: object) -> bool:
    return isinstance(kind, type) and (issubclass(kind, msgspec.Struct) or dataclasses.is_dataclass(kind))


def _mapping(value: Any, where: str, problems: list[str]) -> Mapping[Any, Any]:
    """The mapping of a section: empty for a section without content, and parsed as YAML for an environment variable."""
    if isinstance(value, EnvironmentText):
        try:
            value = parse_yaml(value)
        except ValueError as error:
            problems.append(f"{where}: {error}{_origin(value)}.")
            return {}
    if value is None:
        return {}
    if not isinstance(value, dict):
        problems.append(f"{where}: must be a mapping of keys to values, not {describe_type(value)}.")
        return {}
    return value


def _convert(value: Any, kind: Any, where: str, problems: list[str]) -> Any:
    """Convert one value; None after adding what is wrong with it to `problems`.

    Text from an environment variable that does not fit as text is parsed as YAML: `9000`, or `[NATF2, VARF0]`.
    """
    if value == "" and _EMPTY_IS_NONE in getattr(kind, "__metadata__", ()):
        return None
    try:
        return _convert_finite(value, kind)
    except msgspec.ValidationError as error:
        problem = error
    if isinstance(value, EnvironmentText) and value and not _is_secret(kind):
        try:
            return _convert_finite(parse_yaml(value), kind)
        except msgspec.ValidationError as error:
            problem = error
        except ValueError as error:
            problems.append(f"{where}: {error}{_origin(value)}.")
            return None
    message, _, place = str(problem).partition(" - at `$")
    message = _explain(message.replace("`", "").replace("Expected", "expected", 1), value, kind)
    problems.append(f"{where}{place.rstrip('`')}: {message}{_origin(value)}.")
    return None


def _is_secret(kind: Any) -> bool:
    """Whether a field of this type holds a Secret itself: `Secret`, `Secret | None`, or one of these, annotated."""
    if get_origin(kind) in (Annotated, UnionType):
        return any(_is_secret(one) for one in get_args(kind))
    return kind is Secret


def _explain(message: str, value: Any, kind: Any) -> str:
    """msgspec's message with what is allowed in its place: the values of a Literal, or a pattern in words."""
    scalar = isinstance(value, str | int | float)
    if (allowed := _literals(kind)) and (scalar or message.startswith("Invalid enum value")):
        hidden = not scalar or isinstance(value, EnvironmentText)  # which may be a secret in the wrong place
        return f"expected {', '.join([*allowed, *_numbers(kind)])}" + ("" if hidden else f", got {value!r}")
    if " matching regex " in message:
        words = [meta.description for meta in _metadata(kind) if meta.pattern and meta.description]
        return f"expected {words[0]}" if words else message
    if re.match(r"expected str\b.*, got (bool|int|float|date|datetime|time|timedelta)$", message):
        return f"{message}; write it in quotes to make it text"
    return message


def _literals(kind: Any) -> list[str]:
    """The values of every Literal in a type."""
    if get_origin(kind) is Literal:
        return [str(value) for value in get_args(kind)]
    return [value for part in get_args(kind) for value in _literals(part)]


def _numbers(kind: Any) -> list[str]:
    """What a type takes beside the values of a Literal, in words."""
    if kind in (int, float):
        return ["or a number"]
    return [] if get_origin(kind) is Literal else [words for part in get_args(kind) for words in _numbers(part)][:1]


def _metadata(kind: Any) -> list[msgspec.Meta]:
    """Every constraint in a type."""
    own = [one for one in getattr(kind, "__metadata__", ()) if isinstance(one, msgspec.Meta)]
    return own + [meta for part in get_args(kind) for meta in _metadata(part)]


def _has_none(kind: Any) -> bool:
    """Whether None is a value of a type, or stands for all defaults of a section."""
    return _is_struct(kind) or kind is Any or type(None) in get_args(kind) or any(map(_has_none, _unions(kind)))


def _unions(kind: Any) -> tuple[Any, ...]:
    """What an annotated type, or each part of a union, consists of."""
    return get_args(kind) if get_origin(kind) in (Annotated, Union, UnionType) else ()


def _convert_finite(value: Any, kind: Any) -> Any:
    """Convert one value. Raises msgspec.ValidationError, also for infinity and NaN, which msgspec accepts."""
    converted = msgspec.convert(value, kind, dec_hook=_decode_secret)
    if isinstance(converted, float) and not math.isfinite(converted):
        raise msgspec.ValidationError("Expected a finite number")
    return converted


def _decode_secret(kind: type, value: Any) -> Any:
    if kind is not Secret:
        raise NotImplementedError(f"values of {kind} cannot be read from YAML")
    if not isinstance(value, str):
        raise ValueError(f"Expected text, got {describe_type(value)}; put it in quotes")
    if not value:
        raise ValueError("Expected text, but it is empty; set it, or leave it out altogether")
    from_environment = isinstance(value, EnvironmentText)
    if re.fullmatch(_VARIABLE, value, 0 if from_environment else re.IGNORECASE):
        if from_environment:
            raise ValueError("the variable holds the name of another, which nobody has replaced; set it to the text")
        raise ValueError(
            "$NAME is not replaced here; write {env: NAME} to take an environment variable, also for text that begins "
            "with $"
        )
    return Secret(str(value))


def _origin(value: object) -> str:
    """A note about the environment variable that a value comes from, with a leading space; "" for one from the file."""
    if isinstance(value, dict):
        return next((source for item in value.values() if (source := _origin(item))), "")
    return f" (from the environment variable {value.variable})" if isinstance(value, EnvironmentText) else ""
