"""How containers with a GPU end on Modal, what a day may cost, and when no other is started."""

import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.errors import RefusedError
from deploy import records as recorded
from deploy.choices import Deployment
from deploy.ledger import Ledger, today
from deploy.records import Report
from deploy.waking import Waking
from tests.caller import dial
from tests.conftest import speech
from tests.deployed import DictRecords, LocalGpus, place
from tests.deployed_service import BEARER, Serve, reports, service, until

pytestmark = pytest.mark.modal
__all__ = ["place", "service"]  # fixtures


async def test_a_container_ends_when_nobody_calls_and_not_while_somebody_does(service: Serve) -> None:
    async with service(scaledown_s=0.5) as here:
        socket = await here.awake()
        async with dial(f"{socket}/ws/chat?audio=pcm", "pcm", additional_headers=BEARER) as caller:
            await caller.shake_hands()
            await caller.talk(speech(1.2))
            assert not here.gpus.running["fc-1"].done()
        await until(lambda: here.gpus.running["fc-1"].done())
        assert here.gpus.running["fc-1"].exception() is None
        assert not reports(here)
        assert here.gpus.commits, "recordings are kept"
        spent = here.records.kept["spent fc-1"]
        assert spent[f"{today()} gpu"] > 1.2
        assert (await here.calls())[0] == 202, "the next caller wakes another"
        assert "fc-2" in here.gpus.running


async def test_callers_are_said_goodbye_to_where_modal_takes_the_machine(service: Serve) -> None:
    """Modal interrupts the container with SIGINT, of which its client makes the cancellation of the call."""
    async with service() as here:
        (here.gpus.place / "config.yaml").write_text("server: {drain_s: 0}")
        socket = await here.awake()
        async with dial(f"{socket}/ws/chat", additional_headers=BEARER) as caller:
            await caller.shake_hands()
            here.gpus.running["fc-1"].cancel()
            assert await caller.end() == 1001, "upon which the page calls again"
        await until(lambda: here.gpus.running["fc-1"].done())
        assert here.gpus.running["fc-1"].exception() is None, "which is no failure, and not to be repeated"
        assert not reports(here)
        assert (await here.calls())[0] == 202


async def test_a_container_that_dies_without_a_word_is_replaced(
    service: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with service() as here:
        first = await here.awake()
        silent = here.records.kept["container fc-1"]
        await here.gpus.close()
        here.records.kept["container fc-1"] = {**silent, "at": time.time() - 10}
        assert (await here.calls())[1] == {"url": first}, "for a while it may only be slow"
        here.records.kept["container fc-1"] = {**silent, "at": time.time() - 16}
        assert (await here.calls())[0] == 202
        assert "fc-2" in here.gpus.running


async def test_a_sick_engine_s_container_takes_no_more_calls(service: Serve) -> None:
    async with service() as here:
        await here.awake()
        engine = here.gpus.engines["fc-1"]
        health = engine.health()
        engine.health = lambda: replace(health, problem="CUDA error: an illegal memory access")
        await until(lambda: here.gpus.running["fc-1"].done())
        assert "illegal memory access" in str(here.gpus.running["fc-1"].exception())
        assert not reports(here)
        assert (await here.calls())[0] == 202
        assert list(here.gpus.running) == ["fc-1", "fc-2"]


async def test_starts_that_fail_end_after_two_with_the_reason(service: Serve) -> None:
    async with service() as here:
        here.gpus.fail_with = "The Volume personaplex has no whole checkpoint."
        statuses: list[int] = []
        async with asyncio.timeout(20):
            while not statuses or statuses[-1] != 503:
                status, body = await here.calls()
                statuses.append(status)
        assert "2 times in a row" in body["error"]
        assert "no whole checkpoint" in body["error"]
        assert len(here.gpus.running) == 2
        assert (await here.calls())[0] == 503
        assert len(here.gpus.running) == 2, "each start costs, so nobody causes another"
        kept = here.records
    async with service(kept) as here:  # the page's own container may come and go
        assert (await here.calls())[0] == 503
        assert not here.gpus.running


async def test_the_day_s_minutes_end_calls_and_starts(service: Serve) -> None:
    async with service(gpu_minutes=1) as here:
        (here.gpus.place / "config.yaml").write_text("server: {drain_s: 0}")
        await here.awake()
        here.records.kept["spent yesterday's"] = {"2020-01-01 gpu": 1e9, f"{today()} gpu": 30.0}
        assert (await here.calls())[0] == 200
        here.records.kept["spent another"] = {f"{today()} gpu": 31.0}
        await until(lambda: here.gpus.running["fc-1"].done())
        status, body = await here.calls()
        assert (status, "1 minutes of GPU time for today" in body["error"]) == (503, True)
        assert len(here.gpus.running) == 1


async def test_a_caller_without_minutes_wakes_nothing(service: Serve, place: Path) -> None:
    settings = {"plugins": {"options": {"budget": {"caller_minutes": 5}}}}
    (place / "config.yaml").write_text(json.dumps(settings))
    records = DictRecords()
    records.kept["spent another"] = {f"{today()} caller caller": 301.0}
    async with service(records) as here:
        status, body = await here.calls()
        assert (status, "5 minutes of caller" in body["error"]) == (429, True)
        assert not here.gpus.running


async def test_a_later_deployment_ends_the_containers_of_the_one_before(service: Serve) -> None:
    async with service() as here:
        await here.awake()
        page = Waking(Deployment(deployed=2), here.records, Ledger(here.records, "page"), here.gpus, 60)
        place = await page.place()
        assert not place.url, "its callers go to a container of its own"
        await until(lambda: here.gpus.running["fc-1"].done())
        assert here.gpus.running["fc-1"].exception() is None


async def test_a_start_that_hangs_is_given_up(place: Path) -> None:
    records, now = DictRecords(), [1000.0]
    gpus = LocalGpus(records, place, "http://localhost", Deployment(), hang=True)
    waking = Waking(Deployment(), records, Ledger(records, "page"), gpus, 60, lambda: now[0])
    for _ in range(2):
        assert (await waking.place()).waited_s == 0
        now[0] += 59
        assert (await waking.place()).waited_s == 59
        now[0] += 2
    with pytest.raises(RefusedError, match=r"longer than 1 minutes\. Modal may have no A10G"):
        await waking.place()
    assert len(gpus.running) == 2
    now[0] += 3700
    assert not (await waking.place()).url, "it is tried again later"
    await gpus.close()
    assert all(task.cancelled() for task in gpus.running.values())


async def test_a_container_that_modal_starts_again_is_waited_for(place: Path) -> None:
    """After a preemption Modal repeats the call, under the same id."""
    records, now = DictRecords(), [1000.0]
    gpus = LocalGpus(records, place, "http://localhost", Deployment(), hang=True)
    waking = Waking(Deployment(), records, Ledger(records, "page"), gpus, 60, lambda: now[0])
    await waking.place()
    report = Report("fc-1", "https://a.modal.host", now[0], slots=6, busy=1, waiting=0, ended=0, deployed=0)
    await recorded.write_report(records, report)
    assert (await waking.place()).url == "https://a.modal.host"
    now[0] += 3000
    await recorded.write_report(records, replace(report, at=now[0]))
    assert (await waking.place()).url
    now[0] += 16
    assert (await waking.place()).waited_s == 16
    assert len(gpus.running) == 1
    await gpus.close()


async def test_what_an_earlier_deployment_wrote_in_another_form_is_left_out() -> None:
    records = DictRecords()
    written: dict[str, Any] = {"container a": {"url": 1}, "container b": 3, "page": "x", "spent c": None, "other": {}}
    records.kept |= written
    known = await recorded.read(records)
    assert (known.reports, known.spent, known.page) == ((), {}, recorded.PageNotes())
