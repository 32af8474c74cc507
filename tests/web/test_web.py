"""The page's own parts without a browser: unit tests in node, Ogg against sphn both ways, types, and what it weighs."""

import gzip
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import sphn

HERE = Path(__file__).parent
WEB = HERE.parent.parent / "web"
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed, and the page's unit tests run in it")
PACKET = 1920
"""Samples at 48 kHz in each packet that sphn writes."""
PRE_SKIP = 3840


def node(*arguments: str, given: bytes = b"") -> bytes:
    """What a node program prints. Fails with all it said when it fails."""
    assert NODE is not None
    done = subprocess.run([NODE, *arguments], input=given, capture_output=True, timeout=120, check=False, cwd=HERE)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    return done.stdout


def decode(stream: bytes) -> npt.NDArray[np.float32]:
    """The samples that the server's decoder finds in an Ogg/Opus stream."""
    return np.asarray(sphn.OpusStreamReader(24_000).append_bytes(stream))


@needs_node
@pytest.mark.parametrize("name", sorted(path.name for path in HERE.glob("*.test.js")))
def test_unit(name: str) -> None:
    node("--test", name)


@needs_node
@pytest.mark.parametrize("size", [1, 100, 100_000])
def test_ogg_reads_what_sphn_writes_and_sphn_reads_what_it_writes(size: int) -> None:
    writer = sphn.OpusStreamWriter(24_000)
    time = np.arange(1920 * 10) / 24_000
    sound = (0.3 * np.sin(2 * np.pi * (200 + 300 * time) * time)).astype(np.float32)
    stream = b"".join(writer.append_pcm(frame) for frame in sound.reshape(10, 1920))
    again = node("rewrap.js", str(size), str(PACKET), str(PRE_SKIP), given=stream)
    expected = decode(stream)
    assert len(expected) >= 1920 * 8
    np.testing.assert_array_equal(decode(again), expected)


@needs_node
@pytest.mark.slow
def test_types() -> None:
    compiler = HERE / "node_modules" / "typescript" / "bin" / "tsc"
    if not compiler.exists():
        pytest.skip("TypeScript is not installed: run `npm install` in tests/web")
    node(str(compiler), "--noEmit", "-p", "tsconfig.json")


def test_first_load_is_light_and_needs_one_round() -> None:
    page = (WEB / "index.html").read_text()
    named = set(re.findall(r'(?:href|src)="([\w-]+\.(?:js|css|svg))"', page))
    modules = [name for name in named if name.endswith(".js")]
    for name in modules:
        imported = set(re.findall(r'^import .*?from "\./(.*?)";', (WEB / name).read_text(), re.MULTILINE))
        assert imported <= named, f"{name} imports {imported - named}, which index.html does not preload"
    files = [(WEB / name).read_bytes() for name in {*named, "index.html"}]
    assert sum(len(gzip.compress(file)) for file in files) < 60_000
    assert sum(map(len, files)) < 150_000


def test_nothing_inline_and_nothing_from_elsewhere() -> None:
    for page in WEB.glob("*.html"):
        assert not re.search(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=", page.read_text()), page.name
    for path in WEB.iterdir():
        found = re.findall(r"https?://\w[^\s\"'`)]+", path.read_text())
        assert set(found) <= {"http://www.w3.org/2000/svg"}, path.name
