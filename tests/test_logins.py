"""What logins are made of: signed tokens, the replay cache, the login throttle, their store, and addresses."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

from core.http import signed_tokens
from core.http.login_throttle import (
    FORGET_S,
    FREE,
    LONGEST_S,
    MOST_ADDRESSES,
    MOST_TRUSTED_TRIES,
    TRUST_S,
    LoginThrottle,
)
from core.http.signed_tokens import SKEW_S, ReplayCache, SignedToken, SignedTokens, SigningKeys
from core.plugin.store import MemoryStore
from core.session.addresses import client_address, neighbourhood
from core.settings.hosts import is_address, is_loopback
from core.settings.yaml_structs import Secret

DERIVED: dict[Any, bytes] = {}
"""So that each key is derived once in this file."""


class Clock:
    """Time that passes when told."""

    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def tokens(clock: Clock | None = None, **passwords: str) -> SignedTokens:
    """Of ann and bob, or of those given."""
    holders = {name: Secret(text) for name, text in (passwords or {"ann": "a", "bob": "b"}).items()}
    keys = SigningKeys(holders, {pair: DERIVED[pair] for pair in holders.items() if pair in DERIVED})
    keys._derived = _Shared(keys._derived)
    return SignedTokens(keys, clock or Clock())


class _Shared(dict[Any, bytes]):
    """Puts what is derived into DERIVED too."""

    def __setitem__(self, key: Any, value: bytes) -> None:
        DERIVED[key] = value
        super().__setitem__(key, value)


async def test_a_token_is_good_for_its_kind_and_its_time_only() -> None:
    clock = Clock()
    ours = tokens(clock)
    text = await ours.issue("ticket", "ann")
    found = await ours.check("ticket", text, 30)
    assert found is not None
    assert (found.holder, found.issued) == ("ann", clock.now)
    assert await ours.check("cookie", text, 30) is None
    clock.now += 30
    assert await ours.check("ticket", text, 30) is not None
    clock.now += 0.1
    assert await ours.check("ticket", text, 30) is None
    assert await ours.issue("ticket", "ann") != await ours.issue("ticket", "ann")


async def test_another_process_with_the_same_password_knows_it_also_when_its_clock_is_behind() -> None:
    text = await tokens(ann="sesame").issue("ticket", "ann")
    late = Clock()
    late.now -= SKEW_S
    assert await tokens(late, ann="sesame").check("ticket", text, 30)
    late.now -= 1
    assert not await tokens(late, ann="sesame").check("ticket", text, 30)
    for name, password in (("ann", "another"), ("bob", "sesame")):
        assert not await tokens(None, **{name: password}).check("ticket", text, 30)


async def test_a_name_in_a_token_cannot_be_changed() -> None:
    ours = tokens()
    name, _, signed = (await ours.issue("cookie", "ann")).partition(".")
    assert name == "ann"
    assert await ours.check("cookie", f"bob.{signed}", 60) is None


@given(st.data())
async def test_a_token_that_was_touched_is_none(data: st.DataObject) -> None:
    ours = tokens()
    text = await ours.issue("cookie", "ann")
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters().filter(lambda character: character != text[at]))
    assert await ours.check("cookie", text[:at] + other + text[at + 1 :], 60) is None
    assert await ours.check("cookie", text[:at], 60) is None


@given(st.text(min_size=1, max_size=3) | st.sampled_from(["=", "==", " ", "\n"]))
async def test_a_token_with_something_after_it_is_none(rest: str) -> None:
    ours = tokens()
    assert await ours.check("cookie", await ours.issue("cookie", "ann") + rest, 60) is None


@given(st.one_of(st.text(), st.text().map("ann.".__add__), st.binary().map(lambda raw: "ann." + raw.decode("latin-1"))))
async def test_anything_else_is_no_token(text: str) -> None:
    assert await tokens().check("cookie", text, 60) is None


async def test_a_key_is_derived_once_off_the_loop_and_again_only_for_what_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    derived: list[str] = []

    def signing_key(name: str, password: str) -> bytes:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()  # in a thread there is none
        derived.append(name)
        return f"{name} {password}".encode()

    monkeypatch.setattr(signed_tokens, "signing_key", signing_key)
    memory: dict[Any, bytes] = {}
    names = [f"n{number}" for number in range(30)]
    first = SigningKeys({name: Secret("x") for name in names}, memory)
    assert derived == []
    await asyncio.gather(*(first.of(name) for name in names * 3))
    assert sorted(derived) == sorted(names)
    edited = SigningKeys({name: Secret("y" if name == "n7" else "x") for name in names[1:]}, memory)
    for name in names[1:]:
        await edited.of(name)
    assert derived[30:] == ["n7"]
    assert len(memory) == 29
    with pytest.raises(KeyError):
        await edited.of("n0")


def test_a_ticket_is_used_once_and_the_memory_of_it_is_bounded_for_each_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signed_tokens, "MOST_USED", 3)
    clock = Clock()
    used = ReplayCache(MemoryStore(clock), "tickets", clock)

    def ticket(id_: str, holder: str = "ann") -> SignedToken:
        return SignedToken(holder, id_, clock.now)

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
