"""Clients of OpenAI's Live API that others wrote, unchanged: OpenAI's SDK, LiveKit's agents and Pipecat's pipelines.

They come on top of the project, for this file and `test_peers.py` alone: `.ci/run peers`.
"""

import asyncio
import base64
import contextlib
import re
import threading
import time
import typing
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from fnmatch import fnmatch
from typing import Any

import numpy as np
import pytest

from core import SessionControl, SessionHandler, hookimpl
from core.events import SessionEnded, TextSaid
from core.media.audio_codecs import Samples
from core.testing import EchoEngine
from plugins.openai_live.reading import EventError, read_event
from tests.caller import PLAIN, dial
from tests.conftest import Running, Serve, speech
from tests.documents import codes, doc, rows, section
from tests.test_audio import alike

pytestmark = pytest.mark.filterwarnings("default")
"""Warnings in others' code are theirs."""
CUSTOM = {**PLAIN, "personas": {"custom": True}}
KEY = "sesame"
LOCKED: dict[str, Any] = {"plugins": {"disabled": ["loudness"], "options": {"password": {"password": KEY}}}}
CHUNK = 480
"""20 ms."""


def imported(module: str) -> Any:
    """A package of a client. Skips the test where it is not installed."""
    return pytest.importorskip(module, reason=".ci/run peers installs it", exc_type=ImportError)


def pcm(samples: Samples) -> bytes:
    return (samples * 32767).astype("<i2").tobytes()


def samples_of(data: bytes) -> Samples:
    return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)


async def in_real_time(samples: Samples, push: Callable[[bytes], Any]) -> None:
    """Give the samples to `push` as they are spoken, 20 ms at a time."""
    began = time.monotonic()
    for start in range(0, len(samples), CHUNK):
        pushed = push(pcm(samples[start : start + CHUNK]))
        if asyncio.iscoroutine(pushed):
            await pushed
        await asyncio.sleep(max(0.0, began + (start + CHUNK) / 24_000 - time.monotonic()))


async def until(true: Callable[[], object]) -> None:
    """Return as soon as something is true."""
    async with asyncio.timeout(15):
        while not true():  # noqa: ASYNC110 - it is others' state
            await asyncio.sleep(0.02)


class Understands:
    """Knows what the caller says, as the plugin transcribe does."""

    @hookimpl
    def open_session(self, control: SessionControl) -> SessionHandler:
        class Ear(SessionHandler):
            frames = 0

            async def caller_frame(self, _frame: object) -> None:
                self.frames += 1
                if self.frames == 10:
                    control.caller_said("A table for two.", 0, 800)

        return Ear()


# OpenAI's SDK


@pytest.mark.slow
async def test_openais_async_client(serve: Serve) -> None:
    openai = imported("openai")
    running = await serve(**LOCKED)
    said = speech(2.0)
    words: list[Any] = []
    heard = b""
    client = openai.AsyncOpenAI(api_key=KEY, base_url=running.url("/v1", "http"))
    async with client.live.connect() as connection:
        await connection.session.start(
            session={"model": "personaplex/teacher", "audio": {"output": {"voice": "NATF2"}}}
        )
        talking: asyncio.Task[None] | None = None
        closed = None
        async for event in connection:
            match event.type:
                case "session.started":
                    assert event.session.model == "personaplex/teacher"
                    assert event.session.audio.output.voice == "NATF2"
                    assert event.session.status == "active"
                    assert 890 < event.session.expires_at - time.time() < 910
                    await connection.session.commentary.append(content="Good morning.", delegation_id=None)

                    async def talk() -> None:
                        await in_real_time(
                            said,
                            lambda data: connection.session.input_audio.append(audio=base64.b64encode(data).decode()),
                        )

                    talking = asyncio.create_task(talk())
                case "session.output_audio.delta":
                    heard += base64.b64decode(event.delta)
                    if len(heard) >= 2 * len(said):
                        await connection.session.close()
                case "session.output_transcript.delta":
                    words.append(event)
                case "session.closed":
                    closed = event
                case "error":
                    pytest.fail(str(event))
        assert talking is not None
        await talking
    assert closed is not None
    assert closed.reason == "close_requested"
    assert closed.usage.seconds == 2
    assert "Good morning." in "".join(word.delta for word in words)
    assert [word.start_ms for word in words] == sorted({word.start_ms for word in words})
    assert alike(said, samples_of(heard))
    [ended] = await running.record.ended()
    assert (ended.reason, ended.code) == ("left", 1000)


async def test_openais_sync_client(serve: Serve) -> None:
    """In a thread of its own: it sends and receives in two."""
    openai = imported("openai")
    running = await serve(**LOCKED)
    said = speech(1.0)
    heard: list[bytes] = []
    kinds: list[str] = []

    def call() -> None:
        client = openai.OpenAI(api_key=KEY, base_url=running.url("/v1", "http"))
        with client.live.connect() as connection:
            connection.session.start(session={"model": "personaplex"})

            def talk() -> None:
                for start in range(0, len(said), CHUNK):
                    data = pcm(said[start : start + CHUNK])
                    connection.session.input_audio.append(audio=base64.b64encode(data).decode())

            for event in connection:
                kinds.append(event.type)
                if event.type == "session.started":
                    threading.Thread(target=talk).start()
                elif event.type == "session.output_audio.delta":
                    heard.append(base64.b64decode(event.delta))
                    if sum(map(len, heard)) >= 2 * 12 * 1920:
                        connection.session.input_audio.mute()
                        connection.session.close()

    await asyncio.to_thread(call)
    assert kinds[-1] == "session.closed"
    assert alike(said[: 12 * 1920], samples_of(b"".join(heard)))


async def test_a_wrong_key_is_told_to_openais_client(serve: Serve) -> None:
    openai = imported("openai")
    websockets = imported("websockets")
    running = await serve(**LOCKED)
    client = openai.AsyncOpenAI(api_key="wrong", base_url=running.url("/v1", "http"))
    with pytest.raises(websockets.exceptions.InvalidStatus) as refusal:
        async with client.live.connect():
            pass
    assert refusal.value.response.status_code == 401


async def test_openais_client_reads_every_event(serve: Serve) -> None:
    """Each is one of the SDK's own types, with all the fields that it must have."""
    openai = imported("openai")
    live = imported("openai.types.live")
    running = await serve(extra=(Understands(),), **CUSTOM)
    client = openai.AsyncOpenAI(api_key="any", base_url=running.url("/v1", "http"))
    seen: dict[str, Any] = {}
    closing = False
    async with client.live.connect() as connection:
        await connection.session.start(
            session={
                "model": "gpt-live-1",
                "instructions": "You sell maps.",
                "audio": {"format": {"type": "audio/pcm", "rate": 16000}, "output": {"voice": {"id": "nobody"}}},
                "delegation": {"type": "client"},
            }
        )
        async for event in connection:
            seen.setdefault(event.type, event)
            match event.type:
                case "session.started":
                    for _ in range(12):
                        silence = base64.b64encode(bytes(2560)).decode()
                        await connection.session.input_audio.append(audio=silence)
                    await connection.session.input_audio.mute()
                    await connection.session.input_audio.unmute()
                    await connection.session.update(session={"delegation": {"type": "client"}})
                    await connection.session.thinking.append(content="Secret.", delegation_id=None)
                case "session.delegation.created":
                    await connection.session.commentary.append(
                        content="It is booked.", delegation_id=event.delegation.id
                    )
            if {"session.commentary.appended", "session.output_transcript.delta"} <= seen.keys() and not closing:
                closing = True
                await connection.session.close()
    kinds = {
        "info": live.InfoEvent,
        "error": live.ErrorEvent,
        "session.started": live.SessionStartedEvent,
        "session.updated": live.SessionUpdatedEvent,
        "session.closed": live.SessionClosedEvent,
        "session.input_audio.muted": live.InputAudioMutedEvent,
        "session.input_audio.unmuted": live.InputAudioUnmutedEvent,
        "session.input_transcript.delta": live.InputTranscriptDeltaEvent,
        "session.output_transcript.delta": live.OutputTranscriptDeltaEvent,
        "session.output_audio.delta": live.OutputAudioDeltaEvent,
        "session.delegation.created": live.DelegationCreatedEvent,
        "session.commentary.appended": live.CommentaryAppendedEvent,
    }
    assert set(seen) == set(kinds)
    for name, kind in kinds.items():
        assert isinstance(seen[name], kind)
        kind.model_validate(seen[name].to_dict())  # which construction alone does not do


# LiveKit


class Room:
    """What a LiveKit agent session hears and says, without a room."""

    def __init__(self) -> None:
        from livekit import rtc
        from livekit.agents.voice import io

        room = self
        self.microphone: asyncio.Queue[Any] = asyncio.Queue()
        self.played: Samples = np.empty(0, np.float32)
        self.segments = 0

        class Microphone(io.AudioInput):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__(label="test")

            async def __anext__(self) -> Any:
                return await room.microphone.get()

        class Loudspeaker(io.AudioOutput):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__(label="test", capabilities=io.AudioOutputCapabilities(pause=False), sample_rate=24_000)
                self._seconds = 0.0

            async def capture_frame(self, frame: Any) -> None:
                await super().capture_frame(frame)
                if not self._seconds:
                    self.on_playback_started(created_at=time.time())
                self._seconds += frame.duration
                room.played = np.concatenate([room.played, samples_of(bytes(frame.data))])

            def flush(self) -> None:
                super().flush()
                self._finish(interrupted=False)

            def clear_buffer(self) -> None:
                self._finish(interrupted=True)

            def _finish(self, interrupted: bool) -> None:
                if self._seconds:
                    room.segments += 1
                    self.on_playback_finished(playback_position=self._seconds, interrupted=interrupted)
                self._seconds = 0.0

        self.input, self.output = Microphone(), Loudspeaker()
        self._frame = rtc.AudioFrame

    def hear(self, data: bytes) -> None:
        """20 ms of the person in the room."""
        self.microphone.put_nowait(self._frame(data, 24_000, 1, len(data) // 2))


@asynccontextmanager
async def in_room(model: Any, instructions: str = "") -> AsyncIterator[tuple[Any, Room]]:
    """An agent session with a model, as an agent of LiveKit's has it."""
    agents = imported("livekit.agents")
    session, room = agents.AgentSession(llm=model), Room()
    session.input.audio, session.output.audio = room.input, room.output
    await session.start(agents.Agent(instructions=instructions), record=False)
    try:
        yield session, room
    finally:
        await session.aclose()


@asynccontextmanager
async def livekit(running: Running, *, instructions: str = "", **options: Any) -> AsyncIterator[tuple[Any, Room]]:
    """An agent session with the Live model of LiveKit's plugin for OpenAI."""
    realtime = imported("livekit.plugins.openai").realtime
    import aiohttp

    async with aiohttp.ClientSession() as http:
        url = running.url("/v1", "http")
        model = realtime.GPTLiveModel(base_url=url, api_key=KEY, http_session=http, **options)
        async with in_room(model, instructions) as (session, room):
            yield session, room


async def test_an_agent_of_livekits(serve: Serve) -> None:
    running = await serve(extra=(Understands(),), **LOCKED)
    lines: list[tuple[str, str]] = []
    async with livekit(running, model="personaplex/teacher", voice="NATF2", delegation="client") as (session, room):
        session.on(
            "conversation_item_added", lambda added: lines.append((added.item.role, added.item.text_content or ""))
        )
        duplex = session.current_agent.duplex_session
        delegations: list[Any] = []
        duplex.on("delegation_created", delegations.append)
        said = speech(2.4)
        await in_real_time(said, room.hear)
        assert [delegation.pending_transcript for delegation in delegations] == ["A table for two."]
        duplex.append_commentary("It is booked.", delegation_id=delegations[0].id)
        await in_real_time(speech(1.2), room.hear)
        await in_real_time(np.zeros(2 * 24_000, np.float32), room.hear)
        await until(lambda: room.segments)
        await until(lambda: any(role == "assistant" for role, _ in lines))
    assert ("user", "A table for two.") in lines
    assistant = " ".join(text for role, text in lines if role == "assistant")
    assert "word0" in assistant
    assert "It is booked." in assistant
    assert 3.2 < len(room.played) / 24_000 < 4.8  # what was said and 0.8 s of silence, without what is silent before
    [ended] = await running.record.ended()
    assert (ended.reason, ended.code) == ("left", 1000)


async def test_livekit_takes_silence_for_silence(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an engine at rest makes opens no turn, though it is louder than what LiveKit takes for speech."""
    monkeypatch.setattr("core.testing.echo_engine.WORD_INTERVAL", 10_000)
    running = await serve(**LOCKED)
    async with livekit(running, model="personaplex", voice="NATF2", delegation="client") as (_, room):
        await in_real_time(np.zeros(24_000, np.float32), room.hear)  # while its first word is to be said
        hiss = np.random.default_rng(0).normal(0, 0.0025, 2 * 24_000).astype(np.float32)
        await in_real_time(hiss, room.hear)
        assert len(room.played) == 0
        await in_real_time(speech(0.8), room.hear)
        await until(lambda: len(room.played) > 0.4 * 24_000)


async def test_livekits_defaults_are_answered(serve: Serve) -> None:
    """A model and a voice that are OpenAI's, a backend that is not there, and instructions of the agent's."""
    engine = EchoEngine()
    running = await serve(engine, **LOCKED)
    async with livekit(running, instructions="You sell maps.") as (_, room):
        await in_real_time(speech(0.8), room.hear)
        await until(lambda: len(room.played) > 0.4 * 24_000)
        assert engine.calls[0].prompt.text == "You sell maps."


async def test_livekits_order_to_speak_is_not_read_out(serve: Serve) -> None:
    running = await serve(**LOCKED)
    async with livekit(running, model="personaplex", voice="NATF2") as (session, room):
        errors: list[Any] = []
        session.on("error", errors.append)
        session.generate_reply(instructions="Greet the caller.")
        talking = asyncio.create_task(in_real_time(speech(1.6), room.hear))
        await until(lambda: errors)
        await talking
        assert errors[0].error.recoverable
    said = "".join(event.text for event in running.record.of(TextSaid))
    assert "Greet" not in said
    assert "caller" not in said


async def test_livekit_gives_up_where_it_may_not_call(serve: Serve) -> None:
    running = await serve(**LOCKED, personas={"custom": False})
    async with livekit(running, instructions="You sell maps.") as (session, _):
        errors: list[Any] = []
        session.on("error", errors.append)
        await until(lambda: any(not error.error.recoverable for error in errors))


# Pipecat


@asynccontextmanager
async def in_pipeline(service: Any) -> AsyncIterator[tuple[Any, list[Any]]]:
    """A pipeline with a service, whose session has begun, and every frame that comes out of it."""
    from pipecat.frames.frames import Frame, LLMRunFrame
    from pipecat.pipeline.pipeline import Pipeline
    from pipecat.pipeline.worker import PipelineParams, PipelineWorker
    from pipecat.processors.aggregators.llm_context import LLMContext
    from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
    from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
    from pipecat.workers.runner import WorkerRunner

    frames: list[Any] = []

    class Sink(FrameProcessor):  # type: ignore[misc]
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            frames.append(frame)
            await self.push_frame(frame, direction)

    started = asyncio.Event()

    async def begun(*_: object) -> None:
        started.set()

    service.add_event_handler("on_session_started", begun)
    aggregators = LLMContextAggregatorPair(LLMContext())
    pipeline = Pipeline([aggregators.user(), service, Sink(), aggregators.assistant()])
    worker = PipelineWorker(pipeline, params=PipelineParams(audio_in_sample_rate=24_000, audio_out_sample_rate=24_000))
    runner = WorkerRunner(handle_sigint=False, handle_sigterm=False)
    await runner.add_workers(worker)
    run = asyncio.create_task(runner.run())
    await worker.queue_frames([LLMRunFrame()])
    try:
        async with asyncio.timeout(15):
            await started.wait()  # what is said before is dropped by the service
        yield worker, frames
    finally:
        await worker.stop_when_done()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait_for(run, 15)


async def test_a_pipeline_of_pipecats(serve: Serve) -> None:
    imported("pipecat")
    from pipecat.frames.frames import InputAudioRawFrame, SpeechOutputAudioRawFrame, TranscriptionFrame, TTSTextFrame

    engine = EchoEngine()
    running = await serve(engine, **LOCKED)
    said = speech(2.0)
    live = imported("pipecat.services.openai.live.llm").OpenAILiveLLMService
    service = live(
        api_key=KEY,
        base_url=running.url("/v1/live/sessions"),
        settings=live.Settings(model="personaplex", voice="NATF2", system_instruction="You sell maps."),
    )
    async with in_pipeline(service) as (worker, frames):
        assert engine.calls[0].prompt.text == "You sell maps."

        async def push(data: bytes) -> None:
            await worker.queue_frames([InputAudioRawFrame(data, 24_000, 1)])

        await in_real_time(said, push)
        await until(lambda: sum(isinstance(frame, SpeechOutputAudioRawFrame) for frame in frames) >= 25)
    heard = samples_of(b"".join(frame.audio for frame in frames if isinstance(frame, SpeechOutputAudioRawFrame)))
    assert alike(said, heard)
    assert "word0" in "".join(frame.text for frame in frames if isinstance(frame, TTSTextFrame))
    assert not any(isinstance(frame, TranscriptionFrame) for frame in frames)
    [ended] = await running.record.ended()
    assert (ended.reason, ended.code) == ("left", 1000)


# Together


async def test_two_of_them_beside_a_caller_of_the_page(serve: Serve) -> None:
    """Whoever else calls, everybody hears themselves alone, and the caller of the page the same as without them."""
    openai = imported("openai")
    running = await serve(EchoEngine(slots=3), **LOCKED)

    async def call(seed: int) -> tuple[Samples, Samples]:
        said, heard = speech(0.8, seed), b""
        client = openai.AsyncOpenAI(api_key=KEY, base_url=running.url("/v1", "http"))
        async with client.live.connect() as connection:
            await connection.session.start(session={"model": "personaplex"})
            async for event in connection:
                if event.type == "session.started":
                    for start in range(0, len(said), CHUNK):
                        data = base64.b64encode(pcm(said[start : start + CHUNK])).decode()
                        await connection.session.input_audio.append(audio=data)
                elif event.type == "session.output_audio.delta":
                    heard += base64.b64decode(event.delta)
                    if len(heard) >= 2 * len(said):
                        await connection.session.close()
        return said, samples_of(heard)

    headers = {"Authorization": f"Bearer {KEY}"}
    async with dial(running.url("/ws/chat?audio=pcm"), "pcm", additional_headers=headers) as page:
        await page.shake_hands()
        said = speech(0.8, 9)
        *calls, heard = await asyncio.gather(call(1), call(2), page.talk(said))
    assert np.allclose(said, heard, atol=1e-3)
    for mine, came in calls:
        assert alike(mine, came)
    ends: list[SessionEnded] = await running.record.ended(3)
    assert [end.reason for end in ends] == ["left"] * 3


# The recipes


def recipe(name: str, running: Running) -> dict[str, Any]:
    """What the Python of a recipe defines, with this service in place of the one that it names."""
    (code,) = re.findall(r"```python\n(.*?)```", doc(f"recipes/{name}"), re.DOTALL)
    code = code.replace("https://talk.example.com", running.url("", "http"))
    code = code.replace("wss://talk.example.com", running.url("")).replace("PASSWORD", KEY)
    code = code.replace("personaplex/hotel", "personaplex/teacher")
    names: dict[str, Any] = {}
    exec(code, names)
    return names


async def test_the_recipe_for_openais_sdk(serve: Serve) -> None:
    imported("openai")
    running = await serve(**LOCKED)
    said, heard = speech(0.8), bytearray()

    async def microphone() -> AsyncIterator[bytes]:
        for start in range(0, len(said), CHUNK):
            yield pcm(said[start : start + CHUNK])
        await until(lambda: len(heard) == 2 * len(said))

    words = await recipe("openai-live", running)["talk"](microphone(), heard.extend)
    assert alike(said, samples_of(bytes(heard)))
    assert "word0" in words


async def test_the_recipe_for_livekit(serve: Serve) -> None:
    imported("livekit.plugins.openai")
    running = await serve(**LOCKED)
    import aiohttp

    async with aiohttp.ClientSession() as http:
        model = recipe("livekit-live", running)["model"]
        model._http_session = http  # LiveKit's own is for its workers
        async with in_room(model) as (session, room):
            session.current_agent.duplex_session.append_commentary("Good morning, Harbour Hotel.")
            await in_real_time(speech(1.2), room.hear)
            await until(lambda: "Hotel." in "".join(text.text for text in running.record.of(TextSaid)))


async def test_the_recipe_for_pipecat(serve: Serve) -> None:
    imported("pipecat")
    running = await serve(**LOCKED)
    async with in_pipeline(recipe("pipecat", running)["llm"]):
        await until(lambda: running.engine.calls)
        assert running.engine.calls[0].prompt.text == "You teach."


# The documentation


def event_types(union: Any) -> set[str]:
    """The `type` of each event of a union of the SDK's."""
    kinds = typing.get_args(typing.get_args(union)[0])
    return {word for kind in kinds for word in typing.get_args(kind.model_fields["type"].annotation)}


@pytest.mark.parametrize(
    ("section_name", "union"), [("Events of the client", "ClientEvent"), ("Events of the server", "ServerEvent")]
)
def test_the_documentation_speaks_of_every_event_of_openais(section_name: str, union: str) -> None:
    live = imported("openai.types.live")
    table = section(doc("openai-live"), section_name)
    named: list[str] = []
    for word in codes(" ".join(name for name, *_ in rows(table))):
        named.append(word if not word.startswith(".") else named[-1].rpartition(".")[0] + word)
    for event in event_types(getattr(live, union)):
        assert any(fnmatch(event, pattern) for pattern in named), event


def test_every_event_of_openais_is_known_to_the_service() -> None:
    """Also those that it does not have: their error says why."""
    live = imported("openai.types.live")
    for event in event_types(live.ClientEvent):
        code = ""
        try:
            read_event(f'{{"type": "{event}"}}')
        except EventError as error:
            code = error.detail.code
        assert code != "unknown_event", event
