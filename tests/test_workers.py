"""A service in several processes: real ones, over real sockets, and what becomes of calls when one of them ends."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
import yaml
from websockets.exceptions import InvalidStatus

from core.media.audio_codecs import Samples
from core.session.protocol import CloseCode
from tests.caller import FRAME, Caller, dial
from tests.conftest import speech, write_config
from tests.service_processes import ServiceProcesses, gone, leftovers, several_processes, until

MODULES = """
import sys
import tempfile

from starlette.responses import PlainTextResponse
from starlette.routing import Route

from core import hookimpl


@hookimpl
def register_routes():
    return [Route("/modules", lambda request: PlainTextResponse(" ".join(sys.modules)))]
"""

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServiceProcesses]:
    """Two workers and an engine of two slots, which one test after another uses."""
    async with several_processes(tmp_path_factory.mktemp("service")) as running:
        yield running


async def echoes(caller: Caller) -> None:
    """The caller hears what it says."""
    said = speech(0.4)
    heard = await caller.talk(said)
    assert len(heard) == 5 * FRAME
    np.testing.assert_allclose(heard, said, atol=1e-4)


async def metric(service: ServiceProcesses, name: str) -> float:
    """The sum of all samples of that name."""
    status, text = await service.get("/metrics")
    assert status == 200
    return sum(float(value) for value in re.findall(rf"^personaplex_{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))


async def test_workers_share_slots_queue_and_metrics(service: ServiceProcesses) -> None:
    frames = await metric(service, "frame_seconds_count")
    assert set(service.parts()) == {"engine 0", "worker 1", "worker 2"}
    async with service.dial_at(1) as first, service.dial_at(2) as second:
        await asyncio.gather(first.shake_hands(), second.shake_hands())
        await asyncio.gather(echoes(first), echoes(second))
        async with service.dial_at(1) as third:
            assert (await third.told("queued"))["place"] == 1
            async with service.dial_at(2) as fourth:
                assert (await fourth.told("queued"))["place"] == 2

                async def counted() -> bool:
                    names = ("calls_active", "calls_waiting", "engine_busy_slots", "frame_seconds_count")
                    return [await metric(service, name) for name in names] == [2, 2, 2, frames + 10]

                async def told() -> bool:
                    status, health = await service.health()
                    engine = health["engine"]
                    return (status, engine["slots"], engine["busy"], health["waiting"]) == (200, 2, 2, 2)

                await until(counted)
                for worker in ("worker 1", "worker 2"):
                    with service.stopped(worker):  # so that it is the other one that answers
                        await until(told)
                await first.socket.close()
                await third.shake_hands()
                assert (await fourth.told("queued"))["place"] == 1
                await third.socket.close()
                await fourth.shake_hands()
                await asyncio.gather(echoes(fourth), echoes(second))


async def test_a_killed_worker_takes_its_own_calls_alone_and_is_started_again(
    service: ServiceProcesses,
) -> None:
    async with service.dial_at(1) as lost, service.dial_at(2) as other:
        await asyncio.gather(lost.shake_hands(), other.shake_hands())
        killed = service.parts()["worker 1"]
        service.kill("worker 1")
        async with asyncio.timeout(10):
            assert await lost.end() == 1006
        await echoes(other)

        async def free() -> bool:
            return bool((await service.health())[1]["engine"]["busy"] == 1)

        await until(free)
        assert await metric(service, "calls_active") == 1

    async def again() -> bool:
        return service.parts().get("worker 1", killed) != killed and await metric(service, "engine_up") == 1

    await until(again)
    with service.stopped("worker 2"):  # so that it is the new one that answers
        assert (await service.health())[0] == 200
    async with service.dial_at(1) as caller:
        await caller.shake_hands()
        await echoes(caller)


async def test_when_the_engine_is_killed_callers_hear_so_and_it_is_started_again(service: ServiceProcesses) -> None:
    async with service.dial_at(1) as first, service.dial_at(2) as second:
        await asyncio.gather(first.shake_hands(), second.shake_hands())
        service.kill("engine 0")
        async with asyncio.timeout(10):
            assert set(await asyncio.gather(first.end(), second.end())) == {CloseCode.INTERNAL}
        assert first.error == second.error
        assert "engine has stopped" in first.error

    async def unwell() -> bool:
        status, health = await service.health()
        return status == 503 and "started again" in health["problem"]

    async def well() -> bool:
        return (await service.health())[0] == 200

    await until(unwell)
    await until(well)
    for worker in (1, 2):
        async with service.dial_at(worker) as caller:
            await caller.shake_hands()
            await echoes(caller)


async def test_an_engine_that_is_stuck_is_killed_and_started_again(service: ServiceProcesses) -> None:
    async with service.dial_at(1) as caller:
        await caller.shake_hands()
        stuck = service.parts()["engine 0"]
        service.kill("engine 0", signal.SIGSTOP)
        async with asyncio.timeout(60):
            while not caller.error:
                await caller.next()
        assert gone(stuck)

    async def well() -> bool:
        return service.parts().get("engine 0", stuck) != stuck and (await service.health())[0] == 200

    await until(well)
    async with service.dial_at(2) as caller:
        await caller.shake_hands()
        await echoes(caller)


async def test_an_engine_less_is_not_a_service_less(tmp_path: Path) -> None:
    async with several_processes(tmp_path, engine={"slots": 1, "devices": [0, 1]}) as service:
        assert (await service.health())[1]["engine"]["slots"] == 2
        async with service.dial_at(1) as first, service.dial_at(2) as second:
            await asyncio.gather(first.shake_hands(), second.shake_hands())

            async def both_talk() -> bool:
                """Workers hear of it a moment later."""
                metrics = (await service.get("/metrics"))[1]
                return all(f'engine_busy_slots{{device="{device} cpu"}} 1.0' in metrics for device in (0, 1))

            await until(both_talk)
            service.kill("engine 1")
            ended = [asyncio.create_task(caller.end()) for caller in (first, second)]
            [over], [going] = await asyncio.wait(ended, timeout=10, return_when=asyncio.FIRST_COMPLETED)
            assert over.result() == CloseCode.INTERNAL
            going.cancel()
            await asyncio.wait([going])
            await echoes(first if going is ended[0] else second)

            async def one() -> bool:
                status, health = await service.health()
                return (status, health["engine"]["slots"], health["engine"]["busy"]) == (200, 1, 1)

            await until(one)

            async def both() -> bool:
                return bool((await service.health())[1]["engine"]["slots"] == 2)

            await until(both)
            async with service.dial_at(1) as third:
                await third.shake_hands()
                await echoes(third)


async def test_a_worker_that_does_nothing_disturbs_nobody(service: ServiceProcesses) -> None:
    async with service.dial_at(1) as still, service.dial_at(2) as other:
        await asyncio.gather(still.shake_hands(), other.shake_hands())
        with service.stopped("worker 1"):
            await still.say(speech(4.0))
            for _ in range(5):
                await echoes(other)
            async with service.dial_at(2) as newcomer:
                assert (await newcomer.told("queued"))["place"] == 1
        while len(still.heard) < 5 * FRAME:
            await still.next()
        await asyncio.gather(still.socket.close(), still.end())


async def test_limits_hold_across_workers_and_sigterm_lets_calls_end(tmp_path: Path) -> None:
    async with several_processes(tmp_path, server={"drain_s": 30, "calls_per_address": 3}) as service:
        parts = service.parts()
        async with service.dial_at(1) as first, service.dial_at(2) as second:
            await asyncio.gather(first.shake_hands(), second.shake_hands())
            async with service.dial_at(1) as waiting:
                await waiting.told("queued")
                async with service.dial_at(2) as fourth:
                    assert await fourth.end() == CloseCode.BUSY
                    assert "from your address" in fourth.error
                for pid in (*parts.values(), service.process.pid):  # as systemd does
                    os.kill(pid, signal.SIGTERM)
                assert await waiting.end() == CloseCode.GOING_AWAY
            for caller in (first, second):
                assert (await caller.told("warning"))["limit"] == "shutdown"
                await echoes(caller)
        await asyncio.to_thread(service.process.wait, 30)
        assert service.process.returncode == 0
        assert all(gone(pid) for pid in parts.values())


async def test_an_identity_has_so_many_calls_in_all_workers_together(tmp_path: Path) -> None:
    options = {"password": {"named": {"ann": "sesame", "bob": "open it"}}}
    server, engine = {"calls_per_identity": 1}, {"slots": 4}
    plugins = {"disabled": ["loudness"], "options": options}
    async with several_processes(tmp_path, server=server, engine=engine, plugins=plugins) as service:
        tickets = [
            json.loads((await service.get("/ticket", "POST", Authorization=f"Bearer {password}"))[1])["ticket"]
            for password in ("sesame", "sesame", "open it", "sesame")
        ]
        first, second, other, again = (f"/ws/chat?audio=pcm&ticket={ticket}" for ticket in tickets)
        async with service.dial_at(1, first) as ann:
            await ann.shake_hands()
            async with service.dial_at(2, second) as twice:
                assert await twice.end() == CloseCode.BUSY
                assert "You have 1 call already" in twice.error
            async with service.dial_at(2, other) as bob:
                await bob.shake_hands()
                await asyncio.gather(echoes(ann), echoes(bob))

        async def free() -> bool:
            return bool((await service.health())[1]["engine"]["busy"] == 0)

        await until(free)
        async with service.dial_at(2, again) as ann:
            await ann.shake_hands()


async def test_a_second_signal_ends_calls_at_once(tmp_path: Path) -> None:
    async with several_processes(tmp_path, server={"drain_s": 600}) as service, service.dial_at(1) as caller:
        await caller.shake_hands()
        service.process.send_signal(signal.SIGINT)
        assert (await caller.told("warning"))["limit"] == "shutdown"
        service.process.send_signal(signal.SIGINT)
        assert await caller.end() == CloseCode.GOING_AWAY
        await asyncio.to_thread(service.process.wait, 60)
        assert service.process.returncode == 0


async def test_nothing_outlives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    async with several_processes(tmp_path) as service, service.dial_at(1) as caller:
        await caller.shake_hands()
        parts = service.parts()
        service.process.kill()
        assert await caller.end() in (CloseCode.GOING_AWAY, CloseCode.INTERNAL)

        async def nothing() -> bool:
            return all(gone(pid) for pid in parts.values()) and not list(service.scratch.iterdir())

        await until(nothing)


async def resume(service: ServiceProcesses, worker: int, caller: Caller) -> AbstractAsyncContextManager[Caller]:
    """The caller's connection breaks, and it comes back at this worker, while all of them run."""
    token = next(told["resume"] for told in reversed(caller.metadata) if told["type"] == "ready")
    caller.socket.transport.abort()
    sock = await asyncio.to_thread(service.connection_to, worker)
    url = service.url(f"/ws/chat?audio=pcm&resume={token}&words={len(caller.words)}")
    return dial(url, "pcm", sock=sock)


async def test_a_dropped_call_is_picked_up_at_any_worker(tmp_path: Path) -> None:
    async with several_processes(tmp_path, engine={"slots": 1}) as service:
        async with service.dial_at(1) as first:
            await first.shake_hands()
            await echoes(first)
            async with await resume(service, 2, first) as second:
                await second.shake_hands()
                assert second.metadata[-1]["session"] == first.metadata[1]["session"]
                await echoes(second)
                async with service.dial_at(2) as waiting:
                    assert (await waiting.told("queued"))["place"] == 1
                await second.socket.send("text is no message")
                assert await second.end() == CloseCode.BAD_MESSAGE
                words = "".join(first.words + second.words)
                assert words == "".join(f" word{index}" for index in range(words.count("word")))

        async with service.dial_at(1) as first:
            await first.shake_hands()
            async with await resume(service, 2, first) as second:
                await second.shake_hands()
                await echoes(second)
                service.kill("worker 2")  # which has the connection, but not the call
                async with asyncio.timeout(10):
                    assert await second.end() == 1006
            async with await resume(service, 1, second) as third:
                await third.shake_hands()
                await echoes(third)

        async def both() -> bool:
            return "worker 2" in service.parts() and (await service.health())[1]["engine"]["busy"] == 0

        await until(both)
        async with service.dial_at(1) as first:
            await first.shake_hands()
            service.kill("worker 1")  # and the call with it
            async with asyncio.timeout(10):
                await first.end()
            await until(both)
            with pytest.raises(InvalidStatus) as refusal:
                async with await resume(service, 2, first):
                    pass
            assert refusal.value.response.status_code == 410


async def test_passwords_tickets_and_edits_hold_across_workers(tmp_path: Path) -> None:
    options = {"password": {"password": "sesame"}}
    plugins = {"disabled": ["loudness"], "options": options, "folders": [str(tmp_path)]}
    (tmp_path / "modules.py").write_text(MODULES)
    async with several_processes(tmp_path, plugins=plugins, log={"format": "json"}) as service:
        right = {"Authorization": "Bearer sesame"}
        with service.stopped("worker 2"):
            _, loaded = await service.get("/modules", **right)
            assert "starlette" in loaded
            assert not {"torch", "moshi"} & set(loaded.split())
            ticket = json.loads((await service.get("/ticket", method="POST", **right))[1])["ticket"]
        url = f"/ws/chat?audio=pcm&ticket={ticket}"
        async with service.dial_at(1, url) as caller:
            await caller.shake_hands()
        for worker in (1, 2):
            with pytest.raises(InvalidStatus) as refusal:
                async with service.dial_at(worker, url):
                    pass
            assert refusal.value.response.status_code == 401
        for worker in (1, 2, 1, 2, 1):
            with service.stopped(f"worker {worker}"):
                assert (await service.get("/personas", Authorization="Bearer wrong"))[0] == 401
        for worker in (1, 2):
            with service.stopped(f"worker {worker}"):
                assert (await service.get("/personas", Authorization="Bearer wrong"))[0] == 429

        # A worker that is started again takes the file as it is, or if that is broken the last good edit.
        settings = yaml.safe_load((tmp_path / "config.yaml").read_text())
        options["password"]["password"] = "another"
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings | {"plugins": plugins}))
        killed = service.parts()["worker 1"]
        service.kill("worker 1")

        async def again() -> bool:
            return service.parts().get("worker 1", killed) != killed

        await until(again)

        async def another() -> bool:  # 429 until the addresses' wait is over, and 401 before the edit is in force
            with service.stopped("worker 2"):
                return (await service.get("/personas", Authorization="Bearer another"))[0] == 200

        await until(another)
        (tmp_path / "config.yaml").write_text("personas: [")
        killed = service.parts()["worker 1"]
        service.kill("worker 1")
        await until(again)
        with service.stopped("worker 2"):
            status, health = await service.health()
        assert (status, health["problems"]) == (200, 1)
        with service.stopped("worker 2"):
            assert (await service.get("/personas", Authorization="Bearer another"))[0] == 200


async def test_a_service_that_cannot_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    config = write_config(tmp_path, {"server": {"workers": 2}, "engine": {"name": "nano", "device": "cpu"}})
    (tmp_path / "personas" / "broken.yaml").write_text("name: [")
    command = [sys.executable, "-c", "from core.cli.main import main; main()", "serve", "--config", str(config)]
    with tempfile.TemporaryDirectory(prefix="pp") as scratch:
        for folder, why in ((scratch, "broken.yaml"), (f"{scratch}/{'long' * 30}", "TMPDIR")):
            Path(folder).mkdir(exist_ok=True)  # noqa: ASYNC240 - a moment, and nobody waits
            environ = os.environ | {"TMPDIR": folder}
            ran = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, env=environ)
            assert ran.returncode == 1
            assert why in ran.stderr
            assert "Traceback" not in ran.stderr
            assert not leftovers(folder)


async def test_an_engines_process_needs_no_server_and_a_supervisor_no_model() -> None:
    for module, absent in (
        ("core.boot.engine_process, core.boot.local_engine", ("starlette", "uvicorn", "pluggy")),
        ("core.boot.supervisor, core.cli.serve", ("starlette", "uvicorn", "torch", "pluggy")),
        ("core.boot.worker_process", ("torch", "moshi")),
    ):
        check = f"import sys, {module}; print(sorted(set({absent!r}) & set(sys.modules)))"
        command = [sys.executable, "-c", check]
        ran = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
        assert ran.stdout.strip() == "[]", module


async def test_what_a_worker_serves_is_what_one_process_serves(tmp_path: Path) -> None:
    """Nano, with a packaged voice: the same seed and sound give the same answer, whoever else calls."""
    said = speech(2.0)
    engine = {"name": "nano", "device": "cpu"}
    answers: list[Samples] = []
    for workers in (0, 2):
        several = several_processes(tmp_path, "tests.nano_service", server={"workers": workers}, engine=engine)
        async with several as service:
            path = "/ws/chat?audio=pcm&seed=7"
            if workers:
                async with service.dial_at(1, path) as caller, service.dial_at(2) as other:
                    await asyncio.gather(caller.shake_hands(), other.shake_hands())
                    answers += (await asyncio.gather(caller.talk(said), other.talk(said)))[:1]
            else:
                async with dial(service.url(path), "pcm") as caller:
                    await caller.shake_hands()
                    answers.append(await caller.talk(said))
    np.testing.assert_array_equal(answers[0], answers[1])
