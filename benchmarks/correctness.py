"""What must hold on a device before its speed means anything."""

import numpy as np
import torch
from rich.console import Console

from benchmarks.kernels import fused_errors, relative
from benchmarks.untrained import MIMI, untrained_language_model, untrained_mimi
from core.engine.architecture import AGENT_CODEBOOKS, PADDING, STREAMS, Architecture
from core.engine.call import FRAME_SAMPLES
from core.engine.kv_cache import BLOCK_FRAMES, BlockCache, PrefillCache, ReferenceBlockAttention, blocks_for
from core.engine.lm import CodebookCache, LanguageModel
from core.engine.mimi.codec import MimiCodec
from core.engine.model import Model
from core.engine.prefix_cache import PrefixCacheEntry
from core.engine.prompt import SpecialCodes, Tokens
from core.engine.quantization import pair
from core.engine.sampler import force_text, gumbel_noise, reference_sample
from core.engine.sampling import USUAL
from core.engine.speech_queue import UNFORCED, Forced, Replaces

FRAMES = 110
SLOTS = 4
GPU_SLOTS = 20
"""Enough for graphs of several batch sizes, and matmuls of more than one tile."""
MANY_ROWS = 64
SPECIAL = SpecialCodes((1,) * AGENT_CODEBOOKS, (2,) * AGENT_CODEBOOKS)
SMALL = Architecture(
    dim=256,
    num_heads=4,
    num_layers=4,
    context=150,
    text_vocab_size=512,
    audio_vocab_size=512,
    depformer_dim=128,
    depformer_num_heads=4,
    depformer_num_layers=2,
    depformer_dim_feedforward=528,
)
"""Small enough for any device; prompt and frames overfill the window of a block and a part, so the ring wraps."""
PROMPT_LENGTH = 70
CACHES = [
    (torch.float32, torch.float32),
    (torch.bfloat16, torch.bfloat16),
    (torch.float32, torch.int8),
    (torch.bfloat16, torch.int8),
]
"""Dtypes of the model and of its KV cache."""


def check_all(device: torch.device, console: Console) -> None:
    """Raise AssertionError when a device computes wrong tokens, whatever the dtypes of model and cache."""
    if device.type == "cuda":
        for name, error in kernel_errors(device).items():
            assert error < 1e-2, f"{name}: {error:.1e}"
            console.print(f"kernel against its reference in float32 or better: {name} {error:.1e}")
    slots = GPU_SLOTS if device.type == "cuda" else SLOTS
    for dtype, cache_dtype in CACHES:
        generator = torch.Generator(device).manual_seed(1)
        lm = untrained_language_model(SMALL, generator, dtype)
        model = Model(lm, MimiCodec(untrained_mimi(generator, MIMI), slots), SPECIAL, slots, cache_dtype=cache_dtype)
        model.warm_up()
        if device.type == "cuda":
            check_rows_alone(lm, cache_dtype)
        for pin in (False, True):
            check_batched_equals_alone(model, pin)
        check_forced_text(model)
        error = prefill_error(lm, cache_dtype)
        assert error < (1e-4 if cache_dtype == torch.float32 else 5e-2), f"prefilled and stepped differ by {error:.1e}"
        console.print(
            f"{dtype}, cache {cache_dtype}: tokens alone = batched, pinned and not; forced text; "
            f"prefilled against stepped, relative error {error:.1e}"
        )


def kernel_errors(device: torch.device) -> dict[str, float]:
    """The relative errors of the kernels against their references in higher precision, on random inputs."""
    from core.engine.kernels.matmul import linear
    from core.engine.kernels.sampling import sample

    errors = fused_errors(device)
    for batch, rows, columns in ((1, 4096, 4096), (9, 22528, 4096), (40, 1000, 2816), (200, 4096, 11264)):
        x = torch.randn(batch, columns, device=device, dtype=torch.bfloat16)
        weight = torch.randint(-127, 128, (rows, columns), device=device, dtype=torch.int8)
        scale = torch.rand(rows, device=device)
        exact = x.double() @ weight.double().T * scale
        errors[f"int8 {batch} x {rows} x {columns}"] = relative(linear(x, pair(weight), scale=scale), exact)
        for dtype in (torch.bfloat16, torch.float32):
            plain = torch.randn(rows, columns, device=device, dtype=dtype)
            exact = x.double() @ plain.double().T
            errors[f"{dtype} {batch} x {rows} x {columns}"] = relative(linear(x.to(dtype), plain), exact)

    architecture = Architecture(num_layers=1)
    positions = torch.tensor([0, 1, 255, 256, 2999, 3000, 100_000], device=device)
    rows, window = len(positions), blocks_for(architecture.context)
    table = torch.randperm(rows * window, device=device).view(window, rows).T
    heads, width = architecture.num_heads, architecture.head_dim
    pinned = torch.tensor([0, 0, 0, 197, 128, 0, 197], device=device)
    for dtype, cache_dtype in CACHES:
        caches = [BlockCache(architecture, rows * window, device, cache_dtype) for _ in range(2)]
        filled = torch.randn(1, 2, heads, architecture.context, width, device=device)
        for blocks in table.tolist():
            for cache in caches:
                cache.load(blocks, PrefixCacheEntry((filled,), architecture.context, filled))
        query, key, value = torch.randn(rows, 1, 3, heads, width, device=device).to(dtype).permute(2, 0, 3, 1, 4)
        got = caches[0].attention(positions, table, pinned)(0, query, key, value)
        reference = ReferenceBlockAttention(caches[1], positions, table, pinned)
        exact = reference(0, query.float(), key.float(), value.float())
        name = f"{dtype}, cache {cache_dtype}"
        errors[f"attention, {name}"] = relative(got, exact)
        cached, expected = (
            torch.stack(cache.read(0, slice(None), (1 + rows * window) * BLOCK_FRAMES, torch.float32))
            for cache in caches
        )
        errors[f"attention's cache, {name}"] = relative(cached, expected)

    for vocab_size in (512, 2048, 32_000):
        logits = torch.randn(64, vocab_size, device=device) * 3
        temperature = torch.linspace(0, 2, 64, device=device)
        top_k = torch.arange(1, 65, device=device) * 7
        seed = torch.randint(2**62, (64,), device=device)
        position = torch.randint(10_000, (64,), device=device)
        for stream in range(9):
            noise = gumbel_noise(seed, position, range(stream, stream + 1), vocab_size)[0]
            exact = reference_sample(logits, temperature, top_k, noise)
            other = (sample(logits, temperature, top_k, seed, position, stream) != exact).float().mean()
            name = f"samples of {vocab_size} that differ"
            errors[name] = max(float(other), errors.get(name, 0.0))
    return errors


def prefilled(lm: LanguageModel, length: int) -> PrefixCacheEntry:
    """Prefill a prompt of random tokens in one pass."""
    tokens = random_tokens(lm, length)
    cache = PrefillCache(lm.architecture, length, lm.device, lm.dtype)
    with torch.inference_mode():
        hidden = lm(lm.embed(tokens[None]), cache.attention(length))[0, -1]
    return PrefixCacheEntry((cache.kv,), length, hidden)


def random_tokens(lm: LanguageModel, length: int) -> torch.Tensor:
    """int64[length, 17] on the model's device."""
    tokens = np.random.default_rng(length).integers(4, lm.architecture.audio_vocab_size, (length, STREAMS))
    return torch.from_numpy(tokens).to(lm.device)


def check_batched_equals_alone(model: Model, pin: bool) -> None:
    """Check that a seeded call says the same in any slot, alone or with others talking beside it.

    It has its prompt pinned or not; of the others, every second one has.
    """
    prompt = prefilled(model.lm, PROMPT_LENGTH)
    allocated = [model.cache.allocate(SMALL.context) or [] for _ in range(model.slots)]
    random = np.random.default_rng(0)
    voice = random.normal(0, 0.1, (FRAMES, FRAME_SAMPLES)).astype(np.float32)
    said: list[Tokens] = []
    for slot, others in ((0, False), (0, True), (model.slots - 1, True)):
        for each, blocks in enumerate(allocated):
            itself = each == slot
            model.begin(each, prompt, USUAL, 7 if itself else 100 + each, blocks, pin=pin if itself else each % 2 == 0)
        tokens = []
        for frame in voice:
            frames = {slot: frame}
            if others:
                talking = [each for each in range(model.slots) if each != slot and random.random() < 0.7]
                frames |= {each: random.normal(0, 0.1, FRAME_SAMPLES).astype(np.float32) for each in talking}
            tokens.append(model.step(frames)[1][slot])
        said.append(np.array(tokens))
    for blocks in allocated:
        model.cache.free(blocks)
    assert np.array_equal(said[0], said[1]), "others on the device change a call's tokens"
    assert np.array_equal(said[0], said[2]), "the slot changes a call's tokens"


def check_forced_text(model: Model) -> None:
    """Check that what a call is given to say replaces what it should, and changes no call beside it."""
    prompt = prefilled(model.lm, PROMPT_LENGTH)
    allocated = [model.cache.allocate(SMALL.context) or [] for _ in range(model.slots)]
    voice = np.random.default_rng(0).normal(0, 0.1, (FRAMES, FRAME_SAMPLES)).astype(np.float32)
    orders = [UNFORCED, Forced(11, Replaces.WORDS), Forced(12, Replaces.EVERYTHING), Forced(PADDING, Replaces.WORDS)]
    said: list[Tokens] = []
    for forcing in (False, True):
        for slot, blocks in enumerate(allocated):
            model.begin(slot, prompt, USUAL, 100 + slot, blocks)
        tokens = []
        for number, frame in enumerate(voice):
            forced = {slot: orders[(number + slot) % 4] for slot in range(model.slots) if slot % 2 and forcing}
            outputs = model.step(dict.fromkeys(range(model.slots), frame), forced)
            own = torch.from_numpy(outputs.text[:, 1])
            rows = torch.tensor([forced.get(slot, UNFORCED) for slot in range(model.slots)])
            assert np.array_equal(outputs.text[:, 0], force_text(own, rows.T)), (
                "a forced token is not what it should be"
            )
            tokens.append(outputs.tokens)
        said.append(np.array(tokens))
    for blocks in allocated:
        model.cache.free(blocks)
    assert np.array_equal(said[0][:, ::2], said[1][:, ::2]), "what a call is given to say changes another call"
    assert not np.array_equal(said[0][:, 1], said[1][:, 1]), "what a call is given to say does not change it"


def check_rows_alone(lm: LanguageModel, cache_dtype: torch.dtype) -> str:
    """Raise AssertionError where a row's logits depend, in a single bit, on the number of rows beside it."""
    tokens = random_tokens(lm, MANY_ROWS)[:, None]
    cache = BlockCache(lm.architecture, MANY_ROWS, lm.device, cache_dtype)
    table = torch.arange(1, 1 + MANY_ROWS, device=lm.device)[:, None].expand(-1, blocks_for(lm.architecture.context))
    position = torch.zeros(MANY_ROWS, dtype=torch.int64, device=lm.device)
    alone: dict[str, torch.Tensor] = {}
    for rows in (1, 2, 4, 8, 16, 17, 32, 33, MANY_ROWS):
        with torch.inference_mode():
            hidden = lm(lm.embed(tokens[:rows]), cache.attention(position[:rows], table[:rows]))[:, 0]
            logits = {"embedding": lm.embed(tokens[:rows]), "text": lm.text_logits(hidden)}
            codebooks = CodebookCache()
            for codebook in range(AGENT_CODEBOOKS):
                previous = tokens[:rows, 0, codebook]
                logits[f"codebook {codebook}"] = lm.codebook_logits(hidden, codebook, previous, codebooks)
        for name, figures in logits.items():
            first = alone.setdefault(name, figures[0])
            change = relative(figures[0], first)
            assert torch.equal(figures[0], first), f"{name}: {rows} rows change the first by {change:.1e}"
    return f"a row alone and among {MANY_ROWS}: the same bits"


def prefill_error(lm: LanguageModel, cache_dtype: torch.dtype) -> float:
    """Relative difference of the last hidden state between a prefill and a step for each position."""
    length = SMALL.context - 8
    tokens, whole = random_tokens(lm, length), prefilled(lm, length)
    cache = BlockCache(lm.architecture, blocks_for(SMALL.context), lm.device, cache_dtype)
    table = torch.tensor([cache.allocate(SMALL.context)], device=lm.device)
    hidden = torch.empty(0)
    with torch.inference_mode():
        for position in range(length):
            attend = cache.attention(torch.tensor([position], device=lm.device), table)
            hidden = lm(lm.embed(tokens[None, position : position + 1]), attend)[0, -1]
    return float((hidden - whole.hidden).float().norm() / whole.hidden.float().norm())
