"""The built-in plugin `budget`: minutes a day, for all callers and for each."""

import asyncio
import json
from pathlib import Path

import pytest

from core.errors import RefusedError
from core.events import FrameTimed, Identity, SessionEnded, SessionEvent, SessionInfo, SessionStarted
from core.plugin.file_store import FileStore
from core.plugin.store import MemoryStore, Store
from plugins import budget
from plugins.budget import Plugin
from tests.caller import dial, get, refused
from tests.conftest import Serve, speech

ANN, BOB = Identity("ann"), Identity("bob")
MORNING = 1_790_000_000.0 - 1_790_000_000.0 % 86_400 + 9 * 3600
FRAME = FrameTimed(0, 0, 0, 0, 0, 0)
ENDED = SessionEnded("left", 1000, 1.0, 1, 1, 0)


def info(name: str) -> SessionInfo:
    return SessionInfo(f"session of {name}", Identity(name), "teacher", "NATF2", "/ws/chat", "127.0.0.1", "opus")


class Day:
    """A plugin, and a clock that tests move."""

    def __init__(self, store: Store | None = None, service: float = 0, caller: float = 0) -> None:
        self.now = MORNING
        options = Plugin.Options(service_minutes=service, caller_minutes=caller)
        self.plugin = Plugin(options, lambda: self.now)
        self.plugin.startup(store or MemoryStore())

    def event(self, name: str, *events: SessionEvent) -> None:
        for event in events:
            self.plugin.session_event(info(name), event)

    def talk(self, name: str, seconds: float) -> None:
        self.event(name, SessionStarted(0, 1))
        self.now += seconds
        self.event(name, ENDED)

    async def refusal(self, identity: Identity) -> RefusedError | None:
        try:
            await self.plugin.authorize(identity)
        except RefusedError as error:
            return error
        return None


async def test_one_caller_s_minutes_are_not_another_s_and_end_at_midnight() -> None:
    day = Day(caller=10)
    day.talk("ann", 599)
    assert await day.refusal(ANN) is None
    day.talk("ann", 2)
    refusal = await day.refusal(ANN)
    assert refusal is not None
    assert (refusal.status, refusal.headers["retry-after"]) == (429, str(15 * 3600 - 601))
    assert "10 minutes of ann" in str(refusal)
    assert await day.refusal(BOB) is None
    day.now += 15 * 3600
    assert await day.refusal(ANN) is None


async def test_the_minutes_of_all_end_everybody_s_calls() -> None:
    day = Day(service=10)
    day.talk("ann", 300)
    day.talk("bob", 301)
    assert await day.refusal(ANN) is not None
    assert await day.refusal(Identity("all")) is not None


async def test_a_caller_cannot_hide_behind_the_word_for_all() -> None:
    day = Day(caller=1)
    day.talk("ann", 61)
    assert await day.refusal(Identity("all")) is None


async def test_a_call_counts_as_it_goes_in_a_store_that_outlives_the_process(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "store")
    killed = Day(store, service=1)
    killed.event("ann", SessionStarted(0, 1))
    for _ in range(13):
        killed.now += 5
        killed.event("ann", FRAME)
    store.close()
    store = FileStore(tmp_path / "store")
    other = Day(store, service=1)
    assert await other.refusal(BOB) is not None
    store.close()


def test_what_is_used_is_for_those_who_are_logged_in() -> None:
    day = Day(service=60, caller=10)
    day.talk("ann", 120)
    assert day.plugin.notices(None) == []
    assert day.plugin.notices(ANN) == [
        "Used today: 2 of the 10 minutes of ann.",
        "Used today: 2 of the 60 minutes of all callers.",
    ]


async def test_a_running_call_ends_with_the_last_minute(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "STEP_S", 0.05)
    running = await serve(plugins={"options": {"budget": {"service_minutes": 0.3 / 60}}})
    async with dial(running.url("/ws/chat?audio=pcm"), "pcm") as caller:
        await caller.shake_hands()
        await caller.talk(speech(0.08))

        async def say() -> None:
            while True:
                await caller.say(speech(0.08))
                await asyncio.sleep(0.08)

        saying = asyncio.create_task(say())
        assert await caller.end() == 4010
        saying.cancel()
        await asyncio.gather(saying, return_exceptions=True)
    assert caller.error == "The 0.005 minutes of all callers for today are used up. They begin again at midnight, UTC."


async def test_the_service_refuses_the_call_after_the_last_minute(serve: Serve) -> None:
    options = {"password": {"named": {"ann": "a secret", "bob": "another"}}, "budget": {"caller_minutes": 1e-4}}
    running = await serve(plugins={"options": options})
    ann, bob = ({"Authorization": f"Bearer {secret}"} for secret in ("a secret", "another"))
    async with dial(running.url("/ws/chat?audio=pcm"), "pcm", additional_headers=ann) as caller:
        await caller.shake_hands()
        await caller.talk(speech(0.4))
    await running.record.ended()
    status, reason = await refused(running, "/ws/chat", additional_headers=ann)
    assert status == 429
    assert "minutes of ann" in reason
    async with dial(running.url(), additional_headers=bob) as caller:
        await caller.shake_hands()
    _, _, body = await get(running, "/session", **ann)
    assert json.loads(body)["notices"] == ["Used today: 0 of the 0.0001 minutes of ann."]
    _, _, body = await get(running, "/session")
    assert json.loads(body)["notices"] == []
