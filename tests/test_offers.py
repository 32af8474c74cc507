"""What callers choose from: pictures of personas, and samples of voices, which never keep a caller waiting."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
import yaml

from core.media.audio_codecs import open_reader
from core.testing import EchoEngine
from tests.caller import dial, get
from tests.conftest import Serve
from tests.test_connections import until
from tests.test_personas import PNG

SAMPLE = "/voices/NATF2/sample"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples are kept in a folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


async def test_pictures_of_personas(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "personas").mkdir()
    owl = {"name": "Owl", "voice": "NATF2", "image": "owl.svg", "starters": ["Who?"], "emoji": "🦉", "group": "Birds"}
    (tmp_path / "personas" / "owl.yaml").write_text(yaml.safe_dump(owl))
    (tmp_path / "personas" / "owl.svg").write_bytes(PNG)  # whatever it is called
    running = await serve()
    status, headers, body = await get(running, "/personas/owl/image")
    assert (status, body, headers["content-type"]) == (200, PNG, "image/png")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "private, no-cache"
    assert (await get(running, "/personas/owl/image", **{"If-None-Match": headers["etag"]}))[0] == 304
    for path in ("/personas/assistant/image", "/personas/nobody/image", "/personas/..%2fowl/image"):
        assert (await get(running, path))[0] == 404, path


async def test_pictures_and_samples_are_for_callers_alone(serve: Serve) -> None:
    running = await serve(plugins={"options": {"password": {"password": "sesame"}}})
    assert (await get(running, "/personas/assistant/image"))[0] == 401
    assert (await get(running, SAMPLE))[0] == 401
    assert running.engine.opened == 0


async def test_a_sample_is_made_once_and_kept(serve: Serve) -> None:
    running = await serve()
    answers = await asyncio.gather(*(get(running, SAMPLE) for _ in range(3)))
    status, headers, sound = answers[0]
    assert (status, headers["content-type"]) == (200, "audio/ogg")
    assert all(answer[2] == sound for answer in answers)
    assert np.isfinite(open_reader("opus").read(sound)).all()
    assert running.engine.opened == 1
    assert running.engine.calls == []
    assert (await get(running, SAMPLE, **{"If-None-Match": headers["etag"]}))[0] == 304
    assert (await get(running, "/voices/NATM2/sample"))[0] == 200
    assert running.engine.opened == 1  # an echo has one voice under all names, and voices go by what they hold
    for path in ("/voices/VARF0/sample", "/voices/..%2fNATF2/sample", "/voices/x.pt/sample"):
        assert (await get(running, path))[0] == 404, path
    again = await serve()
    assert (await get(again, SAMPLE))[2] == sound
    assert again.engine.opened == 0


async def test_samples_where_nothing_can_be_kept(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", __file__)
    running = await serve()
    assert [(await get(running, SAMPLE))[0] for _ in range(2)] == [200, 200]
    assert running.engine.opened == 1


async def test_no_sample_takes_a_slot_that_callers_need(serve: Serve) -> None:
    running = await serve(EchoEngine(slots=1))
    async with dial(running.url()) as caller:
        await caller.shake_hands()
        status, headers, body = await get(running, SAMPLE)
        assert (status, headers["retry-after"]) == (503, "30")
        assert b"needed for callers" in body
    await until(lambda: not running.engine.calls)
    assert (await get(running, SAMPLE))[0] == 200


async def test_a_sample_gives_way_to_a_caller(serve: Serve) -> None:
    running = await serve(EchoEngine(slots=1))
    running.engine.steps.clear()
    asked = asyncio.create_task(get(running, SAMPLE))
    await until(lambda: bool(running.engine.calls))
    async with dial(running.url()) as caller:
        await caller.told("queued")
        running.engine.steps.set()
        await caller.shake_hands()
        assert (await asked)[0] == 503
    await until(lambda: not running.engine.calls)
    assert (await get(running, SAMPLE))[0] == 200
