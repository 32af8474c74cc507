"""What `/metrics` says: of calls, refusals and faults; that documentation and dashboard speak of nothing else."""

import asyncio
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from core.engine.call import DeviceHealth, Frame
from core.events import FramesDropped, FrameTimed, Identity, SessionEnded, SessionInfo, SessionStarted
from core.plugin.hookspecs import hookimpl
from core.testing import EchoEngine
from plugins import metrics
from tests.caller import dial, get, refused
from tests.conftest import Running, Serve, speech
from tests.documents import codes, doc, rows, section

ROOT = Path(__file__).parent.parent
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def scrape(running: Running, **headers: str) -> Samples:
    """Every sample of `/metrics`, by name and labels."""
    status, given, body = await get(running, "/metrics", **headers)
    assert (status, given["content-type"].partition(";")[0]) == (200, "text/plain")
    families = text_string_to_metric_families(body.decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((f"personaplex_{name}", tuple(sorted(labels.items()))), 0.0)


class Halves:
    """A transform of the caller's frames; its session event always fails."""

    @hookimpl
    def transform_input(self) -> "Halves":
        return self

    def process(self, frame: Frame) -> Frame:
        return frame / np.float32(2)

    @hookimpl
    def session_event(self) -> None:
        raise RuntimeError("out of order")


async def test_a_call_is_counted_from_the_queue_to_its_end(serve: Serve) -> None:
    running = await serve(EchoEngine(slots=1), extra=(Halves(),))
    async with dial(running.url("/ws/chat?audio=pcm"), "pcm") as caller, dial(running.url()) as second:
        await caller.shake_hands()
        await caller.talk(speech(0.8))
        await running.record.until(lambda: running.service.admission.waiting == 1)
        now = await scrape(running)
        assert (value(now, "calls_active"), value(now, "calls_waiting")) == (1, 1)
        engine = [value(now, name, device="0 cpu") for name in ("engine_slots", "engine_busy_slots", "engine_up")]
        assert engine == [1, 1, 1]
        await second.socket.close()
        await running.record.ended(1)
    await running.record.ended(2)
    after = await scrape(running)
    assert (value(after, "calls_active"), value(after, "calls_waiting")) == (0, 0)
    assert value(after, "calls_started_total", identity="anonymous") == 1
    assert value(after, "calls_ended_total", reason="left") == 1
    assert value(after, "calls_refused_total", reason="left") == 1
    for name in ("call", "queue", "prompt", "first_audio"):
        assert value(after, f"{name}_seconds_count") == 1
    parts = ("decode", "transforms", "wait", "step", "encode")
    for labels in ({}, *({"part": part} for part in parts)):
        name = "frame_part" if labels else "frame"
        assert value(after, f"{name}_seconds_count", **labels) == 10
        assert value(after, f"{name}_seconds_sum", **labels) > 0
    assert sum(value(after, "frame_part_seconds_sum", part=part) for part in parts) <= value(after, "frame_seconds_sum")
    assert value(after, "input_lag_seconds_count") == 10
    assert value(after, "plugin_seconds_count", plugin="Halves") == 10
    assert value(after, "plugin_seconds_count", plugin="loudness") == 10
    assert value(after, "plugin_faults_total", plugin="Halves", hook="session_event") >= 10
    assert 0 < value(after, "real_time_factor") < 1


class Slow:
    """A transform that raises at once."""

    @hookimpl
    def transform_output(self) -> "Slow":
        return self

    def process(self, frame: Frame) -> Frame:
        raise RuntimeError


async def test_refusals_drops_and_lost_transforms_are_counted(serve: Serve) -> None:
    engine = EchoEngine(slots=1, max_waiting=2)
    running = await serve(engine, extra=(Slow(),), server={"queue": 0})
    assert (await refused(running, "/ws/chat?persona=nobody"))[0] == 404
    assert (await refused(running, "/api/chat?audio_temperature=hot"))[0] == 400
    async with dial(running.url("/ws/chat?audio=pcm"), "pcm") as caller:
        await caller.shake_hands()
        async with dial(running.url()) as second:
            assert await second.end() == 1013
        await caller.talk(speech(0.08))
        engine.steps.clear()
        await caller.say(speech(0.8))
        while sum(event.count for event in running.record.of(FramesDropped)) < 7:
            await caller.say(speech(0.08))  # the oldest must have waited for 160 ms
            await asyncio.sleep(0.02)
        engine.steps.set()
    now = await scrape(running)
    assert value(now, "calls_refused_total", reason="not_found") == 1
    assert value(now, "calls_refused_total", reason="bad_request") == 1
    assert value(now, "calls_refused_total", reason="busy") == 1
    assert value(now, "frames_dropped_total") == sum(event.count for event in running.record.of(FramesDropped))
    assert value(now, "plugin_faults_total", plugin="Slow", hook="transform") == 1


class Door:
    """Only one token opens."""

    @hookimpl
    def authenticate(self, connection: Any) -> Identity | None:
        return Identity("scraper") if connection.headers.get("authorization") == "Bearer open" else None


async def test_a_scraper_logs_in_like_everybody(serve: Serve) -> None:
    running = await serve(extra=(Door(),))
    assert (await get(running, "/metrics"))[0] == 401
    assert (await refused(running, "/ws/chat"))[0] == 401
    now = await scrape(running, authorization="Bearer open")
    assert value(now, "calls_refused_total", reason="unauthorized") == 1
    status, headers, body = await get(
        running, "/metrics", authorization="Bearer open", accept="application/openmetrics-text; version=1.0.0"
    )
    assert status == 200
    assert headers["content-type"].startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_strangers_cannot_make_series_without_end() -> None:
    plugin = metrics.Plugin()
    for number in range(metrics.MAX_IDENTITIES + 50):
        session = SessionInfo(f"s{number}", Identity(f"caller{number}"), "a", "NATF2", "/ws/chat", "::1", "pcm")
        plugin.session_event(session, SessionStarted(0, 1))
        plugin.session_event(session, SessionEnded("left", 1000, 0, 0, 0, 0))
    (metric,) = [metric for metric in plugin.collect() if metric.name == "personaplex_calls_started"]
    assert len(metric.samples) == metrics.MAX_IDENTITIES + 1
    assert [sample.value for sample in metric.samples if sample.labels["identity"] == "other"] == [50]


def test_the_real_time_factor_follows_the_step() -> None:
    plugin = metrics.Plugin()
    session = SessionInfo("s", Identity("a"), "a", "NATF2", "/ws/chat", "::1", "pcm")
    for step, expected in ((40.0, 0.5), (160.0, 2.0)):
        for _ in range(500):
            plugin.session_event(session, FrameTimed(1, 1, 1, step, 1, 200))
        assert plugin.registry.get_sample_value("personaplex_real_time_factor") == pytest.approx(expected, abs=0.01)


def test_the_memory_of_each_gpu_is_there() -> None:
    engine = EchoEngine()
    health = DeviceHealth("0 GPU", 1, 2, "", {"total": 24 << 30, "reserved": 18 << 30, "allocated": 17 << 30})
    engine.devices = lambda: (health, replace(health, device="1 GPU", memory={}))  # type: ignore[method-assign]
    memory = {
        (sample.labels["device"], sample.labels["kind"]): sample.value
        for metric in metrics.EngineCollector(engine).collect()
        for sample in metric.samples
        if sample.name == "personaplex_gpu_memory_bytes"
    }
    assert memory == {("0 GPU", "total"): 24 << 30, ("0 GPU", "reserved"): 18 << 30, ("0 GPU", "allocated"): 17 << 30}


async def exposed(running: Running) -> dict[str, str]:
    """The kind of every metric that `/metrics` has."""
    body = (await get(running, "/metrics"))[2].decode()
    return dict(re.findall(r"^# TYPE (\S+) (\S+)$", body, re.MULTILINE))


async def test_documentation_and_dashboard_know_exactly_the_metrics_there_are(serve: Serve) -> None:
    kinds = await exposed(await serve())
    table = rows(section(doc("operating"), "Metrics"))
    assert {codes(name)[0]: kind for name, kind, _ in table} == kinds

    ends = ("_bucket", "_sum", "_count")
    names = set(kinds) | {f"{name}{end}" for name in kinds if kinds[name] == "histogram" for end in ends}
    dashboard = json.loads((ROOT / "dashboards" / "grafana.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    queries += [
        variable["query"]["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"
    ]
    assert queries
    shown = set()
    for query in queries:
        used = re.findall(r"\b(?:personaplex|process)_\w+", query)
        assert used, query
        assert not set(used) - names, query
        shown |= set(used)
    own = {name for name in kinds if name.startswith("personaplex_")}
    assert not {name for name in own if not any(use.startswith(name) for use in shown)}
