"""Opening a checkpoint of PersonaPlex's full size from disk: `python -m benchmarks.loading FOLDER`.

Writes random weights in the hub's layout, all 16 depformer steps, 15.6 GiB, where FOLDER has none yet; then opens it as
`personaplex serve` does, with as many slots as the GPU holds, fills every slot, and answers some frames in each.
"""

import argparse
import asyncio
import json
import time
from pathlib import Path

import numpy as np
import torch
from moshi.models.loaders import MIMI_NAME, MOSHI_NAME, TEXT_TOKENIZER_NAME
from rich.console import Console
from safetensors.torch import save_file

from benchmarks.untrained import make_tokenizer, untrained_language_model, untrained_mimi
from core.boot.local_engine import open_engine
from core.engine.architecture import AGENT_CODEBOOKS, Architecture
from core.engine.call import FRAME_SAMPLES
from core.engine.prompt import Prompt, Voice
from core.engine.sampling import Sampling
from core.engine.scheduler import SlotEngine
from core.engine.weights import PER_STEP, STACKED, stored_name
from core.errors import EngineBusyError
from core.settings.log import configure_logging
from core.settings.sections import EngineConfig, LogConfig

STORED_STEPS = 2 * AGENT_CODEBOOKS
FRAMES = 25


def write_checkpoint(folder: Path) -> None:
    """Random weights in the layout of `nvidia/personaplex-7b-v1`."""
    generator = torch.Generator("cuda").manual_seed(1)
    lm = untrained_language_model(Architecture(), generator, torch.bfloat16)
    tensors = {}
    for parameter, weight in lm.named_parameters():
        name = stored_name(parameter)
        tensors[name] = weight.data.cpu().clone()
        if STACKED.fullmatch(name):
            tensors[name] = tensors[name].repeat(2, *[1] * (weight.dim() - 1))
        elif (step := PER_STEP.match(name)) is not None:
            later = int(step[2]) + AGENT_CODEBOOKS - (step[1] == "depformer_emb")
            tensors[PER_STEP.sub(rf"{step[1]}.{later}.", name)] = tensors[name].clone()
    last = f"depformer_emb.{STORED_STEPS - 2}.weight"
    tensors[last] = tensors["depformer_emb.0.weight"].clone()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / MOSHI_NAME)
    save_file(untrained_mimi(generator, None).state_dict(), folder / MIMI_NAME)
    (folder / TEXT_TOKENIZER_NAME).write_bytes(make_tokenizer(512))
    (folder / "config.json").write_text(json.dumps({"model_type": "personaplex"}))


async def fill(engine: SlotEngine, console: Console) -> None:
    """Open calls until none fits, then let all talk in turn."""
    codes = np.random.default_rng(1).integers(0, 2048, (125, AGENT_CODEBOOKS))
    calls = []
    while True:
        try:
            calls.append(
                engine.open(Prompt("You enjoy having a good conversation.", Voice("v", codes=codes)), Sampling())
            )
        except EngineBusyError as busy:
            console.print(f"{len(calls)} calls, then: {busy}")
            break
    for call in calls:
        await call.ready()
    start = time.perf_counter()
    answers = [call.frames() for call in calls]
    for _ in range(FRAMES):
        for call in calls:
            call.push(np.zeros(FRAME_SAMPLES, np.float32))
        for answer in answers:
            await anext(answer)
    console.print(f"{FRAMES} frames for all: {(time.perf_counter() - start) / FRAMES * 1000:.1f} ms each")
    for call in calls:
        await call.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder, console = parser.parse_args().folder, Console(width=110)
    configure_logging(LogConfig())  # The engine logs how long each part of its start takes.
    if not (folder / MOSHI_NAME).exists():
        write_checkpoint(folder)
        torch.cuda.empty_cache()
    weights = (folder / MOSHI_NAME).stat().st_size / 2**30
    for attempt in ("first", "with the file in the system's cache"):
        torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        # One slot: what is measured is the loading.
        engine = open_engine(EngineConfig(checkpoint=str(folder), slots=1), console.print)
        seconds, peak = time.perf_counter() - start, torch.cuda.max_memory_allocated() / 2**30
        console.print(
            f"{attempt}: {weights:.1f} GiB file, {seconds:.1f} s to a warm engine, peak {peak:.1f} GiB on the GPU"
        )
        engine.close()
        del engine
        torch.cuda.empty_cache()
    engine = open_engine(EngineConfig(checkpoint=str(folder), slots="auto"), console.print)
    peak = torch.cuda.max_memory_reserved() / 2**30
    console.print(f"auto takes {engine.info.slots} slots; {peak:.1f} GiB reserved")
    asyncio.run(fill(engine, console))
    console.print(f"peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB after all slots have talked")
    engine.close()


if __name__ == "__main__":
    main()
