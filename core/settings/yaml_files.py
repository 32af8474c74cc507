"""Read files of settings: a strict YAML, of which no message repeats a value, since that may be a secret."""

import os
import re
import stat
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

MAX_FILE_BYTES = 1_000_000
"""More than any configuration or persona needs. It keeps a wrong file from filling the memory."""

_QUOTED = re.compile(r"""'[^']*'|"[^"]*\"""")
_HARMLESS = re.compile(r"""['"](\W|<[a-z ]+>)['"]""")
"""What PyYAML may quote in its messages: a single punctuation mark, and its token names, such as `<block end>`."""


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


def read_file(path: Path) -> bytes:
    """The content of a settings file. Raises OSError, or ValueError for what is no file of settings.

    A pipe or a device is refused, since reading one may never end.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("not a regular file, but a folder, pipe or device. Save the settings as a file")
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"larger than {MAX_FILE_BYTES} bytes; this cannot be right")
    return content


def read_yaml(path: Path, problems: list[str]) -> dict[str, Any]:
    """The mapping in a YAML file; an empty one after adding what is wrong with the file to `problems`."""
    try:
        data = parse_yaml(read_file(path).decode("utf-8-sig"))
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


def describe_type(value: object) -> str:
    """The type of a YAML value, in words."""
    names = {dict: "a mapping", list: "a list", bool: "true or false", int: "a number", float: "a number"}
    if value is None:
        return "nothing"
    return "text" if isinstance(value, str) else names.get(type(value), "something else")
