"""Prometheus metrics at `GET /metrics`: calls, the time that each frame and its parts take, plugins, slots and memory.

The endpoint is for authenticated callers. Where callers must log in, give the scraper a token, which it sends as
`Authorization: Bearer`. Where a service has several processes, whichever worker is asked answers for all of them.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from core import (
    FRAME_SAMPLES,
    SAMPLE_RATE,
    CallRefused,
    Engine,
    FirstAudio,
    FramesDropped,
    FrameTimed,
    HandlerFailed,
    PluginFailed,
    ServiceEvent,
    SessionEnded,
    SessionEvent,
    SessionInfo,
    SessionQueued,
    SessionReady,
    SessionStarted,
    SettingsReloaded,
    TransformFailed,
    hookimpl,
)

FRAME_MS = 1000 * FRAME_SAMPLES / SAMPLE_RATE
FRAME_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.16, 0.24, 0.4, 1.0)
"""Seconds: fine up to the 80 ms of a frame, then coarse up to where a lagging caller loses frames."""
PLUGIN_BUCKETS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.08)
"""Seconds: around the 8 ms that all transforms of one direction may take by default."""
WAIT_BUCKETS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
CALL_BUCKETS = (1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0)
SMOOTHING = 0.02
"""Weight of each frame in the real-time factor, which so averages about the last 50 frames; the first weigh more."""
MAX_IDENTITIES = 100
"""How many callers are counted by name. All others are `other`, so that strangers cannot create unlimited series."""


SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that makes prometheus_client add up several processes; set in the workers of a service."""


class Plugin:
    """Updates the metrics from events. Each instance has its own registry."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._shared = os.environ.get(SHARED_FOLDER, "")
        self._scraped = CollectorRegistry() if self._shared else registry
        self._waiting: set[str] = set()
        self._active: set[str] = set()
        self._identities: set[str] = set()
        self._frames = 0
        self._factor = 0.0

        def gauge(name: str, text: str, mode: Literal["livesum", "livemax"]) -> Gauge:
            return Gauge(f"personaplex_{name}", text, registry=registry, multiprocess_mode=mode)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"personaplex_{name}", text, labels, registry=registry)

        def seconds(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"personaplex_{name}_seconds", text, labels, buckets=buckets, registry=registry)

        self._calls_active = gauge("calls_active", "Calls that have a slot.", "livesum")
        self._calls_waiting = gauge("calls_waiting", "Callers in the queue.", "livesum")
        self._started = counter("calls_started", "Calls that got a slot, by who called.", "identity")
        self._refused = counter("calls_refused", "Calls that got no slot, by reason.", "reason")
        self._ended = counter("calls_ended", "Calls that had a slot and ended, by reason.", "reason")
        self._talk = counter("talk_seconds", "How long calls lasted in all, by who called.", "identity")
        self._call = seconds("call", "How long calls lasted, from the handshake.", CALL_BUCKETS)
        self._queue = seconds("queue", "Wait for a slot.", WAIT_BUCKETS)
        self._prompt = seconds("prompt", "From the slot to the handshake: the prompt.", WAIT_BUCKETS)
        self._first = seconds("first_audio", "From the handshake to the agent's first frame.", WAIT_BUCKETS)
        self._frame = seconds("frame", "From a frame received to its answer sent.", FRAME_BUCKETS)
        parts = seconds("frame_part", "The parts of that time.", FRAME_BUCKETS, "part")
        self._parts = [parts.labels(part) for part in ("decode", "transforms", "wait", "step", "encode")]
        """One of each, so that a frame costs no look-up of labels."""
        text = "The engine's step as part of a frame's 80 ms; above 1 it falls behind."
        self._real_time_factor = gauge("real_time_factor", text, "livemax")
        self._lag = seconds("input_lag", "The caller's audio that waits for its answer.", FRAME_BUCKETS)
        self._dropped = counter("frames_dropped", "The caller's frames dropped to bound the lag.")
        self._plugin = seconds("plugin", "A plugin's transforms of one frame.", PLUGIN_BUCKETS, "plugin")
        self._plugins: dict[str, Histogram] = {}
        """The times of each plugin whose transforms have run."""
        self._faults = counter("plugin_faults", "Hooks that raised, transforms left out.", "plugin", "hook")
        self._reloads = counter("reloads", "Edits of config.yaml: ok, or broken and left out.", "result")
        if self._shared:
            MultiProcessCollector(self._scraped, self._shared)  # type: ignore[no-untyped-call]
            self._scraped.register(ServiceProcesses())
        else:
            ProcessCollector(registry=registry)

    @hookimpl
    def startup(self, engine: Engine | None) -> None:
        if engine is not None:
            self._scraped.register(EngineCollector(engine))

    @hookimpl
    def register_routes(self) -> list[BaseRoute]:
        return [Route("/metrics", self.serve)]

    async def serve(self, request: Request) -> Response:
        """`GET /metrics`, in the format that the scraper accepts."""
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        text = await run_in_threadpool(encode, self)
        return Response(text, media_type=content_type)

    def collect(self) -> Iterator[Metric]:
        """The registry's metrics for the encoder, without the creation timestamps that the client library adds."""
        if self._shared:
            _forget_the_dead(Path(self._shared))
        for metric in self._scraped.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric

    @hookimpl
    def service_event(self, event: ServiceEvent) -> None:
        match event:
            case CallRefused(reason=reason):
                self._refused.labels(reason).inc()
            case PluginFailed(plugin=plugin, hook=hook):
                self._faults.labels(plugin, hook).inc()
            case SettingsReloaded(problems=problems):
                self._reloads.labels("broken" if problems else "ok").inc()

    @hookimpl
    def session_event(self, session: SessionInfo, event: SessionEvent) -> None:
        match event:
            case FrameTimed():
                self._count_frame(event)
            case SessionQueued():
                self._waiting.add(session.id)
            case SessionStarted(waited_ms=waited):
                self._waiting.discard(session.id)
                self._active.add(session.id)
                self._started.labels(self._identity(session.identity.name)).inc()
                self._queue.observe(waited / 1000)
            case SessionReady(prompt_ms=prompt):
                self._prompt.observe(prompt / 1000)
            case FirstAudio(after_ms=after):
                self._first.observe(after / 1000)
            case FramesDropped(count=count):
                self._dropped.inc(count)
            case TransformFailed(plugin=plugin):
                self._faults.labels(plugin, "transform").inc()
            case HandlerFailed(plugin=plugin):
                self._faults.labels(plugin, "handler").inc()
            case SessionEnded(reason=reason, seconds=lasted):
                self._waiting.discard(session.id)
                if session.id in self._active:
                    self._active.discard(session.id)
                    self._ended.labels(reason).inc()
                    self._call.observe(lasted)
                    self._talk.labels(self._identity(session.identity.name)).inc(lasted)
                else:
                    self._refused.labels(reason).inc()
        if not isinstance(event, FrameTimed):
            self._calls_active.set(len(self._active))
            self._calls_waiting.set(len(self._waiting))

    def _count_frame(self, event: FrameTimed) -> None:
        self._frame.observe(event.total_ms / 1000)
        spent = (event.decode_ms, event.transform_ms, event.wait_ms, event.step_ms, event.encode_ms)
        for part, part_ms in zip(self._parts, spent, strict=True):
            part.observe(part_ms / 1000)
        for plugin, plugin_ms in event.transforms:
            self._plugin_times(plugin).observe(plugin_ms / 1000)
        self._lag.observe(event.lag_ms / 1000)
        self._frames += 1
        self._factor += max(SMOOTHING, 1 / self._frames) * (event.step_ms / FRAME_MS - self._factor)
        self._real_time_factor.set(self._factor)

    def _plugin_times(self, plugin: str) -> Histogram:
        times = self._plugins.get(plugin)
        if times is None:
            times = self._plugins[plugin] = self._plugin.labels(plugin)
        return times

    def _identity(self, name: str) -> str:
        if name not in self._identities and len(self._identities) >= MAX_IDENTITIES:
            return "other"
        self._identities.add(name)
        return name


class EngineCollector(Collector):
    """The slots of each engine and the memory of its device, read at each scrape."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> list[Metric]:
        """See Collector."""

        def gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"personaplex_{name}", text, labels=("device", *labels))

        slots = gauge("engine_slots", "Calls that the engine can hold.")
        busy = gauge("engine_busy_slots", "Slots in use.")
        up = gauge("engine_up", "1 while the engine serves.")
        memory = gauge("gpu_memory_bytes", "Memory of each GPU.", "kind")
        for device in self._engine.devices():
            slots.add_metric([device.device], device.slots)
            busy.add_metric([device.device], device.busy)
            up.add_metric([device.device], not device.problem)
            for kind, size in device.memory.items():
                memory.add_metric([device.device, kind], size)
        return [slots, busy, up, memory]


class ServiceProcesses(Collector):
    """The `process_*` metrics of all processes of a service together: the supervisor, this worker's parent, and those
    that it has started. Of dates and limits it is the least."""

    LEAST = ("process_start_time_seconds", "process_max_fds")

    def collect(self) -> list[Metric]:
        """See Collector."""
        supervisor = os.getppid()
        children = Path(f"/proc/{supervisor}/task/{supervisor}/children")
        pids = [supervisor, *(children.read_text().split() if children.is_file() else [os.getpid()])]
        total: dict[str, Metric] = {}
        for pid in pids:
            for metric in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
                known = total.setdefault(metric.name, metric)
                if known is not metric:
                    [one], [other] = known.samples, metric.samples
                    least = metric.name in self.LEAST
                    value = min(one.value, other.value) if least else one.value + other.value
                    known.samples = [one._replace(value=value)]
        return list(total.values())


def _forget_the_dead(folder: Path) -> None:
    """Leave out what processes that have ended had under way; what they counted stays."""
    for path in folder.glob("gauge_live*.db"):
        pid = path.stem.rpartition("_")[2]
        if not Path(f"/proc/{pid}").exists():
            mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
