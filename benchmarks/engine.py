"""The engine's speed and memory, after its correctness: `python -m benchmarks.engine`.

On a GPU: PersonaPlex's full size with random bfloat16 weights made on the device, beside plain `moshi` in the
same run. On a CPU: a small model with random weights. A frame is everything from PCM in to PCM and tokens out, with
copies. With `--kv-cache int8`, frames are measured with a cache in the model's own dtype too, in turn, and the outputs
of both are compared over 600 positions.
"""

import argparse
import asyncio
import json
import platform
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.baseline import PlainMoshi
from benchmarks.correctness import check_all, check_rows_alone
from benchmarks.measuring import bandwidth, fresh_memory, peak_gib, short, times
from benchmarks.rounding import cache_errors
from benchmarks.untrained import ARCHITECTURE, MIMI, untrained_language_model, untrained_mimi
from core.boot.devices import pick_cache_dtype
from core.boot.local_engine import CPU_THREADS
from core.engine.architecture import PADDING, Architecture
from core.engine.call import FRAME_SAMPLES, EngineInfo
from core.engine.kv_cache import BLOCK_FRAMES, BlockCache, blocks_for
from core.engine.lm import LanguageModel
from core.engine.mimi.codec import MimiCodec
from core.engine.mimi.voice_encoder import VoiceEncoder
from core.engine.model import Model
from core.engine.prefill import Prefill
from core.engine.prefix_cache import PrefixCache, PrefixCacheEntry
from core.engine.prompt import Prompt, SpecialCodes, Tokens, Voice
from core.engine.sampling import USUAL, Sampling
from core.engine.scheduler import SlotEngine
from core.engine.speech_queue import Forced, Replaces

VOICE_FRAMES, TEXT_TOKENS = 125, 60
"""The prompt of the published measurements: ten seconds of voice and a short role."""
SPARE_FRAMES = 16
"""That a measured call takes beside the frames that count."""


@dataclass(frozen=True)
class FrameTimes:
    """Milliseconds a frame for a number of callers, and the least that reading weights and windows once would take.

    `host` is the part of the median in which the device has nothing to do: rows laid out, copies, results taken.
    `given` is the median where every caller's agent is given what to say.
    """

    callers: int
    slots: int
    p50: float
    p99: float
    given: float
    host: float
    floor: float
    memory_gib: float
    kv_cache: str = ""


class AnyText:
    """A tokenizer that returns a fixed number of tokens: random weights need no words."""

    def prompt(self, text: str) -> Tokens:
        return np.random.default_rng(len(text)).integers(4, 260, TEXT_TOKENS)

    def words(self, text: str) -> list[list[int]]:
        return [[4] for _ in text.split()]

    def detokenizer(self) -> "AnyText":
        return self

    def decode(self, token: int) -> str:  # noqa: ARG002 - the tokenizer's interface
        return ""


class Bench:
    """One model's weights on one device, for any number of slots."""

    def __init__(self, device: torch.device, int8: bool = False) -> None:
        """With `int8` the weights have 8 bits."""
        self.device = device
        full = device.type == "cuda"
        self.architecture = Architecture() if full else ARCHITECTURE
        self.dtype = torch.bfloat16 if full else torch.float32
        self.mimi_config = None if full else MIMI
        self.special = SpecialCodes() if full else SpecialCodes((1,) * 8, (2,) * 8)
        self.lm = untrained_language_model(self.architecture, self.generator(), self.dtype, int8)

    def generator(self) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(1)

    def model(self, slots: int, cache_dtype: torch.dtype, frames: int | None = None) -> Model:
        """A warm model, with a codec of its own, whose calls may have `frames` frames, or full windows."""
        codec = MimiCodec(untrained_mimi(self.generator(), self.mimi_config), slots)
        blocks = slots * blocks_for(frames or self.architecture.context)
        model = Model(self.lm, codec, self.special, slots, blocks, cache_dtype)
        model.warm_up()
        return model

    def late_call(self, frames: int) -> PrefixCacheEntry:
        """A cache entry as if a call had lasted for `frames` frames."""
        a = self.architecture
        length = frames // 15
        shape = (a.num_layers, 2, a.num_heads, length, a.head_dim)
        segment = torch.randn(shape, device=self.device, dtype=self.dtype, generator=self.generator())
        return PrefixCacheEntry((segment,) * 15, 15 * length, segment.new_zeros(a.dim))

    def floor_ms(self, callers: int, frames: int, cache_dtype: torch.dtype, bytes_per_second: float) -> float:
        """Reading every weight once and each caller's frames once."""
        weights = sum(weight.nbytes for name, weight in self.lm.named_parameters() if "emb" not in name)
        windows = callers * frames * BlockCache.bytes_per_block(self.architecture, cache_dtype) // BLOCK_FRAMES
        # A copy reads and writes; a step only reads, at the same bytes a second.
        return (weights + windows) / bytes_per_second * 1000

    def frames(
        self, callers: int, slots: int, part: float, count: int, cache_dtype: torch.dtype, bytes_per_second: float
    ) -> FrameTimes:
        """Frame times of `callers` callers among `slots` slots, with this part of each window in use."""
        used = int(self.architecture.context * part)
        longest = used + count + count // 4 + SPARE_FRAMES
        with fresh_memory(self.device):
            model = self.model(slots, cache_dtype, longest)
            late = self.late_call(used)
            for slot in range(callers):
                blocks = model.cache.allocate(longest)
                assert blocks is not None
                model.begin(slot, late, USUAL, slot, blocks)
            del late
            voices = np.random.default_rng(0).normal(0, 0.1, (callers, FRAME_SAMPLES)).astype(np.float32)
            measured = times(partial(model.step, dict(enumerate(voices))), count)
            forced = dict.fromkeys(range(callers), Forced(PADDING, Replaces.EVERYTHING))
            given = float(np.median(times(partial(model.step, dict(enumerate(voices)), forced), count // 4)))
            device_ms = float(np.median(times(partial(model.run, callers), count // 4)))
            memory = peak_gib(self.device)
            del model
        p50, p99 = (float(figure) for figure in np.percentile(measured, [50, 99]))
        floor = self.floor_ms(callers, used, cache_dtype, bytes_per_second)
        return FrameTimes(callers, slots, p50, p99, given, p50 - device_ms, floor, memory, short(cache_dtype))

    def engine(self, slots: int, cache_dtype: torch.dtype) -> SlotEngine:
        """The engine that serves calls."""
        encoder = VoiceEncoder(untrained_mimi(self.generator(), self.mimi_config))
        cache = PrefixCache(self.architecture, 2 << 30, self.device, self.dtype)
        prefill = Prefill(self.lm, AnyText(), self.special, encoder, cache)
        info = EngineInfo("bench", "", str(self.device), slots)
        return SlotEngine(info, self.model(slots, cache_dtype), prefill, AnyText(), load_voice=dict[str, Voice]().get)

    def prompt(self, number: int) -> Prompt:
        """A persona of the published measurements' size; each number is another."""
        codes = np.random.default_rng(number).integers(0, self.architecture.audio_vocab_size, (VOICE_FRAMES, 8))
        return Prompt("x" * number, Voice("bench", codes=codes))


async def handshakes(bench: Bench, running: int, personas: int, cache_dtype: torch.dtype) -> dict[str, float]:
    """Milliseconds from admission to handshake, first and later calls of a persona, and what it costs the others.

    Meanwhile `running` callers talk in real time on the same engine.
    """
    engine = bench.engine(running + 1, cache_dtype)
    first: list[float] = []
    later: list[float] = []
    delays: list[float] = []
    talking = asyncio.Event()
    talking.set()

    async def talk() -> None:
        call = engine.open(bench.prompt(0), Sampling(seed=1))
        await call.ready()
        answers = call.frames()
        while talking.is_set():
            start = time.perf_counter()
            call.push(np.zeros(FRAME_SAMPLES, np.float32))
            await anext(answers)
            delays.append((time.perf_counter() - start) * 1000)
            await asyncio.sleep(max(0.0, 0.08 - (time.perf_counter() - start)))
        await call.close()

    callers = [asyncio.create_task(talk()) for _ in range(running)]
    await asyncio.sleep(1)
    for measured in (first, later):
        for number in range(1, personas + 1):
            start = time.perf_counter()
            call = engine.open(bench.prompt(number), Sampling(seed=1))
            await call.ready()
            measured.append((time.perf_counter() - start) * 1000)
            await call.close()
    talking.clear()
    await asyncio.gather(*callers)
    engine.close()
    result = {"first_ms": float(np.median(first)), "later_ms": float(np.median(later))}
    if delays:
        result |= {"others_p50_ms": float(np.median(delays)), "others_max_ms": float(np.max(delays))}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--callers", default="1,4,8,16,32", help="numbers of callers, with commas between")
    parser.add_argument("--slots", type=int, default=0, help="slots of the engine; 0: as many as callers")
    parser.add_argument("--window", type=float, default=0.5, help="the part of each caller's window that is used")
    parser.add_argument("--frames", type=int, default=200, help="frames measured for each")
    parser.add_argument("--weights", choices=("auto", "int8"), default="auto", help="as engine.weights")
    parser.add_argument("--kv-cache", choices=("auto", "bfloat16", "int8"), default="auto", help="as engine.kv_cache")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--no-baseline", action="store_true", help="leave plain moshi out")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    arguments = parser.parse_args()
    device, console = torch.device(arguments.device), Console(width=110)
    torch.set_num_threads(CPU_THREADS)
    callers = [int(number) for number in arguments.callers.split(",")]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU"
    console.print(f"{name}, torch {torch.__version__}")

    check_all(device, console)
    bench = Bench(device, arguments.weights == "int8")
    cache_dtypes = list(dict.fromkeys([bench.dtype, pick_cache_dtype(arguments.kv_cache, bench.dtype)]))
    if device.type == "cuda":  # A CPU's libraries round by the number of rows; there, steps have one size.
        for dtype in cache_dtypes:
            console.print(f"full size, cache {short(dtype)}:", check_rows_alone(bench.lm, dtype))
    for dtype in cache_dtypes[1:]:
        with fresh_memory(device):
            rounding = cache_errors(bench.lm, dtype)
        for compared, errors in rounding.items():
            console.print(compared, errors)
    rate = bandwidth(device)
    console.print(
        f"copies run at {rate / 1e12:.2f} TB/s; {parameters(bench.lm) / 1e9:.2f} B parameters in {bench.dtype}, "
        f"weights: {arguments.weights}"
    )
    rows = []
    for number in callers:
        slots = max(arguments.slots, number)
        for dtype in cache_dtypes:
            rows.append(bench.frames(number, slots, arguments.window, arguments.frames, dtype, rate))
            console.print(rows[-1])
    prompts = {
        running: asyncio.run(handshakes(bench, running, 5, cache_dtypes[-1]))
        for running in (0, max(1, min(8, callers[-1] - 1)))
    }
    for running, handshake in prompts.items():
        console.print(f"prompt of {VOICE_FRAMES} + {TEXT_TOKENS} beside {running} callers:", handshake)
    with fresh_memory(device):
        del bench
    baseline: dict[int, FrameTimes] = {}
    if not arguments.no_baseline:
        for number in callers:
            with fresh_memory(device):
                plain = PlainMoshi(device, number)
                p50, p99 = np.percentile(times(plain.frame, arguments.frames), [50, 99])
                baseline[number] = FrameTimes(number, number, float(p50), float(p99), 0.0, 0.0, 0.0, peak_gib(device))
                del plain
            console.print("plain moshi", baseline[number])

    table = Table(
        "callers",
        "slots",
        "cache",
        "p50 ms",
        "p99",
        "given",
        "host",
        "floor",
        "ratio",
        "GiB",
        "moshi p50",
        "p99",
        "GiB",
    )
    for row in rows:
        plain_row = baseline.get(row.callers)
        cells: list[object] = [
            row.callers,
            row.slots,
            row.kv_cache,
            row.p50,
            row.p99,
            row.given,
            row.host,
            row.floor,
            row.p50 / row.floor,
        ]
        cells.append(row.memory_gib)
        cells += [plain_row.p50, plain_row.p99, plain_row.memory_gib] if plain_row else ["", "", ""]
        table.add_row(*(f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in cells))
    console.print(table)
    if arguments.json:
        figures: dict[str, Any] = {
            "device": name,
            "weights": arguments.weights,
            "bandwidth": rate,
            "prompts": prompts,
            "ours": [asdict(row) for row in rows],
        }
        figures["plain_moshi"] = [asdict(row) for row in baseline.values()]
        arguments.json.write_text(json.dumps(figures, indent=1))


def parameters(lm: LanguageModel) -> int:
    """How many numbers the model has."""
    return sum(weight.numel() for weight in lm.parameters())


if __name__ == "__main__":
    main()
