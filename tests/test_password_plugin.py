"""The password plugin by itself: what it reads, what it refuses, and which settings it takes."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

from core.errors import ConfigError, RefusedError
from core.events import Identity
from core.http.login_throttle import FREE
from core.plugin.host import PluginHost
from core.plugin.logins import Logins, LoginTokens
from core.plugin.signed_tokens import SigningKeys
from core.plugin.store import MemoryStore
from core.settings.config import load_config
from core.settings.sections import ServerConfig
from core.settings.yaml_structs import Secret
from plugins import password
from tests.test_password import basic, passwords


def socket(header: str | bytes | None = None, query: str = "") -> HTTPConnection:
    raw = header.encode() if isinstance(header, str) else header
    headers = [] if raw is None else [(b"authorization", raw)]
    return HTTPConnection({"type": "websocket", "headers": headers, "query_string": query.encode(), "client": None})


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Basic", "Basic !!!", "Basic c2VzYW1l", "Digest x", b"Bearer \xff", b"\xff"],
)
async def test_headers_that_open_nothing(header: str | bytes | None) -> None:
    plugin = password.Plugin(password.Plugin.Options(Secret("sesame")))
    assert await plugin.authenticate(socket(header)) is None


@pytest.mark.parametrize("header", ["Bearer sésame: 42", "bearer  sésame: 42 ", basic("x", "sésame: 42")])
async def test_any_text_may_be_a_password(header: Any) -> None:
    plugin = password.Plugin(password.Plugin.Options(Secret("sésame: 42")))
    given = header["Authorization"] if isinstance(header, dict) else header
    assert await plugin.authenticate(socket(given)) == Identity("caller")


LOGINS = Logins("password", LoginTokens(lambda _: None, SigningKeys(), MemoryStore(), ServerConfig()))
PLUGIN = password.Plugin(password.Plugin.Options(Secret("sésame")))


@given(st.binary(max_size=60))
async def test_any_header_is_no_more_than_denied(header: bytes) -> None:
    PLUGIN.startup(MemoryStore(), LOGINS)  # which forgets the wrong ones
    for scheme in (b"", b"Basic ", b"Bearer "):
        assert await PLUGIN.authenticate(socket(scheme + header)) is None


async def test_many_headers_make_it_wait() -> None:
    plugin = password.Plugin(password.Plugin.Options(Secret("sesame")))
    for _ in range(FREE):
        assert await plugin.authenticate(socket("Bearer x")) is None
    with pytest.raises(RefusedError) as refusal:
        await plugin.authenticate(socket("Bearer sesame"))
    assert (refusal.value.status, refusal.value.headers) == (429, {"retry-after": "1"})


def loaded(folder: Path, options: dict[str, Any], environ: dict[str, str] | None = None) -> PluginHost:
    (folder / "config.yaml").write_text(yaml.safe_dump({"plugins": passwords(**options)}))
    return PluginHost.load(load_config(folder / "config.yaml", environ or {}))


def test_without_a_password_the_door_is_open(tmp_path: Path) -> None:
    assert not loaded(tmp_path, {}).protected
    assert not loaded(tmp_path, {"password": {"env": "PW", "default": None}}).protected
    assert not loaded(tmp_path, {"named": {"ann": {"env": "PW", "default": None}}}).protected
    assert loaded(tmp_path, {"password": {"env": "PW"}}, {"PW": "12345"}).protected
    assert loaded(tmp_path, {"named": {"ann": {"env": "PW"}}}, {"PW": "12345"}).protected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"password": {"env": "PW"}}, r"plugins\.options\.password\.password: .*empty"),
        ({"named": {"ann": {"env": "PW"}}}, r"plugins\.options\.password\.named.*empty"),
        ({"named": {"ann": {"env": "GONE"}}}, r"plugins\.options\.password\.named\.ann: .*GONE is not set"),
        ({"named": {"ann": "same", "bob": "same"}}, "ann and bob have the same password"),
        ({"password": "same", "named": {"ann": "same"}}, "caller and ann have the same password"),
        ({"named": {"ann smith": "x"}}, "'ann smith' is no good name"),
        ({"named": {"caller": "x"}}, "'caller' is no good name"),
        ({"named": ["ann"]}, r"plugins\.options\.password\.named: expected object"),
        ({"passwrod": "x"}, "Did you mean 'password'"),
    ],
)
def test_settings_that_stop_the_boot(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        loaded(tmp_path, options, {"PW": ""})
    assert "same'" not in str(caught.value)


def test_passwords_cannot_be_seen() -> None:
    options = password.Plugin.Options(Secret("hunter2"), {"ann": Secret("hunter3")})
    plugin = password.Plugin(options)
    assert "hunter" not in repr(vars(plugin)) + repr(options)


async def test_a_ticket_of_one_process_opens_another_with_the_same_password(tmp_path: Path) -> None:
    ann = Identity("ann")
    ticket = await loaded(tmp_path, {"named": {"ann": "sesame"}}).authentication.tokens.ticket("password", ann)
    other = loaded(tmp_path, {"password": "for all", "named": {"ann": "sesame"}}).authentication
    assert await other.identify(socket(query=f"ticket={ticket}")) == ("password", ann)
    assert await other.identify(socket(query=f"ticket={ticket}")) is None
    stranger = loaded(tmp_path, {"named": {"ann": "changed"}}).authentication
    assert await stranger.identify(socket(query=f"ticket={ticket}")) is None
