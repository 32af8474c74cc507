"""Passes, wrong tries and addresses: what the auth plugins are made of."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

from core.http import signed_tokens as passes
from core.http.login_throttle import FORGET_S, FREE, KIND, LONGEST_S, MOST_PLACES, Attempts
from core.http.signed_tokens import SKEW_S, Passes, Used, signing_key
from core.plugin.shared_state import SharedState
from core.session.addresses import client_address, is_address, is_loopback, neighbourhood

KEYS = {"ann": b"a" * 32, "bob": b"b" * 32}


class Clock:
    """Time that passes when told."""

    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def test_a_pass_is_good_for_its_kind_and_its_time_only() -> None:
    clock = Clock()
    ours = Passes(KEYS, clock)
    text = ours.issue("ticket", "ann")
    found = ours.check("ticket", text, 30)
    assert found is not None
    assert (found.name, found.issued) == ("ann", clock.now)
    assert ours.check("cookie", text, 30) is None
    clock.now += 30
    assert ours.check("ticket", text, 30) is not None
    clock.now += 0.1
    assert ours.check("ticket", text, 30) is None
    assert ours.issue("ticket", "ann") != ours.issue("ticket", "ann")


def test_another_process_with_the_same_password_knows_it_also_when_its_clock_is_behind() -> None:
    key = signing_key("ann", "sesame")
    text = Passes({"ann": key}, Clock()).issue("ticket", "ann")
    late = Clock()
    late.now -= SKEW_S
    assert Passes({"ann": signing_key("ann", "sesame")}, late).check("ticket", text, 30)
    late.now -= 1
    assert not Passes({"ann": key}, late).check("ticket", text, 30)
    for name, password in (("ann", "another"), ("bob", "sesame")):
        assert not Passes({name: signing_key(name, password)}, Clock()).check("ticket", text, 30)


def test_a_name_in_a_pass_cannot_be_changed() -> None:
    ours = Passes(KEYS)
    name, _, signed = ours.issue("cookie", "ann").partition(".")
    assert name == "ann"
    assert ours.check("cookie", f"bob.{signed}", 60) is None


@given(st.data())
def test_a_pass_that_was_touched_is_none(data: st.DataObject) -> None:
    ours = Passes(KEYS, Clock())
    text = ours.issue("cookie", "ann")
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters().filter(lambda character: character != text[at]))
    assert ours.check("cookie", text[:at] + other + text[at + 1 :], 60) is None
    assert ours.check("cookie", text[:at], 60) is None


@given(st.text(min_size=1, max_size=3) | st.sampled_from(["=", "==", " ", "\n"]))
def test_a_pass_with_something_after_it_is_none(rest: str) -> None:
    ours = Passes(KEYS, Clock())
    assert ours.check("cookie", ours.issue("cookie", "ann") + rest, 60) is None


@given(st.one_of(st.text(), st.text().map("ann.".__add__), st.binary().map(lambda raw: "ann." + raw.decode("latin-1"))))
def test_anything_else_is_no_pass(text: str) -> None:
    assert Passes(KEYS).check("cookie", text, 60) is None


def test_a_ticket_is_used_once_and_the_memory_of_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "MOST_USED", 3)
    clock = Clock()
    used = Used(clock)
    assert used.first("a", clock.now + 30)
    assert not used.first("a", clock.now + 30)
    assert used.first("b", clock.now + 30)
    assert used.first("c", clock.now + 30)
    assert not used.first("d", clock.now + 30)
    clock.now += 30
    assert used.first("d", clock.now + 30)


def test_wrong_tries_are_answered_ever_more_slowly() -> None:
    clock = Clock()
    attempts = Attempts(clock)
    waits = []
    for _ in range(FREE + 12):
        waits.append(attempts.wait_s("192.0.2.1"))
        clock.now += waits[-1]
        assert attempts.wait_s("192.0.2.1") == 0
        attempts.failed("192.0.2.1")
    assert waits[:FREE] == [0] * FREE
    assert waits[FREE : FREE + 4] == [1, 2, 4, 8]
    assert waits[-1] == LONGEST_S
    assert attempts.wait_s("192.0.2.2") == 0
    clock.now += FORGET_S
    attempts.failed("192.0.2.3")
    assert attempts.wait_s("192.0.2.1") == 0


def test_a_day_of_guessing_is_a_few_hundred_tries() -> None:
    clock = Clock()
    attempts = Attempts(clock)
    end, tries = clock.now + 86_400, 0
    while clock.now < end:
        clock.now += attempts.wait_s("192.0.2.1")
        attempts.failed("192.0.2.1")
        tries += 1
    assert tries < 200


def test_one_network_is_one_guesser_and_many_do_not_fill_the_memory() -> None:
    clock, shared = Clock(), SharedState()
    attempts = Attempts(clock, shared)
    for number in range(FREE):
        attempts.failed(f"2001:db8:0:1::{number:x}")
    assert attempts.wait_s("2001:db8:0:1:ffff::1") > 0
    assert attempts.wait_s("2001:db8:0:2::1") == 0
    for number in range(MOST_PLACES + 10):
        attempts.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert shared.count(KIND, clock.now) == MOST_PLACES
    assert Attempts(clock, shared).failed("10.0.39.25") == 2


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
