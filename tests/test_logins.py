"""What logins are made of: signed tokens, the replay cache, the login throttle, their store, and addresses."""

import asyncio
import base64
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

from core.events import Identity
from core.http.login_throttle import (
    FORGET_S,
    FREE,
    LONGEST_S,
    MOST_ADDRESSES,
    MOST_TRUSTED_TRIES,
    TRUST_S,
    LoginThrottle,
)
from core.plugin import signed_tokens
from core.plugin.signed_tokens import SKEW_S, Holder, ReplayCache, SignedToken, SignedTokens, SigningKeys
from core.plugin.store import MemoryStore
from core.session.addresses import client_address, neighbourhood
from core.settings.hosts import is_address, is_loopback
from core.settings.yaml_structs import Secret

KEYS = SigningKeys()
"""So that each key is derived once in this file."""


class Clock:
    """Time that passes when told."""

    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def tokens(clock: Clock | None = None, **passwords: str) -> SignedTokens:
    """Of ann and bob, or of those given."""
    secrets = {Holder("door", name): Secret(text) for name, text in (passwords or {"ann": "a", "bob": "b"}).items()}
    return SignedTokens(secrets.get, KEYS, clock or Clock())


async def issued(ours: SignedTokens, kind: str, name: str) -> str:
    """A token for somebody who has a secret."""
    token = await ours.issue(kind, "door", Identity(name))
    assert token is not None
    return token


async def test_a_token_is_good_for_its_kind_and_its_time_only() -> None:
    clock = Clock()
    ours = tokens(clock)
    text = await issued(ours, "ticket", "ann")
    found = await ours.check("ticket", text, 30)
    assert found is not None
    assert (found.holder, found.identity, found.issued) == (Holder("door", "ann"), Identity("ann"), clock.now)
    assert await ours.check("cookie", text, 30) is None
    clock.now += 30
    assert await ours.check("ticket", text, 30) is not None
    clock.now += 0.1
    assert await ours.check("ticket", text, 30) is None
    assert await issued(ours, "ticket", "ann") != await issued(ours, "ticket", "ann")


async def test_another_process_with_the_same_password_knows_it_also_when_its_clock_is_behind() -> None:
    text = await issued(tokens(ann="sesame"), "ticket", "ann")
    late = Clock()
    late.now -= SKEW_S
    assert await tokens(late, ann="sesame").check("ticket", text, 30)
    late.now -= 1
    assert not await tokens(late, ann="sesame").check("ticket", text, 30)
    for name, password in (("ann", "another"), ("bob", "sesame")):
        assert not await tokens(None, **{name: password}).check("ticket", text, 30)


async def test_a_name_in_a_token_cannot_be_changed() -> None:
    ours = tokens(ann="a", bob="a")  # the same secret, so the same key
    anns, _, signed = (await issued(ours, "cookie", "ann")).partition(".")
    bobs = (await issued(ours, "cookie", "bob")).partition(".")[0]
    assert anns != bobs
    assert await ours.check("cookie", f"{bobs}.{signed}", 60) is None


@given(st.text(), st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text(), max_size=3))
async def test_any_name_and_any_claims_come_back(name: str, claims: dict[str, Any]) -> None:
    ours = SignedTokens(lambda _: Secret("s"), KEYS)
    text = await ours.issue("cookie", "door", Identity(name, claims))
    assert text is not None
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", text)  # fit for a cookie and a query
    found = await ours.check("cookie", text, 60)
    assert found is not None
    assert found.identity == Identity(name, claims)


@given(st.data())
async def test_a_token_that_was_touched_is_none(data: st.DataObject) -> None:
    ours = tokens()
    text = await issued(ours, "cookie", "ann")
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters().filter(lambda character: character != text[at]))
    assert await ours.check("cookie", text[:at] + other + text[at + 1 :], 60) is None
    assert await ours.check("cookie", text[:at], 60) is None


@given(st.text(min_size=1, max_size=3) | st.sampled_from(["=", "==", " ", "\n"]))
async def test_a_token_with_something_after_it_is_none(rest: str) -> None:
    ours = tokens()
    assert await ours.check("cookie", await issued(ours, "cookie", "ann") + rest, 60) is None


HOLDER = base64.urlsafe_b64encode(b'["door", "ann"]').decode().rstrip("=") + "."


@given(st.one_of(st.text(), st.text().map(HOLDER.__add__), st.binary().map(lambda raw: HOLDER + raw.decode("latin-1"))))
async def test_anything_else_is_no_token(text: str) -> None:
    assert await tokens().check("cookie", text, 60) is None


async def test_a_key_is_derived_once_off_the_loop_and_so_many_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    derived: list[str] = []

    def signing_key(plugin: str, secret: str) -> bytes:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()  # in a thread there is none
        derived.append(secret)
        return f"{plugin} {secret}".encode()

    monkeypatch.setattr(signed_tokens, "signing_key", signing_key)
    monkeypatch.setattr(signed_tokens, "MOST_KEYS", 30)
    keys, secrets = SigningKeys(), [f"s{number}" for number in range(30)]
    await asyncio.gather(*(keys.of("door", Secret(secret)) for secret in secrets * 3))
    assert sorted(derived) == sorted(secrets)
    for secret in ("s7", "new", "s7"):
        await keys.of("door", Secret(secret))
    assert derived[30:] == ["new"]
    await keys.of("door", Secret(derived[0]))  # the oldest made room
    assert derived[31:] == [derived[0]]


def test_a_ticket_is_used_once_and_the_memory_of_it_is_bounded_for_each_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signed_tokens, "MOST_USED", 3)
    clock = Clock()
    used = ReplayCache(MemoryStore(clock), "tickets", clock)

    def ticket(id_: str, holder: str = "ann") -> SignedToken:
        return SignedToken(Holder("door", holder), Identity(holder), id_, clock.now)

    assert used.first_use(ticket("a"), 30)
    assert not used.first_use(ticket("a"), 30)
    assert used.first_use(ticket("b"), 30)
    assert used.first_use(ticket("c"), 30)
    assert not used.first_use(ticket("d"), 30)
    assert used.first_use(ticket("d", "bob"), 30)  # who is somebody else
    clock.now += 31
    assert used.first_use(ticket("d"), 30)


def test_a_table_holds_so_much_and_no_more() -> None:
    clock = Clock()
    store = MemoryStore(clock)
    refuses, evicts = store.table("refuses", 2, evict=False), store.table("evicts", 2, evict=True)
    assert store.table("refuses", 2, evict=False) is refuses
    for key in "ab":
        assert refuses.update(key, lambda _: (1,), 10) == evicts.update(key, lambda _: (1,), 10) == (1,)
    assert refuses.update("c", lambda _: (2,), 10) is None
    assert refuses.get("c") is None
    assert evicts.update("a", lambda before: (before[0] + 1 if before else 0,), 10) == (2,)
    assert evicts.update("c", lambda _: (3,), 10) == (3,)
    assert (evicts.get("a"), evicts.get("b"), evicts.get("c")) == ((2,), None, (3,))
    assert refuses.update("a", lambda before: (*(before or ()), 5), 1) == (1, 5)  # its lifetime is another now
    clock.now += 2
    assert refuses.get("a") is None
    assert refuses.update("c", lambda before: (len(before or ()),), 10) == (0,)
    clock.now += 20
    assert evicts.update("d", lambda _: (4,), 10) == (4,)
    assert (len(evicts), len(refuses)) == (1, 2)


def throttle(clock: Clock) -> LoginThrottle:
    return LoginThrottle(MemoryStore(clock), "password", clock)


def test_wrong_passwords_are_answered_ever_more_slowly() -> None:
    clock = Clock()
    logins = throttle(clock)
    waits = []
    for _ in range(FREE + 12):
        waits.append(logins.wait_s("192.0.2.1"))
        clock.now += waits[-1]
        assert logins.wait_s("192.0.2.1") == 0
        logins.failed("192.0.2.1")
    assert waits[:FREE] == [0] * FREE
    assert waits[FREE : FREE + 4] == [1, 2, 4, 8]
    assert waits[-1] == LONGEST_S
    assert logins.wait_s("192.0.2.2") == 0
    clock.now += FORGET_S
    logins.failed("192.0.2.3")
    assert logins.wait_s("192.0.2.1") == 0


def test_a_day_of_guessing_is_a_few_hundred_tries() -> None:
    clock = Clock()
    logins = throttle(clock)
    end, tries = clock.now + 86_400, 0
    while clock.now < end:
        clock.now += logins.wait_s("192.0.2.1")
        logins.failed("192.0.2.1")
        tries += 1
    assert tries < 200


def test_one_network_is_one_guesser_and_many_do_not_fill_the_memory() -> None:
    clock = Clock()
    store = MemoryStore(clock)
    logins = LoginThrottle(store, "password", clock)
    for number in range(FREE):
        logins.failed(f"2001:db8:0:1::{number:x}")
    assert logins.wait_s("2001:db8:0:1:ffff::1") > 0
    assert logins.wait_s("2001:db8:0:2::1") == 0
    for number in range(MOST_ADDRESSES + 10):
        logins.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(store.table("password failures", MOST_ADDRESSES, evict=True)) == MOST_ADDRESSES


def test_who_was_right_from_an_address_is_let_through_there_beside_a_guesser() -> None:
    clock = Clock()
    logins = throttle(clock)
    logins.succeeded("192.0.2.1", "scraper")
    assert logins.lets_through("192.0.2.1", "scraper")
    assert not logins.lets_through("192.0.2.1", "ann")
    assert not logins.lets_through("192.0.2.2", "scraper")
    for _ in range(MOST_TRUSTED_TRIES):  # each of these may have been a guess at the scraper's password
        assert logins.lets_through("192.0.2.1", "scraper")
        assert not logins.lets_through("192.0.2.1", None)
    assert not logins.lets_through("192.0.2.1", "scraper")
    clock.now += FORGET_S
    assert logins.lets_through("192.0.2.1", "scraper")
    clock.now += TRUST_S
    assert not logins.lets_through("192.0.2.1", "scraper")


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8::1:2:3:4", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("<script>", ""),
        ("", ""),
    ],
)
def test_places_on_the_network(address: str, place: str) -> None:
    assert neighbourhood(address) == place
    assert is_address(address) == bool(place)
    connection = HTTPConnection({"type": "http", "client": (address, 1), "headers": []})
    assert bool(client_address(connection)) == bool(place)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
def test_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "localhost.example.com", "", "127.0.0.1.example.com"])
def test_another_machine(host: str) -> None:
    assert not is_loopback(host)
