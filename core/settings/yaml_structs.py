"""From YAML and environment text to typed structs, with every problem named at once.

`msgspec` checks one value and stops at the first problem; people would rather see them all. So structs are taken apart
here, field by field, and every problem is one sentence with its file and key.
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
"""More than any configuration or persona needs; keeps a wrong file from filling the memory."""

T = TypeVar("T")
MISSING = object()
_VARIABLE = r"\$\{[A-Za-z_][^}]*\}|\$[A-Z_][A-Z0-9_]*"
"""Text that a shell would replace, and that nobody here does."""
_QUOTED = re.compile(r"""'[^']*'|"[^"]*\"""")
_HARMLESS = re.compile(r"""['"](\W|<[a-z ]+>)['"]""")
"""What PyYAML may quote in its messages: a single sign, and the names of its own tokens, such as `<block end>`."""


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
    """Text from the environment variable `variable`. Hidden in `repr`, since such text is often a secret.

    Without line ends at its end: a variable that was made from a file has one that nobody meant.
    """

    variable: str

    def __new__(cls, text: str, variable: str) -> "EnvironmentText":
        self = super().__new__(cls, text.rstrip("\r\n"))
        self.variable = variable
        return self

    def __repr__(self) -> str:
        return f"<text of {self.variable}>"


class _Loader(yaml.SafeLoader):
    """Plain YAML without aliases (a few lines of them can stand for gigabytes), anchors, tags, and keys given twice."""

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
    """YAML text as plain values. Raises ValueError with a one-line message, in which nothing of the text stands but
    punctuation and the names of keys: what cannot be read may be a password."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - _Loader is a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = error.problem or error.context or ""
        if not isinstance(error, yaml.constructor.ConstructorError):  # those are _Loader's own
            problem = _QUOTED.sub(lambda found: found[0] if _HARMLESS.fullmatch(found[0]) else "...", problem)
        raise ValueError(f"not valid YAML{line}: {problem}") from None
    except RecursionError:
        raise ValueError("not valid YAML: nested too deeply") from None
    except yaml.reader.ReaderError as error:
        raise ValueError(f"not valid YAML: character {error.position + 1} is one that YAML does not allow") from None
    except (yaml.YAMLError, ValueError, OverflowError):
        raise ValueError("not valid YAML") from None


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


def decode(
    kind: type[T],
    data: Mapping[Any, Any],
    where: str,
    problems: list[str],
    prefix: str = "",
    environ: Mapping[str, str] | None = None,
) -> T | None:
    """Make a `kind` (msgspec struct or dataclass) of `data`, or None when something was wrong.

    Problems read `{where}: {key}: what is wrong`. `prefix` is put before each key, such as `plugins.options.loudness.`.
    `environ` has the variables that are the defaults of `FromEnvironment` fields.
    """
    hints = get_type_hints(kind, include_extras=True)
    data = {**_defaults(hints, environ or {}), **data}
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
            found: Any = decode(field, value, where, problems, f"{prefix}{key}.", environ)
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


def _defaults(hints: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, EnvironmentText]:
    """The values that the environment gives for fields whose default is a variable."""
    return {
        name: EnvironmentText(environ[source.variable], source.variable)
        for name, hint in hints.items()
        for source in getattr(hint, "__metadata__", ())
        if isinstance(source, FromEnvironment) and source.variable in environ
    }


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
    if value == "" and _EMPTY_IS_NONE in getattr(kind, "__metadata__", ()):
        return None
    try:
        return _checked(value, kind)
    except msgspec.ValidationError as error:
        problem = error
    # Such as `9000` or `[NATF2, VARF0]`, where no text is wanted.
    if isinstance(value, EnvironmentText) and value and not _is_secret(kind):
        try:
            return _checked(parse_yaml(value), kind)
        except msgspec.ValidationError as error:
            problem = error
        except ValueError as error:
            problems.append(f"{where}: {error}{_from(value)}.")
            return None
    message, _, place = str(problem).partition(" - at `$")
    message = re.sub(r"`", "", message).replace("Expected", "expected", 1)
    if _from(value):  # perhaps a secret, in the wrong variable
        message = re.sub(r"(?<=Invalid enum value) .*", "", message, flags=re.DOTALL)
    problems.append(f"{where}{place.rstrip('`')}: {message}{_from(value)}.")
    return None


def _is_secret(kind: Any) -> bool:
    """Whether a field of this type holds a Secret itself: `Secret`, `Secret | None`, or one of these, annotated."""
    if get_origin(kind) in (Annotated, UnionType):
        return any(_is_secret(one) for one in get_args(kind))
    return kind is Secret


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
    from_environment = isinstance(value, EnvironmentText)
    if re.fullmatch(_VARIABLE, value, 0 if from_environment else re.IGNORECASE):
        if from_environment:
            raise ValueError("the variable holds the name of another, which nobody has replaced; set it to the text")
        raise ValueError(
            "$NAME is not replaced here; write {env: NAME} to take an environment variable, also for text that begins "
            "with $"
        )
    return Secret(str(value))


def _from(value: object) -> str:
    """Where a value comes from, when that is not the file."""
    if isinstance(value, dict):
        return next((source for item in value.values() if (source := _from(item))), "")
    return f" (from the environment variable {value.variable})" if isinstance(value, EnvironmentText) else ""
