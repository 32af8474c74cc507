"""A language model reads along, and the agent says what it answers; whatever the model does, the call goes on."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.responses import HTMLResponse, JSONResponse, Response

from core.errors import ConfigError, PluginError
from core.events import Identity, SessionInfo
from core.session.protocol import Kind
from plugins import delegate
from plugins.delegate import read_tools, sentence
from tests.caller import Caller, dial, get, is_fine
from tests.chat_completions import ChatCompletions, calls, says, serve_chat_completions
from tests.conftest import Running, Serve
from tests.documents import doc
from tests.plugin_folder import Folder
from tests.test_builtin_plugins import Logged, logged  # noqa: F401 - a fixture

KEY = "sk-very-secret-key"
QUESTION = "What does the purple soup cost?"
SESSION = SessionInfo("s1", Identity("ann"), "teacher", "NATF2", "/ws/chat", "127.0.0.1", "opus")
TOOLS = '''
"""Tools."""
import json as _json
import threading
from typing import Literal

from core import SessionInfo

HANGING = threading.Event()

def price(dish: Literal["soup", "pasta"], people: int = 1) -> dict:
    """What a dish costs."""
    return {"dollars": 6 * people, "thread": threading.current_thread().name}

async def whose(session: SessionInfo) -> str:
    """Who is calling."""
    return f"{session.identity.name} as {session.persona}"

def fail() -> None:
    """Always fails."""
    raise RuntimeError("the password is hunter2")

def strange() -> object:
    """Returns what JSON has not."""
    return object()

def hang() -> None:
    """Never returns."""
    HANGING.wait()

def _hidden() -> None: ...
'''


@pytest.fixture
async def model() -> AsyncIterator[ChatCompletions]:
    async with serve_chat_completions() as serving:
        yield serving


def on(model: ChatCompletions, **options: Any) -> dict[str, Any]:
    options = {"model": "test", "base_url": model.base_url, "api_key": KEY, **options}
    return {"plugins": {"disabled": ["loudness"], "options": {"delegate": options}}}


@asynccontextmanager
async def calling(running: Running) -> AsyncIterator[Caller]:
    async with dial(running.url("/ws/chat?audio=pcm"), "pcm") as caller:
        yield await caller.shake_hands()


async def say(caller: Caller, text: object, start_ms: object = 0, end_ms: object = 900) -> None:
    """The caller's client has understood what its caller says."""
    message = {"type": "delegate.caller_said", "text": text, "start_ms": start_ms, "end_ms": end_ms}
    await caller.socket.send(bytes([Kind.METADATA]) + json.dumps(message).encode())


async def hear(caller: Caller, sentence: str) -> str:
    """Listen until the agent has said this; all that it has said."""
    for _ in range(500):
        if sentence in "".join(caller.words):
            return "".join(caller.words)
        await caller.talk(np.zeros(1920, np.float32))
        await asyncio.sleep(0.01)
    raise AssertionError("".join(caller.words))


async def asked(model: ChatCompletions) -> dict[str, Any]:
    """The next request that the model gets."""
    async with asyncio.timeout(10):
        return await model.asked.get()


async def problems(running: Running) -> list[str]:
    """What `/health` says is wrong."""
    health = json.loads((await get(running, "/health"))[2])
    return [problem for problem in health.get("details", []) if "delegate" in problem]


async def test_the_agent_says_what_the_model_answers(serve: Serve, model: ChatCompletions) -> None:
    model.answers.append(says('"It costs six\n dollars."'))
    running = await serve(**on(model, instructions="Help the agent."))
    async with calling(running) as caller:
        await caller.talk(np.zeros(6 * 1920, np.float32))
        await say(caller, QUESTION)
        await hear(caller, "It costs six dollars.")
        told = await caller_text(caller)
    request = await asked(model)
    assert request["model"] == "test"
    assert "tools" not in request
    assert request["headers"]["authorization"] == f"Bearer {KEY}"
    system, transcript = request["messages"]
    assert system == {"role": "system", "content": "Help the agent.\n\nThe agent's part:\nYou are helpful."}
    assert transcript["role"] == "user"
    assert sorted(transcript["content"].splitlines()) == ["Agent: word0 word1", f"Caller: {QUESTION}"]
    assert told["text"] == QUESTION
    assert not await problems(running)


async def caller_text(caller: Caller) -> dict[str, Any]:
    """The caller's words as the service has told them to the client."""
    (told,) = [message for message in caller.metadata if message["type"] == "caller_text"]
    return told


@pytest.mark.parametrize("nothing", ["NOTHING", "Nothing.", '"nothing"', "", None])
async def test_nothing_is_nothing(serve: Serve, model: ChatCompletions, nothing: str | None) -> None:
    model.answers.extend([says(nothing), says("Yes.")])
    async with calling(await serve(**on(model))) as caller:
        await say(caller, "Nice weather.")
        await asked(model)
        await say(caller, "Is it nice?")
        words = await hear(caller, "Yes.")
    assert all(re.fullmatch(r"word\d+|Yes\.", word) for word in words.split()), words


async def test_the_model_may_call_tools(serve: Serve, tmp_path: Path, model: ChatCompletions) -> None:
    (tmp_path / "tools.py").write_text(TOOLS)
    model.answers.extend(
        [
            calls(("price", '{"dish": "soup", "people": 2}'), ("whose", ""), ("fail", "{}"), ("strange", "{}")),
            calls(
                ("price", '{"dish": "cake"}'),
                ("price", '{"dish": "soup", "tip": 1}'),
                ("price", "{"),
                ("_hidden", "{}"),
            ),
            says("Twelve dollars."),
        ]
    )
    running = await serve(**on(model, tools="tools.py"))
    async with calling(running) as caller:
        await say(caller, QUESTION)
        await hear(caller, "Twelve dollars.")
    first, second, third = [await asked(model) for _ in range(3)]
    offered = {tool["function"]["name"]: tool["function"] for tool in first["tools"]}
    assert set(offered) == {"price", "whose", "fail", "strange", "hang"}
    assert offered["price"]["description"] == "What a dish costs."
    parameters = offered["price"]["parameters"]
    assert parameters["properties"]["dish"]["enum"] == ["soup", "pasta"]
    assert parameters["properties"]["people"]["type"] == "integer"
    assert parameters["required"] == ["dish"]
    assert parameters["additionalProperties"] is False
    assert offered["whose"]["parameters"]["properties"] == {}
    results = [message["content"] for message in second["messages"] if message["role"] == "tool"]
    assert json.loads(results[0]) == {"dollars": 12, "thread": "delegate tool"}
    assert results[1:] == ["anonymous as assistant", "The tool failed.", "The tool failed."]
    assert [message["tool_call_id"] for message in second["messages"][3:]] == ["call0", "call1", "call2", "call3"]
    wrong = [message["content"] for message in third["messages"] if message["role"] == "tool"][4:]
    assert "soup" in wrong[0]
    assert "tip" in wrong[1]
    assert "JSON" in wrong[2]
    assert wrong[3] == "There is no tool _hidden."


async def test_tools_without_end_come_to_an_end(
    serve: Serve,
    tmp_path: Path,
    model: ChatCompletions,
    logged: Logged,  # noqa: F811
) -> None:
    (tmp_path / "tools.py").write_text(TOOLS)
    model.answers.extend([calls(("whose", "{}"))] * 3 + [says("Done.")])
    async with calling(await serve(**on(model, tools="tools.py", max_rounds=2))) as caller:
        await say(caller, QUESTION)
        for _ in range(3):
            await asked(model)
        while not any("without end" in line["event"] for line in logged()):
            await caller.talk(np.zeros(1920, np.float32))
        await say(caller, "And now?")
        await hear(caller, "Done.")


async def test_what_the_caller_adds_makes_the_question_out_of_date(serve: Serve, model: ChatCompletions) -> None:
    model.answers.extend([model.hang, says("Tea, then.")])
    async with calling(await serve(**on(model))) as caller:
        await say(caller, "Coffee, please.", 0, 900)
        await asked(model)
        await say(caller, "No, tea.", 1500, 2000)
        await hear(caller, "Tea, then.")
        async with asyncio.timeout(10):
            await model.given_up.get()
        latest = await asked(model)
    callers = [line for line in latest["messages"][1]["content"].splitlines() if line.startswith("Caller")]
    assert callers == ["Caller: Coffee, please.", "Caller: No, tea."]


async def test_a_call_that_ends_lets_the_question_go(serve: Serve, model: ChatCompletions) -> None:
    model.answers.append(model.hang)
    running = await serve(**on(model))
    async with calling(running) as caller:
        await say(caller, QUESTION)
        await asked(model)
    async with asyncio.timeout(10):
        await model.given_up.get()
    await is_fine(running)


async def test_a_model_or_a_tool_that_hangs_costs_its_answer(
    serve: Serve, tmp_path: Path, model: ChatCompletions
) -> None:
    (tmp_path / "tools.py").write_text(TOOLS)
    model.answers.extend([model.hang, calls(("hang", "{}")), says("Here I am.")])
    running = await serve(**on(model, tools="tools.py", timeout_s=0.5))
    async with calling(running) as caller:
        for question in ("One?", "Two?"):
            await say(caller, question)
            await asked(model)
            while await problems(running) != [
                "The language model of the plugin delegate does not answer: TimeoutError."
            ]:
                await caller.talk(np.zeros(1920, np.float32))
        await say(caller, "Three?")
        await hear(caller, "Here I am.")
        assert not await problems(running)


GARBAGE: Mapping[str, Response] = {
    "no JSON": Response(b"\xff\xfe{", media_type="application/json"),
    "a page": HTMLResponse(f"<h1>{QUESTION}</h1>"),
    "a list": JSONResponse([]),
    "no choices": JSONResponse({"choices": []}),
    "no message": JSONResponse({"choices": [{}]}),
    "no text": says(["a", {"b": 1}]),  # type: ignore[arg-type]
    "no arguments": says(None, tool_calls=[{"id": "c", "type": "function"}]),
    "refused": JSONResponse({"error": {"message": f"Wrong key {KEY}"}}, status_code=401),
    "control characters": says("\x00\x07"),
}


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_what_makes_no_sense_costs_its_answer_and_is_not_logged(
    serve: Serve,
    model: ChatCompletions,
    garbage: str,
    logged: Logged,  # noqa: F811
) -> None:
    model.answers.extend([GARBAGE[garbage], says("I am back.")])
    async with calling(await serve(**on(model))) as caller:
        await say(caller, QUESTION)
        await asked(model)
        await caller.talk(np.zeros(1920, np.float32))
        await say(caller, "Hello?")
        await hear(caller, "I am back.")
    for secret in (KEY, QUESTION, "purple", "You are helpful"):
        assert secret not in json.dumps(logged())


async def test_a_server_that_fails_is_asked_once_more(serve: Serve, model: ChatCompletions) -> None:
    model.answers.extend([Response(status_code=503), says("After all.")])
    async with calling(await serve(**on(model))) as caller:
        await say(caller, QUESTION)
        await hear(caller, "After all.")


async def test_a_server_that_is_not_there_costs_its_answers(serve: Serve, model: ChatCompletions) -> None:
    running = await serve(**on(model, base_url="http://127.0.0.1:9/v1"))
    async with calling(running) as caller:
        await say(caller, QUESTION)
        while await problems(running) != [
            "The language model of the plugin delegate does not answer: APIConnectionError."
        ]:
            await caller.talk(np.zeros(1920, np.float32))


@pytest.mark.parametrize("text", [None, 3, "", "x" * 5000])
async def test_a_client_that_tells_nonsense_is_not_believed(serve: Serve, model: ChatCompletions, text: object) -> None:
    model.answers.append(says("Fine."))
    async with calling(await serve(**on(model))) as caller:
        await say(caller, text)
        await say(caller, "Early.", 900, 0)
        await say(caller, "Never.", "now", [])
        await say(caller, "How are you?")
        await hear(caller, "Fine.")
    assert (await asked(model))["messages"][1]["content"].endswith("Caller: How are you?")
    assert model.asked.empty()


def test_an_answer_is_cut_to_what_can_be_said() -> None:
    assert sentence("Yes.  It\nis.") == "Yes. It is."
    long = "A sentence of words. " * 80
    assert sentence(long) == ("A sentence of words. " * 47).strip()
    assert len(sentence("x" * 3000)) == 1000


# What an operator may get wrong.

WRONG_TOOLS = {
    "": "has no public function",
    "import os\nfrom json import dumps\ndef _f(): ...": "has no public function",
    "def f(": "cannot be loaded: SyntaxError",
    "1 / 0": "cannot be loaded: ZeroDivisionError",
    "def f(a: str): ...": "f: needs a docstring",
    "def f(a):\n '''Does.'''": "f: a needs a type",
    "def f(*a: str):\n '''Does.'''": "f: *a: str cannot be given by name",
    "def f(a: 'Nowhere'):\n '''Does.'''": "f: has a type hint that is none",
    "import threading\ndef f(a: threading.Event):\n '''Does.'''": "f: takes what JSON does not have",
}


@pytest.mark.parametrize("source", WRONG_TOOLS)
async def test_tools_that_are_wrong_stop_the_start_with_their_names(tmp_path: Path, source: str) -> None:
    (tmp_path / "tools.py").write_text(source)
    folder = Folder(tmp_path)
    with pytest.raises(ConfigError, match=r"plugins.options.delegate.tools: .*tools.py: ") as caught:
        await folder.started("plugins: {options: {delegate: {model: m, tools: tools.py}}}")
    assert WRONG_TOOLS[source] in str(caught.value)


async def test_tools_that_are_not_there_stop_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such Python file"):
        await Folder(tmp_path).started("plugins: {options: {delegate: {model: m, tools: nowhere.py}}}")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("modl: m", "modl: unknown key. Did you mean 'model'?"),
        ("model: m, base_url: localhost", "base_url must begin with http:// or https://"),
        ("model: m, timeout_s: 0", "timeout_s: expected float > 0"),
        ("model: m, max_rounds: 99", "max_rounds: expected int <= 20"),
        ("model: m, api_key: ''", "api_key: expected text, but it is empty"),
    ],
)
def test_options_that_are_wrong_are_named(tmp_path: Path, options: str, problem: str) -> None:
    found = Folder(tmp_path).problems(f"plugins: {{options: {{delegate: {{{options}}}}}}}")
    assert "plugins.options.delegate" in found
    assert problem in found


def test_who_lacks_the_package_is_told_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(PluginError, match="uv sync --extra delegate, or: pip install"):
        delegate.Plugin(delegate.Plugin.Options(model="m"))
    assert not delegate.Plugin(delegate.Plugin.Options()).enabled


def test_the_tools_of_the_recipe_are_tools(tmp_path: Path) -> None:
    (source,) = re.findall(r"```python\n(.*?)```", doc("recipes/delegate"), re.DOTALL)
    (tmp_path / "tools.py").write_text(source)
    tools = read_tools(tmp_path / "tools.py")
    assert tools["price"].function(**tools["price"].arguments('{"dish": "soup"}', SESSION)) == "6 dollars"
    booking = tools["book"].arguments('{"guests": 2, "time": "7 pm"}', SESSION)
    assert asyncio.run(tools["book"].function(**booking)) == {"booked for": "ann", "at": "7 pm"}
