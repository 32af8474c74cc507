"""Each hook, and what a plugin that fails can do to others (nothing)."""

import base64
import re
import secrets
from pathlib import Path

import numpy as np
import pytest
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.routing import Route

from core.engine.prompt import Voice
from core.errors import PersonaError, PluginError, VoiceError
from core.events import CallRefused, FirstAudio, HandlerFailed, Identity, PluginFailed, SessionEnded, SessionInfo
from core.plugin import hookspecs
from core.plugin.logins import Login
from core.plugin.personas import Persona
from tests.caller import refused
from tests.conftest import Serve
from tests.documents import codes, doc, rows, section
from tests.plugin_folder import Folder

HOOKS = [name for name, value in vars(hookspecs).items() if hasattr(value, "personaplex_spec")]
NOTE = "def note(path, text):\n  with open(path, 'a') as file:\n    file.write(text)\n"
CALLER = Identity("caller")
SESSION = SessionInfo("s1", CALLER, "teacher", "NATF2", "/ws/chat", "127.0.0.1", "opus")
CONNECTION = HTTPConnection({"type": "http", "headers": []})
FRAME = np.full(1920, 0.25, np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_every_hook_is_documented_with_its_exact_signature() -> None:
    signatures = {}
    for name in HOOKS:
        function = getattr(hookspecs, name)
        arguments = ", ".join(function.__code__.co_varnames[: function.__code__.co_argcount])
        signatures[f"{name}({arguments})"] = "yes" if "Awaitable" in str(function.__annotations__["return"]) else "no"
    assert {codes(hook)[0]: is_async for hook, _, is_async, _ in rows(section(doc("plugins"), "Hooks"))} == signatures


def test_every_hook_has_a_test() -> None:
    tests = re.findall(r"def (test_hook_\w+)", Path(__file__).read_text())
    assert not [hook for hook in HOOKS if not any(test.startswith(f"test_hook_{hook}_") for test in tests)]


async def test_hook_startup_may_be_async_and_gets_what_it_names(folder: Folder) -> None:
    folder.plugin(
        "a",
        """
class Plugin:
    @hookimpl
    async def startup(self, engine, config): self.port = config.server.port
    @hookimpl
    def list_voices(self): return [f"p{self.port}"]
""",
    )
    host = await folder.started("server: {port: 7}")
    assert "p7" in await host.list_voices()


async def test_hook_startup_that_raises_stops_the_boot_and_names_the_plugin(folder: Folder) -> None:
    log = folder.path / "log"
    folder.plugin("ok", NOTE + f"@hookimpl\ndef shutdown(): note({str(log)!r}, 'ok down ')")
    folder.plugin(
        "zbad",
        NOTE + "@hookimpl\ndef startup(config): raise RuntimeError('no disk')\n"
        f"@hookimpl\ndef shutdown(): note({str(log)!r}, 'bad down')",
    )
    with pytest.raises(PluginError, match="plugin zbad: startup failed: RuntimeError: no disk"):
        await folder.started()
    assert log.read_text() == "ok down "


async def test_hook_shutdown_is_called_once_for_each_last_first_whatever_one_raises(folder: Folder) -> None:
    log = folder.path / "log"
    for name in "abc":
        source = f"@hookimpl\nasync def shutdown():\n  note({str(log)!r}, {name!r})\n  raise ValueError({name!r})"
        folder.plugin(name, NOTE + source)
    host = await folder.started()
    await host.shutdown()
    await host.shutdown()
    assert log.read_text() == "cba"


def test_hook_register_routes_serves_and_names_who_fails(folder: Folder) -> None:
    folder.plugin(
        "web",
        "from starlette.routing import Route\n@hookimpl\ndef register_routes(): return [Route('/x', lambda r: r)]",
    )
    route, *_ = folder.load().routes()
    assert isinstance(route, Route)
    assert route.path == "/x"
    for body in ("raise ValueError('x')", "return ['/x']", "return None"):
        folder.plugin("web", f"@hookimpl\ndef register_routes(): {body}")
        with pytest.raises(PluginError, match="plugin web"):
            folder.load().routes()


async def test_hook_authenticate_asks_one_after_another_and_denies_by_default(folder: Folder) -> None:
    assert (await folder.load().authentication.identify(CONNECTION)) == ("", Identity("anonymous"))
    folder.plugin("a", "@hookimpl\nasync def authenticate(connection): return None")
    host = folder.load()
    assert host.protected
    assert await host.authentication.identify(CONNECTION) is None
    folder.plugin("b", "@hookimpl\nasync def authenticate(connection): return Identity('b')")
    folder.plugin("c", "@hookimpl\ndef authenticate(connection): raise RuntimeError")
    assert await folder.load().authentication.identify(CONNECTION) == ("b", Identity("b"))


@pytest.mark.parametrize(
    "body", ["raise RuntimeError('pw')", "return True", "return 'admin'", "import sys; sys.exit()"]
)
async def test_hook_authenticate_that_fails_denies(folder: Folder, body: str, caplog: pytest.LogCaptureFixture) -> None:
    folder.plugin("a", f"@hookimpl\ndef authenticate(connection): {body}")
    folder.plugin("b", "@hookimpl\ndef authenticate(connection): return Identity('b')")
    assert await folder.load().authentication.identify(CONNECTION) is None
    assert "'plugin': 'a'" in caplog.text
    assert "pw" not in caplog.text


@pytest.mark.parametrize(
    ("body", "allowed"),
    [("return None", True), ("return True", True), ("return False", False), ("return 0", False), ("1/0", False)],
)
async def test_hook_authorize_refuses_by_false_and_by_failing(folder: Folder, body: str, allowed: bool) -> None:
    folder.plugin("a", f"@hookimpl\nasync def authorize(identity, persona): {body}")
    folder.plugin("b", "@hookimpl\ndef authorize(persona): return True")
    host = await folder.started()
    persona = await host.resolve_persona("assistant", CALLER)
    assert await host.authorize(CALLER, persona) is allowed
    assert bool(await host.list_personas(CALLER)) is allowed


MADE = "Persona({id!r}, 'Made', '', 'NATF2', 'You were made.')"


async def test_hook_list_personas_joins_all_plugins_each_id_once(folder: Folder) -> None:
    made = ", ".join(MADE.format(id=id) for id in ("zoe", "assistant"))
    folder.plugin("a", f"@hookimpl\nasync def list_personas(identity): return [{made}]")
    host = await folder.started("personas: {default: hotel}")
    personas = await host.list_personas(CALLER)
    assert [persona.id for persona in personas[:4]] == ["hotel", "zoe", "assistant", "astronaut"]
    assert personas[2].name == "Made"


async def test_hook_resolve_persona_takes_the_first_found(folder: Folder) -> None:
    folder.plugin(
        "a", f"@hookimpl\nasync def resolve_persona(name):\n  return {MADE.format(id='zoe')} if name == 'zoe' else None"
    )
    host = await folder.started("personas: {default: hotel}")
    assert (await host.resolve_persona("zoe", CALLER)).name == "Made"
    assert (await host.resolve_persona("bank", CALLER)).id == "bank"
    assert (await host.resolve_persona("", CALLER)).id == "hotel"
    for name in ("nobody", "../personas/bank", "bank.yaml", "x" * 10_000, "\x00", "Bank"):
        with pytest.raises(PersonaError, match="There is no persona") as caught:
            await host.resolve_persona(name, CALLER)
        assert len(str(caught.value)) < 400


async def test_hook_resolve_persona_with_a_voice_that_is_not_offered_is_an_error(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    folder.plugin("a", f"@hookimpl\ndef resolve_persona(): return {MADE.format(id='zoe')}")
    host = folder.load("voices: {allow: [NATM*]}\nplugins: {disabled: [yaml_personas]}")
    with pytest.raises(PersonaError, match="plugin a"):
        await host.resolve_persona("zoe", CALLER)
    assert "'NATF2' is not offered" in caplog.text
    assert "You were made" not in caplog.text


PERSONA = "Persona('zoe', 'Zoe', '', 'NATF2', 'You keep a secret.')"
WRONG_PERSONAS = {
    "prompt": ("replace(persona, prompt=7)", "prompt: expected str, got int"),
    "no prompt": ("replace(persona, prompt=None)", "prompt: expected str, got null"),
    "name": ("replace(persona, name=b'Zoe')", "name: expected str, got bytes"),
    "description": ("replace(persona, description=None)", "description: expected str, got null"),
    "voice": ("replace(persona, voice=None)", "voice: expected str, got null"),
    "id": ("replace(persona, id=None)", "id: expected str, got null"),
    "capital id": ("replace(persona, id='Zoe')", "id: 'Zoe' has"),
    "sampling": ("replace(persona, sampling={'temperature': 1})", "sampling: expected Sampling, got dict"),
    "no sampling": ("replace(persona, sampling=None)", "sampling: expected Sampling, got NoneType"),
    "half a sample": ("replace(persona, sampling=Sampling(top_k=2.5))", "sampling.top_k: expected int"),
    "half a character": ("replace(persona, name='Zoe' + chr(0xd800))", "name: holds half a character"),
    "another type": ("vars(persona)", "returned dict, not a Persona"),
}


@pytest.mark.parametrize("kind", WRONG_PERSONAS)
async def test_a_wrong_persona_is_left_out_and_its_field_is_named(
    folder: Folder, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    made, says = WRONG_PERSONAS[kind]
    folder.plugin(
        "cast",
        f"""
from dataclasses import replace
persona = {PERSONA}
@hookimpl
def list_personas(): return [{made}, replace(persona, id="fine")]
@hookimpl
def resolve_persona(name): return {made} if name == "zoe" else None
""",
    )
    host = await folder.started()
    personas = [persona.id for persona in await host.list_personas(CALLER)]
    assert "fine" in personas
    assert "zoe" not in personas
    with pytest.raises(PersonaError, match="the plugin cast failed"):
        await host.resolve_persona("zoe", CALLER)
    assert says in caplog.text
    assert "'plugin': 'cast'" in caplog.text
    assert "You keep a secret" not in caplog.text


async def test_a_caller_of_a_wrong_persona_gets_a_sentence(serve: Serve) -> None:
    class Cast:
        @hookspecs.hookimpl
        def resolve_persona(self, name: str) -> Persona | None:
            return Persona("zoe", "Zoe", "", "NATF2", 7) if name == "zoe" else None  # type: ignore[arg-type]

    running = await serve(extra=(Cast(),))
    said = "The persona 'zoe' cannot be used just now: the plugin Cast failed. The log says why."
    assert await refused(running, "/ws/chat?persona=zoe") == (404, said)


async def test_a_wrong_name_of_a_voice_costs_only_that_voice(folder: Folder) -> None:
    folder.plugin("a", "@hookimpl\ndef list_voices(): return ['mine', None, 7, 'yours']")
    assert {"mine", "yours"} <= set(await (await folder.started()).list_voices())


async def test_hook_list_voices_joins_all_plugins_and_the_subset_decides(folder: Folder) -> None:
    folder.plugin("a", "@hookimpl\nasync def list_voices(): return ['mine', 'NATF2', '../x', 'a b']")
    host = folder.load("voices: {allow: [mine, NATF2]}")
    assert await host.list_voices() == ["mine", "NATF2"]
    assert not {"../x", "a b"} & set(await folder.load().list_voices())


async def test_hook_load_voice_takes_the_first_found_and_only_what_is_offered(folder: Folder) -> None:
    folder.plugin(
        "a",
        """
import numpy
@hookimpl
def list_voices(): return ["mine", "broken", "none"]
@hookimpl
async def load_voice(name):
    if name == "broken": raise OSError("/secret/path")
    return None if name == "none" else Voice(name, codes=numpy.zeros((3, 8), numpy.int64))
""",
    )
    host = folder.load("voices: {allow: [mine, broken, none]}")
    assert isinstance(await host.load_voice("mine"), Voice)
    for name in ("NATF2", "../mine", "/etc/passwd", "", "mine.wav"):
        with pytest.raises(VoiceError, match="is not offered"):
            await host.load_voice(name)
    for name in ("broken", "none"):
        with pytest.raises(VoiceError, match="cannot be read just now") as caught:
            await host.load_voice(name)
        assert "/secret" not in str(caught.value)


def test_hook_transform_input_makes_a_chain_for_each_session(folder: Folder) -> None:
    folder.plugin(
        "count",
        """
class Count:
    def __init__(self): self.n = 0
    def process(self, frame):
        self.n += 1
        frame[:] = self.n
        return frame
@hookimpl
def transform_input(session): return Count() if session.persona == "teacher" else None
""",
    )
    host = folder.load()
    first, second = (host.input_chain(SESSION, folder.failures.append) for _ in range(2))
    assert [float(first.process(FRAME)[0]) for _ in range(3)] == [1, 2, 3]
    assert float(second.process(FRAME)[0]) == 1
    assert float(FRAME[0]) == 0.25


@pytest.mark.parametrize("body", ["raise ValueError('x')", "return 3", "return object()"])
def test_hook_transform_output_that_fails_is_left_out(folder: Folder, body: str) -> None:
    folder.plugin("bad", f"@hookimpl\ndef transform_output(session): {body}")
    chain = folder.load().output_chain(SESSION, folder.failures.append)
    assert chain.plugins == ("loudness",)
    assert [failure.plugin for failure in folder.failures] == ["bad"]


async def test_hook_open_session_makes_a_handler_for_each_session_whatever_one_raises(folder: Folder) -> None:
    log = folder.path / "log"
    folder.plugin("a", "@hookimpl\ndef open_session(control): raise ValueError('x')")
    folder.plugin("b", "@hookimpl\ndef open_session(control): return 7")
    folder.plugin("c", "@hookimpl\ndef open_session(control): return None")
    folder.plugin(
        "d",
        NOTE
        + f"""
class Handler:
    def __init__(self, control): self.control = control
    def event(self, event): note({str(log)!r}, f"{{self.control}} {{type(event).__name__}};")
    def close(self, ended): note({str(log)!r}, f"{{self.control}} {{ended.reason}};")
@hookimpl
def open_session(control): return Handler(control)
""",
    )
    failures: list[HandlerFailed] = []
    host = folder.load("plugins: {disabled: [openai_live]}")  # which would look into the control
    [handler] = host.open_session(lambda plugin: f"control of {plugin}", failures.append)  # type: ignore[arg-type, return-value]
    handler.put("event", FirstAudio(1))
    handler.put("agent_text", "nobody hears")
    handler.close(SessionEnded("left", 1000, 0, 0, 0, 0))
    handler.put("event", FirstAudio(2))
    await handler.closed()
    assert log.read_text() == "control of d FirstAudio;control of d left;"
    assert {failure.plugin for failure in failures} == {"a", "b"}


def test_hook_session_event_reaches_all_whatever_one_raises(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    log = folder.path / "log"
    folder.plugin("a", "@hookimpl\ndef session_event(session, event): raise ValueError('x')")
    folder.plugin("b", "async def late(): pass\n@hookimpl\ndef session_event(event): return late()")
    folder.plugin("c", NOTE + f"@hookimpl\ndef session_event(session, event): note({str(log)!r}, session.id)")
    host = folder.load()
    for _ in range(3):
        host.event(SESSION, FirstAudio(10))
    assert log.read_text() == "s1s1s1"
    assert caplog.text.count("'plugin': 'a'") == 1  # the first time; frames bring events twelve times a second
    assert caplog.text.count("'plugin': 'b'") == 1


def test_hook_service_event_reaches_all_and_tells_of_faults_without_end(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    log = folder.path / "log"
    folder.plugin("a", "@hookimpl\ndef service_event(event): raise ValueError('x')")
    folder.plugin("b", NOTE + f"@hookimpl\ndef service_event(event): note({str(log)!r}, repr(event) + chr(10))")
    host = folder.load()
    refusal = CallRefused("not_found", 404, "/ws/chat", "127.0.0.1")
    for _ in range(3):
        host.service_event(refusal)
    assert log.read_text() == f"{refusal!r}\n" * 3
    assert caplog.text.count("'plugin': 'a'") == 1


async def test_hook_service_event_tells_of_every_hook_that_raised_and_of_no_secret(folder: Folder) -> None:
    log = folder.path / "log"
    folder.plugin("ears", NOTE + f"@hookimpl\ndef service_event(event): note({str(log)!r}, repr(event) + chr(10))")
    folder.plugin("gate", "@hookimpl\ndef authenticate(connection): raise RuntimeError('the password')")
    folder.plugin("mute", "@hookimpl\ndef session_event(event): raise ValueError('x')")
    host = folder.load()
    assert await host.authentication.identify(CONNECTION) is None
    host.event(SESSION, FirstAudio(1))
    faults = [PluginFailed("gate", "authenticate", "RuntimeError"), PluginFailed("mute", "session_event", "ValueError")]
    assert log.read_text().splitlines() == [repr(fault) for fault in faults]


@pytest.mark.parametrize("hook", ["notices", "problems"])
def test_hook_notices_join_all_plugins_whatever_one_raises(
    folder: Folder, hook: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder.plugin("a", f"@hookimpl\ndef {hook}(): return ['One.', 'Two.']")
    folder.plugin("b", f"@hookimpl\ndef {hook}(): raise ValueError('x')")
    folder.plugin("c", f"@hookimpl\ndef {hook}(): return 'not a list'")
    folder.plugin("d", f"async def late(): return ['Late.']\n@hookimpl\ndef {hook}(): return late()")
    folder.plugin("e", f"@hookimpl\ndef {hook}(): return ['Three.']")
    assert getattr(folder.load(), hook)() == ["One.", "Two.", "Three."]
    assert [f"'plugin': '{name}'" in caplog.text for name in "abcde"] == [False, True, True, True, False]


def test_hook_problems_are_those_of_now(folder: Folder) -> None:
    folder.plugin(
        "disk",
        """
class Plugin:
    def __init__(self): self.full = True
    @hookimpl
    def problems(self):
        self.full = not self.full
        return ["The disk is full."] if self.full else []
""",
    )
    host = folder.load()
    assert [host.problems() for _ in range(3)] == [[], ["The disk is full."], []]


def test_hook_login_tells_every_way_whatever_others_answer(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    secret = "@hookimpl\ndef login_secret(name): pass\n"
    folder.plugin("a", secret + "@hookimpl\ndef login(): raise ValueError('x')")
    folder.plugin("b", secret + "@hookimpl\ndef login(): return '/login'")
    folder.plugin("c", secret + "@hookimpl\ndef login(): return None")
    assert folder.load().authentication.ways() == []
    folder.plugin("d", secret + "@hookimpl\ndef login(): return Login('password', '/login')")
    folder.plugin("e", secret + "@hookimpl\ndef login(): return Login('redirect', '/go', 'Go')")
    caplog.clear()
    authentication = folder.load().authentication
    for _ in range(3):
        assert authentication.ways() == [Login("password", "/login"), Login("redirect", "/go", "Go")]
    assert [caplog.text.count(f"'plugin': '{name}'") for name in "abcde"] == [1, 1, 0, 0, 0]


def made_up(plugin: str, name: str) -> bytes:
    """A cookie of somebody who has not logged in."""
    holder = base64.urlsafe_b64encode(f'["{plugin}", "{name}"]'.encode()).decode().rstrip("=")
    return f"personaplex={holder}.x".encode()


async def test_hook_login_secret_decides_whose_cookies_count(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    folder.plugin("a", "from core import Secret\n@hookimpl\ndef login_secret(name): return Secret(f'of {name}')")
    folder.plugin("b", "@hookimpl\ndef login_secret(name): return 'of ann'")
    folder.plugin("c", "@hookimpl\ndef login_secret(name): raise ValueError('of ann')")
    host = folder.load()
    assert host.protected
    response, ann = Response(), Identity("ann", {"team": "blue"})
    logins = {plugin: host.authentication.logins_of(plugin) for plugin in "abcd"}
    page = HTTPConnection({"type": "http", "scheme": "http", "path": "/", "headers": [(b"host", b"localhost")]})
    await logins["a"].admit(page, response, ann)
    cookie = response.headers["set-cookie"].partition(";")[0]
    known = HTTPConnection({"type": "http", "headers": [(b"cookie", cookie.encode())]})
    assert await host.authentication.identify(known) == ("a", ann)
    folder.plugin("a", "from core import Secret\n@hookimpl\ndef login_secret(name): return Secret('another')")
    assert await folder.load().authentication.identify(known) is None
    for plugin in "bcd":  # no Secret, a failure, and no such plugin: nobody is let in
        with pytest.raises(PluginError, match=f"plugin {plugin}: .*login_secret"):
            await logins[plugin].admit(page, Response(), ann)
    caplog.clear()
    for name in range(3):  # of a plugin that fails, strangers fill no log with names that they have made up
        forged = HTTPConnection({"type": "http", "headers": [(b"cookie", made_up("c", str(name)))]})
        assert await host.authentication.identify(forged) is None
    assert not caplog.text
    for claims in ({"x": object()}, {"x": secrets.token_hex(4000)}):
        with pytest.raises(PluginError, match=r"plugin a: .*(JSON|too long)"):
            await logins["a"].admit(page, Response(), Identity("ann", claims))
    assert "of ann" not in caplog.text


# A plugin that fails wherever it can

FAILS_EVERYWHERE = (
    "\n".join(
        f"@hookimpl\ndef {hook}(): raise RuntimeError('{hook}')"
        for hook in HOOKS
        if hook
        not in {"startup", "register_routes", "authenticate", "authorize", "transform_input", "transform_output"}
    )
    + """
class Bad:
    def process(self, frame):
        frame[:] = 99
        raise RuntimeError("process")
@hookimpl
def transform_input(): return Bad()
@hookimpl
def transform_output(): raise RuntimeError("transform_output")
"""
)


async def test_a_plugin_that_fails_everywhere_disturbs_nobody(folder: Folder) -> None:
    """Boot and auth hooks are not among them: there the boot stops and the caller is denied, as it must be."""
    healthy = await folder.started()
    host = folder.plugin("awful", FAILS_EVERYWHERE).load()
    await host.startup(None)
    assert await host.list_personas(CALLER) == await healthy.list_personas(CALLER)
    assert await host.list_voices() == await healthy.list_voices()
    assert (await host.resolve_persona("bank", CALLER)).id == "bank"
    for chain in (
        host.input_chain(SESSION, folder.failures.append),
        host.output_chain(SESSION, folder.failures.append),
    ):
        assert np.allclose(chain.process(FRAME), FRAME, atol=0.05)
    assert {failure.plugin for failure in folder.failures} == {"awful"}
    assert len(folder.failures) == 2
    host.event(SESSION, FirstAudio(1))
    await host.shutdown()
