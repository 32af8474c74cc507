"""Decode YAML and environment variables into typed structs, and report every problem at once.

`msgspec.convert` stops at the first problem, while people want to see all of them. So this module walks through a
struct field by field and leaves only single values to msgspec. Each problem is one sentence that names file and key.
"""

import dataclasses
import difflib
import math
import re
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec
import yaml

from core.errors import PersonaplexError

MAX_FILE_BYTES = 1_000_000
"""More than any configuration or persona needs. It keeps a wrong file from filling the memory."""

T = TypeVar("T")
_VARIABLE = r"\$\{[A-Za-z_][^}]*\}|\$[A-Z_][A-Z0-9_]*"
"""Text that a shell would expand to the value of a variable."""
_QUOTED = re.compile(r"""'[^']*'|"[^"]*\"""")
_HARMLESS = re.compile(r"""['"](\W|<[a-z ]+>)['"]""")
"""What PyYAML may quote in its messages: a single punctuation mark, and its token names, such as `<block end>`."""


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


class _StrictLoader(yaml.SafeLoader):
    """Loads plain YAML, but no tags, no duplicate keys, and no aliases: a few lines can expand to gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.constructor.ConstructorError(problem="aliases (*name) are not allowed", problem_mark=mark)
        event = self.peek_event()  # type: ignore[no-untyped-call]
        for name, sign in (("tag", "!"), ("anchor", "&")):
            if getattr(event, name, None) is not None:
                raise yaml.constructor.ConstructorError(
                    problem=f"text that begins with {sign} must be in quotes", problem_mark=event.start_mark
                )
        return super().compose_node(parent, index)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError):  # whose text has the value, which may be a secret
            raise yaml.constructor.ConstructorError(
                problem="a value looks like a number or a date and is none; put it in quotes",
                problem_mark=node.start_mark,
            ) from None

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
    """Parse YAML text into plain values. Raises ValueError with a one-line message.

    The message holds nothing of the text but punctuation and keys, since what cannot be parsed may be a password.
    """
    try:
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - it is a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = error.problem or error.context or ""
        if not isinstance(error, yaml.constructor.ConstructorError):  # those are ours
            problem = _QUOTED.sub(lambda found: found[0] if _HARMLESS.fullmatch(found[0]) else "...", problem)
        raise ValueError(f"not valid YAML{line}: {problem}") from None
    except RecursionError:
        raise ValueError("not valid YAML: nested too deeply") from None
    except yaml.reader.ReaderError as error:
        raise ValueError(f"not valid YAML: character {error.position + 1} is one that YAML does not allow") from None
    except (yaml.YAMLError, ValueError, OverflowError):
        raise ValueError("not valid YAML") from None


def read_yaml(path: Path, problems: list[str]) -> dict[str, Any]:
    """The mapping in a YAML file; an empty one after adding what is wrong with the file to `problems`."""
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


def decode(
    kind: type[T],
    data: Mapping[Any, Any],
    where: str,
    problems: list[str],
    prefix: str = "",
    environ: Mapping[str, str] | None = None,
) -> T | None:
    """Decode `data` into a `kind`, a msgspec struct or dataclass; None after adding what is wrong to `problems`.

    A problem reads `{where}: {prefix}{key}: what is wrong`, with a prefix such as `plugins.options.loudness.`.
    `environ` has the variables that are the defaults of `FromEnvironment` fields.
    """
    hints = get_type_hints(kind, include_extras=True)
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


def describe_type(value: object) -> str:
    """The type of a YAML value, in words."""
    names = {dict: "a mapping", list: "a list", bool: "true or false", int: "a number", float: "a number"}
    if value is None:
        return "nothing"
    return "text" if isinstance(value, str) else names.get(type(value), "something else")


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
    message = re.sub(r"`", "", message).replace("Expected", "expected", 1)
    if _origin(value):  # perhaps a secret, in the wrong variable
        message = re.sub(r"(?<=Invalid enum value) .*", "", message, flags=re.DOTALL)
    problems.append(f"{where}{place.rstrip('`')}: {message}{_origin(value)}.")
    return None


def _is_secret(kind: Any) -> bool:
    """Whether a field of this type holds a Secret itself: `Secret`, `Secret | None`, or one of these, annotated."""
    if get_origin(kind) in (Annotated, UnionType):
        return any(_is_secret(one) for one in get_args(kind))
    return kind is Secret


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
