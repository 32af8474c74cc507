"""Facts and tools from a language model of yours: it reads what both sides say, and the agent says what it answers.

Off until it has a model. In config.yaml:

    plugins:
      options:
        transcribe: {model: base}           # it must know what the caller says
        delegate:
          base_url: http://localhost:11434/v1
          model: qwen3
          tools: tools.py                   # Python functions that the model may call

Whatever speaks OpenAI's chat completions will do. Needs the package openai: the extra `delegate`.
"""

import asyncio
import contextlib
import importlib.util
import inspect
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NotRequired, get_type_hints

import msgspec

from core import (
    CallerText,
    Config,
    ConfigError,
    ControlError,
    FromEnvironment,
    PluginError,
    Secret,
    SessionControl,
    SessionEnded,
    SessionInfo,
    get_logger,
    hookimpl,
)

INSTALL = "uv sync --extra delegate, or: pip install 'personaplex-modal[delegate]'"
INSTRUCTIONS = """\
You help a voice agent on the telephone. It talks well by itself but knows no facts and can do nothing. You read what
was said and decide what the agent says next. Where the caller asks for a fact or wants something done that you or your
tools can answer, reply with what the agent shall say: one or two short sentences as they are spoken, without lists,
markup or quotation marks. In every other case, such as small talk, reply with the single word NOTHING."""
NOTHING = "nothing"
LONGEST_TRANSCRIPT = 8000
"""Characters of what was said that the model reads; the latest count."""
LONGEST_SENTENCE = 1000
"""Characters that an agent can be given to say at once."""
LONGEST_RESULT = 8000
"""Characters of what a tool returns that the model reads."""
MOST_THREADS = 32
"""Tools that may run at once, over all calls, those that hang included."""


class Plugin:
    """Asks the model in each session."""

    class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        """The plugin's block in config.yaml. Without a model the plugin is off."""

        model: str = ""
        base_url: str = "https://api.openai.com/v1"
        api_key: Annotated[Secret | None, FromEnvironment("OPENAI_API_KEY")] = None
        instructions: str = ""
        """What the model is told to do, before the persona and what was said, in place of INSTRUCTIONS."""
        tools: str = ""
        """A Python file beside config.yaml, whose public functions the model may call."""
        timeout_s: Annotated[float, msgspec.Meta(gt=0, le=120)] = 15.0
        """The longest time for an answer, tools included."""
        max_rounds: Annotated[int, msgspec.Meta(ge=0, le=20)] = 4
        """How often the model may call tools for one answer."""

        def __post_init__(self) -> None:
            if not self.base_url.startswith(("http://", "https://")):
                raise ValueError("base_url must begin with http:// or https://.")

    def __init__(self, options: Options) -> None:
        self.enabled = bool(options.model)
        self._options = options
        self._model: Model | None = None
        if self.enabled and importlib.util.find_spec("openai") is None:
            raise PluginError(f"needs the package openai. Install it with: {INSTALL}.")

    @hookimpl
    async def startup(self, config: Config) -> None:
        tools: Mapping[str, Tool] = {}
        if self._options.tools:
            path = Path(config.source).parent / self._options.tools
            tools = await asyncio.to_thread(read_tools, path)
        self._model = Model(self._options, tools)

    @hookimpl
    async def shutdown(self) -> None:
        if self._model is not None:
            await self._model.client.close()

    @hookimpl
    def problems(self) -> list[str]:
        return [self._model.problem] if self._model and self._model.problem else []

    @hookimpl
    def open_session(self, control: SessionControl) -> "Delegate | None":
        return Delegate(self._model, control) if self._model else None


class Delegate:
    """Asks the model in one session, when the caller has finished a turn."""

    def __init__(self, model: "Model", control: SessionControl) -> None:
        self._model, self._control = model, control
        self._asking: asyncio.Task[None] | None = None

    async def caller_text(self, text: CallerText) -> None:  # noqa: ARG002 - the transcript has it
        """The caller has said something. A question that is on its way is out of date, and is asked anew."""
        self._cancel()
        self._asking = asyncio.create_task(self._ask(), name=f"delegate {self._control.info.id}")

    async def message(self, type: str, data: Mapping[str, Any]) -> None:
        """A client that knows its caller's words sends `delegate.caller_said` with `text`, `start_ms`, `end_ms`."""
        if type == "caller_said":
            with contextlib.suppress(ControlError):  # a client's mistake costs no more than its words
                self._control.caller_said(data.get("text", ""), data.get("start_ms", 0), data.get("end_ms", 0))

    async def close(self, ended: SessionEnded) -> None:  # noqa: ARG002 - the hook's signature
        """The session is over."""
        self._cancel()

    def _cancel(self) -> None:
        if self._asking is not None:
            self._asking.cancel()

    async def _ask(self) -> None:
        control = self._control
        lines = [f"{line.side.capitalize()}: {line.text}" for line in control.transcript]
        answer = await self._model.answer(control.info, control.persona.prompt, "\n".join(lines))
        if answer:
            with contextlib.suppress(ControlError):  # the call has ended meanwhile
                control.say(answer, interrupt=True)


class Model:
    """The language model and its tools, for all sessions. `problem` says why it did not answer last, or ""."""

    def __init__(self, options: Plugin.Options, tools: "Mapping[str, Tool]") -> None:
        from openai import AsyncOpenAI  # an extra: only who uses it needs it

        key = options.api_key.reveal() if options.api_key else "none"  # what a server without keys ignores
        self.client = AsyncOpenAI(api_key=key, base_url=options.base_url, timeout=options.timeout_s, max_retries=1)
        self.problem = ""
        self._options, self._tools = options, tools
        self._threads = threading.BoundedSemaphore(MOST_THREADS)
        self._log = get_logger("delegate")

    async def answer(self, session: SessionInfo, prompt: str, transcript: str) -> str:
        """What the agent shall say now; "" is nothing, also where the model fails, which the log says."""
        try:
            async with asyncio.timeout(self._options.timeout_s):
                answer = await self._converse(session, prompt, transcript[-LONGEST_TRANSCRIPT:])
        except (
            Exception
        ) as error:  # whatever a server may send: its text may hold words and secrets, so its type counts
            reason = f"status {error.status_code}" if hasattr(error, "status_code") else type(error).__name__
            self.problem = f"The language model of the plugin delegate does not answer: {reason}."
            self._log.warning("the language model does not answer", session=session.id, reason=reason)
            return ""
        self.problem = ""
        return sentence(answer)

    async def _converse(self, session: SessionInfo, prompt: str, transcript: str) -> str:
        system = f"{self._options.instructions or INSTRUCTIONS}\n\nThe agent's part:\n{prompt}"
        messages: list[Any] = [{"role": "system", "content": system}, {"role": "user", "content": transcript}]
        offer: dict[str, Any] = {"tools": [tool.schema for tool in self._tools.values()]} if self._tools else {}
        for _ in range(self._options.max_rounds + 1):
            completion = await self.client.chat.completions.create(
                model=self._options.model, messages=messages, **offer
            )
            message = completion.choices[0].message
            if not message.tool_calls:
                return message.content or ""
            messages.append(message.model_dump(exclude_none=True))
            results = await asyncio.gather(*(self._use(call.function, session) for call in message.tool_calls))
            messages.extend(
                {"role": "tool", "tool_call_id": call.id, "content": result}
                for call, result in zip(message.tool_calls, results, strict=True)
            )
        self._log.warning("the language model calls tools without end", session=session.id)
        return ""

    async def _use(self, call: Any, session: SessionInfo) -> str:
        """What a tool returns, as text; where it fails, that it did."""
        tool = self._tools.get(call.name)
        if tool is None:
            return f"There is no tool {call.name}."
        try:
            arguments = tool.arguments(call.arguments, session)
        except ValueError as error:  # pydantic's own says which argument is wrong
            return f"The arguments are wrong: {error}"
        try:
            result = await (tool.function(**arguments) if tool.is_async else self._in_thread(tool.function, arguments))
            text = result if isinstance(result, str) else msgspec.json.encode(result).decode()
        except Exception as error:  # the operator's own code: its text may hold secrets, its type does not
            self._log.warning("a tool failed", session=session.id, tool=call.name, error=type(error).__name__)
            return "The tool failed."
        return text[:LONGEST_RESULT]

    async def _in_thread(self, function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
        """Run a tool that may block, in a thread that nobody waits for: one that hangs lets the service end."""
        if not self._threads.acquire(blocking=False):
            raise RuntimeError(f"{MOST_THREADS} tools are running")
        future: Future[Any] = Future()

        def run() -> None:
            try:
                future.set_result(function(**arguments))
            except BaseException as error:  # the future hands it on
                future.set_exception(error)
            finally:
                self._threads.release()

        threading.Thread(target=run, name="delegate tool", daemon=True).start()
        return await asyncio.wrap_future(future)


@dataclass(frozen=True)
class Tool:
    """A function that the model may call."""

    function: Callable[..., Any]
    adapter: Any
    """Pydantic's, for its arguments."""
    session_argument: str
    """The parameter that takes the session, which the model neither sees nor chooses; "" where there is none."""
    schema: Mapping[str, Any]
    """As the API wants it."""

    @property
    def is_async(self) -> bool:
        """Whether it is awaited; else it runs in a thread."""
        return inspect.iscoroutinefunction(self.function)

    def arguments(self, text: str, session: SessionInfo) -> dict[str, Any]:
        """Its arguments from JSON. Raises ValueError where they do not fit."""
        given: dict[str, Any] = self.adapter.validate_json(text or "{}")
        return given | ({self.session_argument: session} if self.session_argument else {})


def sentence(answer: str) -> str:
    """What the agent can say of an answer: one line, whole sentences as far as they fit; "" for NOTHING."""
    text = " ".join(answer.split()).strip('"')
    if text.casefold().strip(" .!'*") in ("", NOTHING):
        return ""
    if len(text) <= LONGEST_SENTENCE:
        return text
    ends = [text.rfind(sign, 0, LONGEST_SENTENCE) for sign in (". ", "! ", "? ")]
    return text[: max(ends) + 1 or LONGEST_SENTENCE]


def read_tools(path: Path) -> dict[str, Tool]:
    """The public functions of a Python file, by name. Raises ConfigError naming file and function. Runs the file."""
    place = f"plugins.options.delegate.tools: {path}"
    name = "personaplex_delegate_tools"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigError([f"{place}: there is no such Python file."])
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # where type hints are looked up
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a file may raise
        raise ConfigError([f"{place}: cannot be loaded: {type(error).__name__}: {error}."]) from error
    tools, problems = {}, []
    for name, function in vars(module).items():
        if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_"):
            try:
                tools[name] = read_tool(name, function)
            except ValueError as error:
                problems.append(f"{place}: {name}: {error}")
    if problems or not tools:
        raise ConfigError(problems or [f"{place}: has no public function."])
    return tools


def read_tool(name: str, function: Callable[..., Any]) -> Tool:
    """A function as a tool: its docstring says what it is for, its type hints what it takes. Raises ValueError."""
    from pydantic import TypeAdapter, with_config  # come with openai
    from typing_extensions import TypedDict  # the one that pydantic takes on every Python

    description = inspect.getdoc(function)
    if not description:
        raise ValueError("needs a docstring, which tells the model what it is for.")
    try:
        hints = get_type_hints(function, include_extras=True)
    except Exception as error:  # a type hint may be any expression
        raise ValueError(f"has a type hint that is none: {error}.") from None
    fields: dict[str, Any] = {}
    session = ""
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ValueError(f"{parameter} cannot be given by name. Take it away.")
        if parameter.name not in hints:
            raise ValueError(f"{parameter.name} needs a type, such as `{parameter.name}: str`.")
        hint = hints[parameter.name]
        if hint is SessionInfo:
            session = parameter.name
        else:
            fields[parameter.name] = hint if parameter.default is parameter.empty else NotRequired[hint]
    try:
        kind: Any = TypedDict("Arguments", fields)  # type: ignore[misc] # its fields are known at run time alone
        adapter = TypeAdapter(with_config({"extra": "forbid"})(kind))
        parameters = adapter.json_schema()
    except Exception as error:  # pydantic has many kinds for types without a schema
        raise ValueError(f"takes what JSON does not have: {type(error).__name__}.") from None
    about = {"name": name, "description": description, "parameters": parameters}
    return Tool(function, adapter, session, {"type": "function", "function": about})
