"""Secrets from outside arrive whole, and show nowhere: in no message about settings, and in no line of the log."""

import base64
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from core.errors import ConfigError
from core.events import Identity
from core.plugin.hookspecs import hookimpl
from core.plugin.host import PluginHost
from core.plugin.logins import COOKIE
from core.session.protocol import Kind
from core.settings.config import Config, load_config, shipped
from core.settings.log import configure_logging
from core.settings.sections import LogConfig
from core.testing import EchoEngine
from tests.caller import dial, get, refused
from tests.conftest import Serve, speech, write_config
from tests.test_password import bearer, logged_in, post, ticket

RIGHT, TOKEN, WRONG = "right-marker-1", "token-marker-2", "wrong-marker-3"
PROMPT = "You are the prompt-marker-4."
ELSEWHERE = "path-marker-5"
PLUGINS = {"options": {"password": {"password": RIGHT, "named": {"phone-bridge": TOKEN}}}}
CLIENT = "websockets.client"
"""The tests' own client, which is in this process too."""


def loaded(path: Path | None, **environ: str) -> tuple[Config, PluginHost]:
    """The settings and their plugins, as `serve` loads them."""
    config = load_config(path, environ)
    return config, PluginHost.load(config)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
async def test_a_secret_made_from_a_file_is_its_text_without_the_line_end(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    path = write_config(tmp_path, {"plugins": {"options": {"password": {"password": {"env": "PW"}}}}})
    config, _ = loaded(path, PW=f"sesame{end}", HF_TOKEN=f"hf_token{end}", PERSONAPLEX_SERVER__HOST=f"localhost{end}")
    assert config.engine.token is not None
    assert config.engine.token.reveal() == "hf_token"
    assert config.server.host == "localhost"
    monkeypatch.setattr("tests.conftest.load_config", lambda path, _: load_config(path, {"PW": f"sesame{end}"}))
    running = await serve(plugins={"options": {"password": {"password": {"env": "PW"}}}})
    assert (await get(running, "/personas", **bearer("sesame")))[0] == 200


@pytest.mark.parametrize("text", ["${PERSONAPLEX_PASSWORD}", "$PERSONAPLEX_PASSWORD", "$pw", "${PW:-x}"])
def test_a_variable_that_nobody_replaces_is_no_password(tmp_path: Path, text: str) -> None:
    path = write_config(tmp_path, {"plugins": {"options": {"password": {"named": {"ann": text}}}}})
    with pytest.raises(ConfigError, match=r"password\.named.*\{env: NAME\}"):
        loaded(path)
    path = write_config(tmp_path, {"engine": {"token": text}})
    with pytest.raises(ConfigError, match=r"engine\.token: .*\{env: NAME\}"):
        loaded(path)


def test_a_variable_whose_text_was_not_replaced_either_is_no_password(tmp_path: Path) -> None:
    path = write_config(tmp_path, {})
    with pytest.raises(ConfigError, match=r"the name of another.*PERSONAPLEX_PASSWORD"):
        loaded(path, PERSONAPLEX_PASSWORD="${SECRET}")
    assert loaded(path, PERSONAPLEX_PASSWORD="$ecret")[1].protected  # a password may begin with a dollar


@pytest.mark.parametrize("folder", ["shipped", "own", "own, with other options", "own, with other settings"])
def test_the_password_and_the_token_are_those_of_the_environment_whatever_the_file_says(
    tmp_path: Path, folder: str
) -> None:
    settings: dict[str, Any] = {
        "own": {},
        "own, with other options": {"plugins": {"options": {"password": {"named": {"ann": None}}}}},
        "own, with other settings": {"engine": {"name": "nano"}, "plugins": {"strict": True}},
    }
    path = shipped("config.yaml") if folder == "shipped" else write_config(tmp_path, settings[folder])
    config, host = loaded(path, PERSONAPLEX_PASSWORD="sesame", HF_TOKEN="hf_token")
    assert host.protected
    assert config.engine.token is not None
    assert config.engine.token.reveal() == "hf_token"
    assert "sesame" not in repr(config)
    assert not loaded(path)[1].protected


def test_the_file_goes_before_the_environment(tmp_path: Path) -> None:
    path = write_config(tmp_path, {"plugins": {"options": {"password": {"password": None}}}, "engine": {"token": "a"}})
    config, host = loaded(path, PERSONAPLEX_PASSWORD="sesame", HF_TOKEN="b")
    assert not host.protected
    assert config.engine.token is not None
    assert config.engine.token.reveal() == "a"


def test_an_empty_token_is_none_and_an_empty_password_is_an_error(tmp_path: Path) -> None:
    path = write_config(tmp_path, {})
    for empty in ("", "\n"):
        assert loaded(path, HF_TOKEN=empty)[0].engine.token is None
        with pytest.raises(ConfigError, match="empty"):
            loaded(path, PERSONAPLEX_PASSWORD=empty)
    with pytest.raises(ConfigError, match="token: it has a space") as caught:
        loaded(path, HF_TOKEN="hf_marker hf_marker")
    assert "marker" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        *("!marker", "!mar!marker", "!!int marker", "!!bool marker", "!!timestamp marker", "!<marker> x", "*marker"),
        *("&marker", "'marker", '"marker\\q"', "{marker", "{marker: 1}", "[marker]", "|marker", ">marker", "@marker"),
        *("%marker", "marker: marker", "`marker", "\tmarker: x", "? marker", "- marker", "$marker", "${marker}"),
    ],
)
def test_no_error_shows_a_secret_that_was_written_wrongly(tmp_path: Path, text: str) -> None:
    path = write_config(tmp_path, {})
    path.write_text(f"plugins:\n options:\n  password:\n   password: {text}\n")
    with pytest.raises(ConfigError) as caught:
        loaded(path)
    assert "config.yaml" in str(caught.value)
    assert "marker" not in str(caught.value)


def test_no_error_shows_a_secret_that_is_in_the_wrong_place(tmp_path: Path) -> None:
    sections = {"engine": {"device": "cpu", "dtype": {"env": "PW"}}, "log": {"level": {"env": "PW"}}}
    path = write_config(tmp_path, {**sections, "server": {"port": {"env": "PW"}}})
    for text in ("marker", "!marker", "'marker", "mar'\"ker", "[marker"):
        with pytest.raises(ConfigError) as caught:
            loaded(path, PW=text, PERSONAPLEX_PLUGINS__OPTIONS__PASSWORD=text)
        assert str(caught.value).count("environment variable PW") == 3
        assert "marker" not in str(caught.value)
        assert "ker" not in str(caught.value)


@pytest.mark.parametrize("text", ["0b_", "2020-13-45", "0x_", "1" * 5000])
def test_what_yaml_takes_for_a_number_is_named(tmp_path: Path, text: str) -> None:
    path = write_config(tmp_path, {})
    path.write_text(f"plugins:\n options:\n  password:\n   password: {text}\n")
    with pytest.raises(ConfigError, match=r"line 4: .*quotes") as caught:
        loaded(path)
    assert text not in str(caught.value)


@pytest.fixture
def everything(caplog: pytest.LogCaptureFixture) -> Iterator[io.StringIO]:
    """What is logged at the lowest level, by whomever: as the service writes it, and as Python keeps it."""
    root, own, uvicorn = logging.getLogger(), logging.getLogger("personaplex"), logging.getLogger("uvicorn.error")
    before = (root.handlers[:], root.level, own.level, uvicorn.level)
    stream = io.StringIO()
    configure_logging(LogConfig(format="json", level="debug"), stream)
    root.addHandler(caplog.handler)
    root.setLevel(logging.DEBUG)
    logging.getLogger(CLIENT).setLevel(logging.WARNING)
    yield stream
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    own.setLevel(before[2])
    uvicorn.setLevel(before[3])


class Talkative:
    """Puts what it is given into its errors."""

    @hookimpl
    async def authenticate(self, connection: object) -> Identity | None:
        header = getattr(connection, "headers", {}).get("x-break")
        if header:
            raise ValueError(f"cannot read {header}")
        return None


async def test_nothing_secret_is_logged(
    serve: Serve, everything: io.StringIO, caplog: pytest.LogCaptureFixture
) -> None:
    engine = EchoEngine()
    running = await serve(engine, extra=(Talkative(),), plugins=PLUGINS, personas={"custom": True})
    secrets = [RIGHT, TOKEN, WRONG, "prompt-marker-4", ELSEWHERE, "word0"]

    cookie = await logged_in(running, RIGHT)
    basic = {"Authorization": "Basic " + base64.b64encode(f"user:{TOKEN}".encode()).decode()}
    first, second = await ticket(running, Cookie=cookie), await ticket(running, **bearer(TOKEN))
    secrets += [cookie.partition("=")[2], first, second, basic["Authorization"].split()[1]]
    for wrong in (bearer(WRONG), {"Authorization": f"Basic {WRONG}"}, {"Cookie": f"{COOKIE}=caller.{WRONG}"}):
        assert (await get(running, f"/personas?x={ELSEWHERE}", **wrong))[0] == 401
    assert (await get(running, "/personas", **{"x-break": WRONG}))[0] == 401
    for _ in range(7):
        assert (await post(running, "/login", {"password": WRONG}))[0] in (401, 429)
    await get(running, f"/{ELSEWHERE}?ticket={first}")
    await post(running, f"/{ELSEWHERE}")

    prompt = f"prompt={quote(PROMPT)}"
    async with dial(running.url(f"/ws/chat?{prompt}&ticket={first}")) as caller:
        await caller.shake_hands()
        await caller.talk(speech(0.16))
    async with dial(running.url(f"/api/chat?text_{prompt}&ticket={second}")) as caller:
        await caller.shake_hands()
        await caller.socket.send(bytes([Kind.METADATA]) + f"{{{WRONG}".encode())
        await caller.socket.send(bytes([Kind.AUDIO]) + WRONG.encode())
        await caller.end()
    for query in (f"{prompt}&ticket={first}", f"ticket={WRONG}", f"{prompt}&persona={ELSEWHERE}"):
        await refused(running, f"/ws/chat?{query}")
    for query in (f"{prompt}&persona={ELSEWHERE}", f"voice={ELSEWHERE}", f"seed={ELSEWHERE}"):
        await refused(running, f"/ws/chat?{query}", additional_headers={"Cookie": cookie})
    await refused(running, f"/{ELSEWHERE}?{prompt}", additional_headers={"Origin": f"https://{ELSEWHERE}.example"})
    engine.faults.frames = RuntimeError("out of order")
    async with dial(running.url(f"/ws/chat?{prompt}"), additional_headers={"Cookie": cookie}) as caller:
        await caller.shake_hands()
        await caller.say(speech(0.16))
        await caller.end()
    await running.record.ended(3)

    written = everything.getvalue()
    for line in (
        "logged in",
        "wrong password",
        "plugin failed",
        "session started",
        "session ended",
        "a session failed",
    ):
        assert line in written
    assert '"identity": "phone-bridge"' in written
    assert "uvicorn" not in written
    kept = "".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records if record.name != CLIENT)
    assert "session started" in kept
    for secret in secrets:
        assert secret not in written
        assert secret not in kept
