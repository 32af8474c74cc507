"""Authentication by JSON Web Token: an auth plugin beside the password, with no edit to the core."""

import base64
import json
import sys
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

from core.events import SessionStarted
from core.settings.yaml_structs import Secret
from plugins import jwt_auth
from tests.caller import dial, get, refused
from tests.conftest import Serve
from tests.plugin_folder import Folder

KEY = "a shared secret of more than 32 bytes, as it must be"
OPTIONS = {"key": KEY, "issuer": "https://login.example.com", "audience": "voice"}


def claims(**changes: Any) -> dict[str, Any]:
    """What a good token says, with `changes`; None leaves a claim out."""
    good = {"sub": "ann", "iss": "https://login.example.com", "aud": "voice", "exp": time.time() + 600}
    return {name: value for name, value in (good | changes).items() if value is not None}


def token(key: Any = KEY, algorithm: str = "HS256", **changes: Any) -> str:
    return jwt.encode(claims(**changes), key, algorithm)


def unsigned(**changes: Any) -> str:
    parts = ({"alg": "none", "typ": "JWT"}, claims(**changes))
    texts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return f"{texts[0]}.{texts[1]}."


async def test_a_good_token_opens_and_says_who_calls(serve: Serve) -> None:
    running = await serve(plugins={"options": {"jwt_auth": OPTIONS}})
    header = {"Authorization": f"Bearer {token()}"}
    assert (await get(running, "/personas", **header))[0] == 200
    async with dial(running.url(), additional_headers=header) as caller:
        await caller.shake_hands()
    assert json.loads((await get(running, "/session", **header))[2])["identity"] == "ann"
    [(session, _)] = [pair for pair in running.record.events if isinstance(pair[1], SessionStarted)]
    assert session.identity.name == "ann"
    assert session.identity.claims["aud"] == "voice"


BAD = {
    "nothing": "",
    "no token": "Bearer ",
    "another scheme": f"Basic {token()}",
    "no jwt": "Bearer nonsense",
    "another key": f"Bearer {token(KEY[::-1])}",
    "another algorithm": f"Bearer {token(KEY * 2, 'HS512')}",
    "unsigned": f"Bearer {unsigned()}",
    "expired": f"Bearer {token(exp=time.time() - 60)}",
    "endless": f"Bearer {token(exp=None)}",
    "not yet": f"Bearer {token(nbf=time.time() + 3600)}",
    "another issuer": f"Bearer {token(iss='https://elsewhere.example.com')}",
    "no issuer": f"Bearer {token(iss=None)}",
    "for others": f"Bearer {token(aud='mail')}",
    "for nobody": f"Bearer {token(aud=None)}",
    "nobody's": f"Bearer {token(sub=None)}",
    "empty name": f"Bearer {token(sub='')}",
    "changed": f"Bearer {token()[:-2]}",
    "huge": f"Bearer {token(more='x' * jwt_auth.LONGEST_TOKEN)}",
}


async def test_no_other_token_does(serve: Serve) -> None:
    running = await serve(plugins={"options": {"jwt_auth": OPTIONS}})
    for why, header in BAD.items():
        assert (await get(running, "/personas", Authorization=header))[0] == 401, why
    assert (await refused(running, "/ws/chat", additional_headers={"Authorization": BAD["expired"]}))[0] == 401


def plugin(key: str, algorithm: Any = "HS256") -> jwt_auth.Plugin:
    return jwt_auth.Plugin(jwt_auth.Plugin.Options(key=Secret(key), algorithm=algorithm))


def connection(header: bytes) -> HTTPConnection:
    return HTTPConnection({"type": "http", "headers": [(b"authorization", header)]})


def pem(key: Any) -> str:
    return str(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
async def test_a_public_key_checks_and_cannot_sign(algorithm: str) -> None:
    private: Any = (
        rsa.generate_private_key(65537, 2048) if algorithm == "RS256" else ec.generate_private_key(ec.SECP256R1())
    )
    door = plugin(pem(private), algorithm)
    good = jwt.encode({"sub": "bob", "exp": time.time() + 60}, private, algorithm)
    identity = await door.authenticate(connection(f"Bearer {good}".encode()))
    assert identity is not None
    assert identity.name == "bob"
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').decode().rstrip("=")
    forged = f"{head}.{good.split('.')[1]}.{good.split('.')[2]}"
    assert await door.authenticate(connection(f"Bearer {forged}".encode())) is None


@given(st.binary(max_size=200))
async def test_whatever_is_sent_is_no_more_than_denied(header: bytes) -> None:
    door = plugin(KEY)
    for start in (b"", b"Bearer ", b"Bearer eyJhbGciOiJIUzI1NiJ9."):
        assert await door.authenticate(connection(start + header)) is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("{key: short}", "key must have at least 32 bytes"),
        ("{key: no PEM at all, algorithm: RS256}", "the key does not fit RS256"),
        ("{key: x, algorithm: none}", "algorithm"),
        ("{kee: x}", "unknown key"),
    ],
)
def test_wrong_options_stop_the_boot(tmp_path: Path, options: str, says: str) -> None:
    assert says in Folder(tmp_path).problems(f"plugins: {{options: {{jwt_auth: {options}}}}}")


def test_off_without_a_key_and_a_sentence_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jwt", None)
    folder = Folder(tmp_path)
    (one,) = [found for found in folder.load().describe() if found.name == "jwt_auth"]
    assert one.state == "off"
    found = folder.problems(f"plugins: {{options: {{jwt_auth: {{key: '{KEY}'}}}}}}")
    assert "pip install 'personaplex-modal[jwt]'" in found
