"""Garbage collections are short in every process that serves: what stays until its end is left out of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.service_processes import several_processes

PLUGIN = """
import gc

from starlette.responses import JSONResponse
from starlette.routing import Route

from core import hookimpl


@hookimpl
def register_routes():
    return [Route("/garbage", lambda request: JSONResponse([gc.get_freeze_count(), len(gc.get_objects())]))]
"""


@pytest.mark.slow
@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("module", "workers", "engine"),
    [("tests.nano_service", 0, {"name": "nano", "device": "cpu"}), ("tests.echo_service", 2, {})],
)
async def test_collections_leave_out_what_stays(
    tmp_path: Path, module: str, workers: int, engine: dict[str, Any]
) -> None:
    (tmp_path / "garbage.py").write_text(PLUGIN)
    settings = {"server": {"workers": workers}, "engine": engine, "plugins": {"folders": [str(tmp_path)]}}
    async with several_processes(tmp_path, module, **settings) as service:
        for number in range(1, workers + 1) if workers else [0]:
            others = [part for part in service.parts() if part.startswith("worker") and part != f"worker {number}"]
            with service.stopped(*others):
                left_out, looked_at = json.loads((await service.get("/garbage"))[1])
            assert left_out > 10 * looked_at
