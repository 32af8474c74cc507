"""What a service in several processes is made of: how many there are, the bytes between them, a call at a distance."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from core.boot import sizing
from core.boot.sizing import Processes, carried_callers, count_workers, plan_processes
from core.engine.call import FRAME_SAMPLES, OutputFrame
from core.engine.input_queue import MOST_FRAMES
from core.engine.prompt import Prompt, Voice
from core.engine.sampling import Sampling
from core.errors import ConfigError, EngineBusyError, EngineError, PromptError
from core.plugin.file_store import FileStore
from core.plugin.store import MemoryStore, Numbers, Store
from core.session.admission import Caller, TooManyCallsError
from core.settings.config import Config
from core.settings.sections import EngineConfig, ServerConfig
from core.testing import EchoEngine
from core.workers import envelopes
from core.workers.connection import Connection
from core.workers.engine_server import EngineServer, WorkerLink
from core.workers.envelopes import ENVELOPE, MAX_BODY_BYTES
from core.workers.messages import Ask, Failure, Message, SentPrompt, State
from core.workers.remote_call import CREDIT, EngineLink, RemoteCall
from core.workers.voice_files import MOST_FILES, VoiceFiles


def config(workers: int | str = "auto", **engine: object) -> Config:
    return Config(server=ServerConfig(workers=workers), engine=EngineConfig(**engine))  # type: ignore[arg-type]


def test_one_process_does_everything_where_slots_are_few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sizing, "NVIDIA_DRIVER", tmp_path)  # there is one
    assert plan_processes(config()) == Processes(("",), None)
    assert plan_processes(config(device="cpu")) is None
    assert plan_processes(config(slots=sizing.FEW_SLOTS - 1)) is None
    assert plan_processes(config(slots=sizing.FEW_SLOTS)) == Processes(("",), None)
    assert plan_processes(config(0)) is None
    assert plan_processes(config(3, device="cpu")) == Processes(("",), 3)
    page = replace(config(3), server=ServerConfig(workers=3, role="page", socket="wss://calls.example.com"))
    assert plan_processes(page) is None
    monkeypatch.setattr(sizing, "NVIDIA_DRIVER", tmp_path / "none")
    assert plan_processes(config()) is None


def test_each_gpu_gets_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-abc,6")
    assert plan_processes(config(devices=(0, 2))) == Processes(("4", "6"), None)
    assert plan_processes(config(2, devices="all")) == Processes(("4", "GPU-abc", "6"), 2)
    with pytest.raises(ConfigError, match="no GPU 3"):
        plan_processes(config(devices=(3,)))
    with pytest.raises(ConfigError, match=r"set server\.workers"):
        plan_processes(config(0, devices="all"))


def test_workers_follow_slots_and_cores() -> None:
    assert [count_workers(slots, 16) for slots in (1, 12, 13, 104, 400)] == [1, 1, 2, 9, 16]
    assert count_workers(104, 2) == 2
    assert carried_callers(2, one_process=True) == carried_callers(2, one_process=False) == 24
    assert carried_callers(16, one_process=True) == sizing.CALLERS_PER_PROCESS
    assert carried_callers(16, one_process=False) == 192


def test_frames_and_messages_cross_as_they_are() -> None:
    rng = np.random.default_rng(0)
    pcm = rng.uniform(-1, 1, FRAME_SAMPLES).astype(np.float32)
    call, frame = envelopes.decode_caller_frame(memoryview(envelopes.encode_caller_frame(2**40, pcm))[ENVELOPE.size :])
    assert call == 2**40
    np.testing.assert_array_equal(frame, pcm)
    output = OutputFrame(7, pcm, " Grüße 👋", np.arange(-1, 8), 1.5, 20.25, said=True, window=0.75)
    call, answer = envelopes.decode_agent_frame(memoryview(envelopes.encode_agent_frame(3, output))[ENVELOPE.size :])
    assert (call, answer.index, answer.text, answer.wait_ms, answer.step_ms) == (3, 7, " Grüße 👋", 1.5, 20.25)
    assert (answer.said, answer.sentence_ended, answer.window) == (True, False, 0.75)
    np.testing.assert_array_equal(answer.pcm, pcm)
    np.testing.assert_array_equal(answer.tokens, output.tokens)
    ask = Ask(1, Caller("ann", "::1"), SentPrompt("Hi", None, None), Sampling(top_k=5, seed=2**62), 30.0)
    assert envelopes.decode(memoryview(envelopes.encode(ask))[ENVELOPE.size :]) == ask
    for error in (EngineBusyError("a"), TooManyCallsError("b"), PromptError("c"), EngineError("d")):
        again = Failure.of(error).error()
        assert (type(again), str(again)) == (type(error), str(error))


def test_a_voice_crosses_once_and_old_ones_go(tmp_path: Path) -> None:
    here, there = VoiceFiles(tmp_path), VoiceFiles(tmp_path)
    voice = Voice("ann", embeddings=np.ones((3, 8), np.float32), ring=np.zeros((17, 4), np.int64))
    sent = here.send(Prompt("Hi", voice, pin=False))
    assert here.send(Prompt("Ho", voice)).fingerprint == sent.fingerprint == voice.fingerprint
    assert len(list(tmp_path.iterdir())) == 1
    prompt = there.receive(sent)
    assert (prompt.text, prompt.pin) == ("Hi", False)
    assert prompt.voice is not None
    assert prompt.voice.fingerprint == voice.fingerprint
    assert there.receive(here.send(Prompt("Hi", pin=True))) == Prompt("Hi", pin=True)
    for number in range(MOST_FILES + 5):
        here.put(Voice("many", codes=np.full((1, 8), number)))
    assert len(list(tmp_path.iterdir())) == MOST_FILES
    with pytest.raises(PromptError, match="ann"):
        VoiceFiles(tmp_path / "elsewhere").receive(sent)


class Recorder(Connection):
    """Keeps what comes."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[Message] = []
        self.ended = asyncio.Event()
        self.came = asyncio.Event()

    def received(self, message: Message) -> None:
        self.messages.append(message)
        self.came.set()

    def lost(self) -> None:
        self.ended.set()


async def until(true: Callable[[], bool]) -> None:
    """Return when the event loop has made it true."""
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - it is this loop that has something to do
            await asyncio.sleep(0)


@asynccontextmanager
async def connected(
    server: Callable[[], Connection], client: Callable[[], Connection]
) -> AsyncIterator[tuple[Connection, Connection]]:
    """Both ends of a socket."""
    loop = asyncio.get_running_loop()
    ends: list[Connection] = []

    def accept() -> Connection:
        ends.append(server())
        return ends[0]

    with tempfile.TemporaryDirectory(prefix="pp") as folder:
        async with await loop.create_unix_server(accept, f"{folder}/socket"):
            _, other = await loop.create_unix_connection(client, f"{folder}/socket")
            await until(lambda: bool(ends))
            try:
                yield ends[0], other
            finally:
                other.close()
                ends[0].close()


async def test_messages_come_whole_however_they_are_cut_and_nonsense_ends_the_connection() -> None:
    async with connected(Recorder, Recorder) as (receiver, sender):
        assert isinstance(receiver, Recorder)
        state = State((), 5)
        for byte in envelopes.encode(state) + envelopes.encode(state):
            receiver.data_received(bytes([byte]))
        assert receiver.messages == [state, state]
        sender.send(state)
        sender.send(state)
        while len(receiver.messages) < 4:
            receiver.came.clear()
            await receiver.came.wait()
        sender.send_bytes(ENVELOPE.pack(MAX_BODY_BYTES + 1, 0))
        await receiver.ended.wait()
        assert not receiver.alive
    async with connected(Recorder, Recorder) as (receiver, sender):
        assert isinstance(receiver, Recorder)
        sender.send_bytes(ENVELOPE.pack(3, 0) + b"\xc1\xc1\xc1")
        await receiver.ended.wait()


async def test_a_call_at_a_distance_bounds_what_waits_on_either_side() -> None:
    sent: list[int] = []

    class Silent(WorkerLink):
        """An engine that takes frames and says nothing."""

        def __init__(self) -> None:
            super().__init__(None)  # type: ignore[arg-type] # it asks for nothing

        def received(self, message: Message) -> None:
            pass

        def framed(self, kind: int, body: memoryview) -> None:
            sent.append(int(envelopes.decode_caller_frame(body)[1][0]))

    async with connected(Silent, EngineLink) as (engine, link):
        assert isinstance(link, EngineLink)
        call: RemoteCall = link.attach(1, 7, max_waiting=5)
        pushes = CREDIT + MOST_FRAMES + 6
        dropped = [call.push(np.full(FRAME_SAMPLES, number, np.float32)) for number in range(pushes)]
        assert dropped == [0] * (CREDIT + MOST_FRAMES) + [1] * 6  # a burst may wait, but not without end
        await until(lambda: len(sent) == CREDIT)
        output = OutputFrame(0, np.zeros(FRAME_SAMPLES, np.float32), "", np.zeros(9, np.int64), 0, 1)
        engine.send_bytes(envelopes.encode_agent_frame(1, output))
        answers = call.frames()
        first = await anext(answers)
        assert (first.index, first.position) == (0, 0)
        await until(lambda: len(sent) == CREDIT + 1)
        assert sent == [0, 1, CREDIT + 6]  # the oldest that waited were dropped
        engine.close()
        with pytest.raises(EngineError, match="has stopped"):
            await anext(answers)
        with pytest.raises(ValueError, match="float32"):
            call.push(np.zeros(3, np.float32))


async def test_a_recording_reaches_the_engine_once_to_be_encoded_ahead(tmp_path: Path) -> None:
    engine, files = EchoEngine(), VoiceFiles(tmp_path)
    server = EngineServer(engine, VoiceFiles(tmp_path))
    async with connected(lambda: WorkerLink(server), EngineLink) as (_, link):
        assert isinstance(link, EngineLink)
        for voice in (own := Voice("own", pcm=np.ones(9, np.float32)), own, Voice("new", pcm=np.zeros(9, np.float32))):
            link.prepare(voice.name, files.put(voice))
        link.prepare("gone", "no such file")
        async with asyncio.timeout(10):
            while len(engine.prepared) < 2:  # noqa: ASYNC110 - a thread of the engine's does it
                await asyncio.sleep(0.01)
    assert {voice.name: voice.fingerprint for voice in engine.prepared}["own"] == own.fingerprint


def test_devices_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="device is cpu"):
        EngineConfig(device="cpu", devices="all")
    with pytest.raises(ValueError, match="twice"):
        EngineConfig(devices=(1, 1))


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_store_in_a_file_is_as_one_in_memory(kind: str, tmp_path: Path) -> None:
    now = 100.0
    stores: list[Store] = [MemoryStore(lambda: now)]
    if kind == "file":  # two processes have one each
        stores = [FileStore(tmp_path / "store", lambda: now), FileStore(tmp_path / "store", lambda: now)]
    one, other = stores[0], stores[-1]

    def count(before: Numbers | None) -> Numbers:
        return (before[0] + 1 if before else 1, 0.5)

    assert one.table("a", 2, evict=True).get("x") is None
    assert one.table("a", 2, evict=True).update("x", count, 10) == (1, 0.5)
    assert other.table("a", 2, evict=True).update("x", count, 10) == (2, 0.5)
    assert other.table("b", 2, evict=True).get("x") is None
    assert one.table("a", 2, evict=True).get("x") == (2, 0.5)
    with pytest.raises(ZeroDivisionError):
        one.table("a", 2, evict=True).update("y", lambda before: (1 / 0,), 10)
    now += 1
    other.table("a", 2, evict=True).update("y", count, 10)
    now += 1
    one.table("a", 2, evict=True).update("z", count, 10)
    assert [other.table("a", 2, evict=True).get(key) for key in "xyz"] == [None, (1, 0.5), (1, 0.5)]
    full = one.table("c", 1, evict=False)
    assert full.update("x", count, 10) == (1, 0.5)
    assert other.table("c", 1, evict=False).update("y", count, 10) is None
    assert full.update("x", count, 10) == (2, 0.5)
    now += 10
    assert full.get("x") is None
    assert full.update("y", count, 10) == (1, 0.5)
    for store in stores:
        if isinstance(store, FileStore):
            store.close()
