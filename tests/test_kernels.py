"""Each Triton kernel against its reference: on a GPU where there is one, else through Triton's interpreter, which
conftest.py chooses."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

pytest.importorskip("triton", reason="Triton comes with torch's CUDA builds only")

import triton
import triton.language as tl

from benchmarks.untrained import untrained_mimi
from core.engine.architecture import Architecture
from core.engine.depformer import reference_codebook_attention
from core.engine.kernels import mimi, mimi_matmul
from core.engine.kernels.attention import block_attention
from core.engine.kernels.depformer import codebook_attention
from core.engine.kernels.matmul import linear
from core.engine.kernels.norm import rms_norm
from core.engine.kernels.quantization import FLIPPED_BYTE, words_to_float32
from core.engine.kernels.sampling import sample
from core.engine.kv_cache import BLOCK_FRAMES, BlockCache, ReferenceBlockAttention, blocks_for, query_positions
from core.engine.linear import reference_linear
from core.engine.mimi import spectral_decoder, transformer
from core.engine.mimi.coder import reference_nearest_codes
from core.engine.mimi.linear import reference_linear as reference_mimi_linear
from core.engine.mimi.spectral import SpectralMimi, SpectralNetwork, SpectralShape
from core.engine.mimi.spectral_decoder import SpectralDecoder, synthesis_matrix
from core.engine.mimi.transformer import ReferenceRingAttention
from core.engine.mimi.weights import codebooks
from core.engine.quantization import pair, quantize
from core.engine.rotary import RotaryEmbedding
from core.engine.sampler import gumbel_noise, reference_sample
from core.engine.transformer import NORM_EPSILON

pytestmark = [
    pytest.mark.filterwarnings("ignore:Conversion of an array with ndim:DeprecationWarning"),  # Triton's own
    pytest.mark.slow,
]

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ROWS = [1, 2, 17, pytest.param(64, marks=pytest.mark.slow)]
"""One and two, one more than a small tile has, and two large tiles."""
DTYPES = [torch.float32, torch.bfloat16]
CACHES = [
    (torch.float32, torch.float32),
    (torch.float32, torch.bfloat16),
    (torch.float32, torch.int8),
    (torch.bfloat16, torch.bfloat16),
    (torch.bfloat16, torch.int8),
]
"""Dtypes of the model and of its KV cache."""
MATMUL_DTYPES = [torch.float32, torch.bfloat16 if DEVICE.type == "cuda" else torch.float16]
"""Triton's interpreter takes bfloat16 for integers in a matmul; float16 has the same tiles."""
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 6e-3, torch.float16: 6e-3}
"""Relative errors, which for 16 bits are those of rounding once."""
SHORT = Architecture(dim=64, num_heads=2, num_layers=1, context=BLOCK_FRAMES + 22)
"""A window of a block and a part of one."""
EDGES = [0, 1, 63, 64, 127, 128, 148, 149, 150, 151, 277, 278, 300, 100_000]
"""Positions at the ends of tiles, of blocks and of the ring, and after it has come round."""
PINNED = (40, 0, 75, 64, 128, 140)
"""Frames that are kept: within a tile and at its end, a block, and beyond."""


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normally distributed numbers, the same on every device."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def integers(low: int, high: int, *shape: int) -> Tensor:
    """Uniformly distributed integers from `low` to `high`, the latter excluded."""
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(1)).to(DEVICE)


def relative(got: Tensor, exact: Tensor) -> float:
    """The relative error in the Euclidean norm."""
    return float((got.double() - exact.double()).norm() / exact.double().norm())


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("dtype", MATMUL_DTYPES)
def test_matmul_with_a_residual(rows: int, dtype: torch.dtype) -> None:
    """The last tile of the outputs is a partial one, as is the last of the inputs."""
    x, weight = random(rows, 150, dtype=dtype), random(50, 150, seed=1, dtype=dtype)
    residual = random(rows, 50, seed=2, dtype=dtype)
    exact = reference_linear(x.double(), weight.double(), residual=residual.double())
    assert relative(linear(x, weight, residual=residual), exact) < TOLERANCE[dtype]


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("dtype", MATMUL_DTYPES)
def test_gated_matmul_with_8_bit_weights(rows: int, dtype: torch.dtype) -> None:
    x, scale = random(rows, 300, dtype=dtype), random(80, seed=1).abs() / 100
    weight = integers(-127, 128, 80, 300).to(torch.int8)
    exact = reference_linear(x.double(), weight.double() * scale[:, None], gated=True)
    assert relative(linear(x, pair(weight), scale, gated=True), exact) < TOLERANCE[dtype]


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("dtype", MATMUL_DTYPES)
def test_a_long_sum_is_split(rows: int, dtype: torch.dtype) -> None:
    """In two parts of unequal length; the second launch uses the counters that the first has left behind."""
    x, weight = random(rows, 1100, dtype=dtype), random(40, 1100, seed=1, dtype=dtype)
    exact = reference_linear(x.double(), weight.double())
    for _ in range(2):
        assert relative(linear(x, weight), exact) < TOLERANCE[dtype]


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("dtype", MATMUL_DTYPES)
def test_a_long_sum_with_8_bit_weights_is_split(rows: int, dtype: torch.dtype) -> None:
    """The last of the 1100 input features are fewer than pairs are arranged in."""
    x, scale = random(rows, 1100, dtype=dtype), random(40, seed=1).abs() / 100
    weight = integers(-127, 128, 40, 1100).to(torch.int8)
    exact = reference_linear(x.double(), weight.double() * scale[:, None])
    assert relative(linear(x, pair(weight), scale), exact) < TOLERANCE[dtype]


@pytest.mark.parametrize("rows", ROWS)
def test_a_long_sum_of_the_codec_is_split(rows: int) -> None:
    """As above, with two times in each row; the second launch uses the counters that the first has left behind."""
    x, weight, residual = random(rows, 2, 1100), random(40, 1100, seed=1), random(rows, 2, 40, seed=2)
    exact = reference_mimi_linear(x.double(), weight.double(), residual=residual.double())
    for _ in range(2):
        assert relative(mimi_matmul.linear(x, weight, residual=residual), exact) < 2e-6


@pytest.mark.parametrize("rows", ROWS)
def test_matmul_after_a_norm(rows: int) -> None:
    x, weight, bias = random(rows, 2, 100), random(40, 100, seed=1), random(40, seed=2)
    options: dict[str, Any] = {"centred": True, "epsilon": 1e-5, "gelu": True}
    exact = reference_mimi_linear(x.double(), weight.double(), bias=bias.double(), **options)
    assert relative(mimi_matmul.linear(x, weight, bias=bias, **options), exact) < 2e-6


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("width", [7, 48])
def test_matmul_over_sliding_windows(rows: int, width: int) -> None:
    """A convolution: with the result as it is and through ELU."""
    windows = random(rows, 1000)[:, 3:].unfold(1, width, 8)
    weight, bias = random(20, width, seed=1), random(20, seed=2)
    out, elu = torch.empty(2, rows, windows.shape[1], 20, device=DEVICE)
    mimi_matmul.linear(windows, weight, bias=bias, out=out, elu=elu)
    exact = reference_mimi_linear(windows.double(), weight.double(), bias=bias.double())
    assert relative(out, exact) < 2e-6
    assert relative(elu, F.elu(exact)) < 2e-6


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_norm(rows: int, dtype: torch.dtype) -> None:
    x, alpha = random(rows, 100, dtype=dtype), random(100, seed=1, dtype=dtype)
    exact = F.rms_norm(x.double(), (100,), alpha.double(), NORM_EPSILON)
    assert relative(rms_norm(x, alpha, NORM_EPSILON), exact) < TOLERANCE[dtype]


@pytest.mark.parametrize("rows", ROWS)
def test_sampling(rows: int) -> None:
    """With temperatures from 0 and top-k from 1, up to beyond the vocabulary."""
    vocab_size = 300
    temperature = torch.linspace(0, 2, rows, device=DEVICE)
    top_k = torch.linspace(1, 400, rows, device=DEVICE).long()
    seed, position = integers(0, 2**62, rows), integers(0, 10_000, rows)
    for stream in (0, 8):
        logits = random(rows, vocab_size, seed=stream) * 3
        noise = gumbel_noise(seed, position, range(stream, stream + 1), vocab_size)[0]
        exact = reference_sample(logits, temperature, top_k, noise)
        assert torch.equal(sample(logits, temperature, top_k, seed, position, stream), exact)


@pytest.mark.parametrize("top_k", [1, 2, 3, 300, 400])
def test_sampling_among_equal_logits(top_k: int) -> None:
    """All that equal the k-th largest may be sampled; with all logits equal, all are."""
    rows, vocab_size = 8, 300
    seed, position = integers(0, 2**62, rows), integers(0, 10_000, rows)
    settings = torch.full((rows,), 0.8, device=DEVICE), torch.full((rows,), top_k, device=DEVICE)
    logits = torch.full((rows, vocab_size), -2.0, device=DEVICE)
    logits[0, 7], logits[1, 4:6], logits[2, 4:8], logits[3, 1::2] = 1.0, 1.0, 0.0, 3.0
    equal = logits >= logits.topk(min(top_k, vocab_size)).values[:, -1:]
    noise = gumbel_noise(seed, position, range(1, 2), vocab_size)[0]
    exact = (logits / 0.8 + noise).masked_fill(~equal, -torch.inf).argmax(-1)
    assert torch.equal(sample(logits, *settings, seed, position, 1), exact)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_among_codebooks(rows: int, dtype: torch.dtype) -> None:
    """Heads of 24 channels, which are padded to 32."""
    cached = random(rows, 8, 3 * 48, dtype=dtype)
    for codebook in (0, 4, 7):
        exact = reference_codebook_attention(cached.double(), codebook, 2)
        assert relative(codebook_attention(cached, codebook, 2), exact) < TOLERANCE[dtype]


@pytest.mark.parametrize("kept", [(0,), PINNED])
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize(("dtype", "cache_dtype"), CACHES)
def test_attention_over_blocks(rows: int, dtype: torch.dtype, cache_dtype: torch.dtype, kept: tuple[int, ...]) -> None:
    """Rows at all edges of the ring, their blocks in any order, and each row by itself as among the others; with
    nothing pinned, and with some rows' prompts.
    """
    positions = torch.tensor([EDGES[-1 - row % len(EDGES)] for row in range(rows)], device=DEVICE)
    pinned = torch.tensor([kept[row % len(kept)] for row in range(rows)], device=DEVICE)
    window = blocks_for(SHORT.context)
    table = 1 + torch.randperm(rows * window, generator=torch.Generator().manual_seed(2)).view(window, rows).T
    table = table.to(DEVICE)
    query, key, value = random(rows, 1, 3, SHORT.num_heads, SHORT.head_dim, seed=3, dtype=dtype).permute(2, 0, 3, 1, 4)
    exact, cache = cache_of(rows * window, cache_dtype), cache_of(rows * window, cache_dtype)
    expected = ReferenceBlockAttention(exact, positions, table, pinned)(0, query.float(), key.float(), value.float())

    def attend(rows: slice, cache: BlockCache) -> Tensor:
        scales = None if cache.scales is None else cache.scales[0]
        where = positions[rows], pinned[rows], table[rows], SHORT.context
        rotary = RotaryEmbedding(query_positions(positions[rows], SHORT.context), SHORT)
        return block_attention(query[rows], key[rows], value[rows], cache.kv[0], scales, *where, rotary)

    # Twice that of rounding once: rotated query and result are both rounded.
    tolerance = 2 * max(TOLERANCE[dtype], TOLERANCE.get(cache_dtype, 0.0))
    got = attend(slice(None), cache)
    assert relative(got, expected) < tolerance
    cached, exactly_cached = (torch.stack(each.read(0, slice(None), 1 << 20, torch.float32)) for each in (cache, exact))
    assert relative(cached, exactly_cached) < tolerance
    for row in {0, rows // 2, rows - 1}:
        assert torch.equal(attend(slice(row, row + 1), cache_of(rows * window, cache_dtype))[0], got[row])


@pytest.mark.parametrize("cache_dtype", [torch.float32, torch.int8])
def test_attention_reads_no_part_that_is_not_there(cache_dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of eight blocks, of which calls use one, some or all, and prompts that end within a block or with it."""
    window = 8
    architecture = replace(SHORT, context=window * BLOCK_FRAMES - 20)
    positions = torch.tensor([0, 127, 128, 500, 1003, 1004, 1005, 5000, 5000], device=DEVICE)
    pinned = torch.tensor([0, 0, 0, 40, 40, 40, 128, 0, 300], device=DEVICE)
    rows = len(positions)
    table = torch.arange(1, 1 + rows * window, device=DEVICE).view(rows, window)
    query, key, value = random(rows, 1, 3, 2, SHORT.head_dim, seed=3).permute(2, 0, 3, 1, 4)
    exact, cache = cache_of(rows * window, cache_dtype), cache_of(rows * window, cache_dtype)
    exact.architecture = architecture
    expected = ReferenceBlockAttention(exact, positions, table, pinned)(0, query, key, value)
    rotary = RotaryEmbedding(query_positions(positions, architecture.context), architecture)
    scales = None if cache.scales is None else cache.scales[0]
    where = positions, pinned, table, architecture.context, rotary
    monkeypatch.setattr(torch, "empty", lambda *shape, **options: torch.full(shape, torch.nan, **options))
    assert relative(block_attention(query, key, value, cache.kv[0], scales, *where), expected) < 4e-6


def test_words_of_8_bits() -> None:
    """Every byte at each place of a word."""
    every = torch.arange(-128, 128, device=DEVICE).to(torch.int8)
    x = torch.stack([every.roll(place) for place in range(4)], dim=1)
    out = torch.empty(256, 4, device=DEVICE)
    _widen[(1,)](x.view(torch.int32), out, FLIPPED_BYTE)
    assert torch.equal(out, x.float())


@triton.jit
def _widen(words_pointer, out_pointer, flipped_byte):  # type: ignore[no-untyped-def]
    """Convert 256 words of four int8 each to float32."""
    word = tl.arange(0, 256)[:, None]
    numbers = words_to_float32(tl.load(words_pointer + word), flipped_byte)
    tl.store(out_pointer + 4 * word + tl.arange(0, 4)[None, :], numbers)


def cache_of(blocks: int, dtype: torch.dtype) -> BlockCache:
    """Blocks of random keys and values, in the layout that the kernel reads."""
    cache = BlockCache(SHORT, blocks, DEVICE, dtype)
    kv = random(*cache.kv.shape)
    if dtype == torch.int8:
        cache.kv, cache.scales = quantize(kv)
    else:
        cache.kv = kv.to(dtype)
    return cache


@pytest.mark.parametrize("time", [1, 2])
@pytest.mark.parametrize("rows", ROWS)
def test_attention_in_the_codecs_ring(rows: int, time: int) -> None:
    """A window of 300 times in tiles of 256; slots in any order, of which every third is not active."""
    heads, width, context, slots = 2, 32, 300, rows + 3
    cached = random(2, slots, heads, context, width)
    exact_cached = cached.double()
    projected, angles = random(rows, time, 3, heads, width, seed=1), random(rows, time, width // 2, seed=2)
    positions = [0, 2, 254, 256, 298, 300, 302, 9990]
    position = torch.tensor([positions[row % len(positions)] for row in range(rows)], device=DEVICE)
    slot = torch.randperm(slots, generator=torch.Generator().manual_seed(3))[:rows].to(DEVICE)
    active = torch.arange(rows, device=DEVICE) % 3 != 1
    got = mimi.ring_attention(projected, cached, slot, active, position, angles.cos(), angles.sin())
    double = angles.double()
    attend = ReferenceRingAttention(slot, active, position, double.cos(), double.sin(), context)
    exact = attend(projected.double(), exact_cached)
    assert relative(got, exact) < 2e-6
    assert relative(cached, exact_cached) < 2e-6


@torch.inference_mode()
def test_a_decoder_of_spectra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the whole network; and a row has the same bits alone as among others."""
    shape = SpectralShape(
        latent=64, dim=64, heads=2, feedforward=96, context=3, blocks=2, hidden=96, window=240, hop=60
    )
    torch.manual_seed(0)
    whole = SpectralMimi(untrained_mimi(torch.Generator().manual_seed(0)), SpectralNetwork(shape).eval())
    codes = integers(0, 512, 3, 8, 5)
    exact = whole.decode(codes.cpu()).view(3, -1, 1920).to(DEVICE)
    if DEVICE.type == "cpu":
        monkeypatch.setattr(spectral_decoder, "packed", lambda weight: weight)
        for module in (spectral_decoder, transformer):
            monkeypatch.setattr(module, "fused_linear", mimi_matmul.linear)
    quantizer = codebooks(whole.to(DEVICE).quantizer)
    together, alone = (SpectralDecoder(whole.spectral, quantizer, 3, DEVICE) for _ in range(2))
    for decoder in (together, alone):
        decoder.synthesis = synthesis_matrix(decoder.envelope)
    slots, active = torch.arange(3, device=DEVICE), torch.ones(3, dtype=torch.bool, device=DEVICE)
    for frame in range(codes.shape[2]):
        sound = together.run(codes[:, :, frame], active, slots)
        assert relative(sound, exact[:, frame]) < 2e-5
        assert torch.equal(alone.run(codes[1:2, :, frame], active[1:2], slots[1:2]), sound[1:2])


@pytest.mark.parametrize("rows", ROWS)
def test_nearest_codes(rows: int) -> None:
    """Four codebooks of 70 codes, compared in groups of 32, with vectors of 24 channels, padded to 32."""
    vectors, projected = random(4, 70, 24), random(rows, 48, seed=1) * 3
    exact_vectors = vectors.double()
    exact = reference_nearest_codes(projected.double(), exact_vectors, exact_vectors.square().sum(-1) / 2)
    assert torch.equal(mimi.nearest_codes(projected, vectors, vectors.square().sum(-1) / 2), exact)


@pytest.mark.parametrize("rows", ROWS)
def test_state_of_streams(rows: int) -> None:
    """More floats than one program copies; rows that are not active leave the state as it is."""
    places = torch.cat([torch.arange(5, 1005), torch.arange(1500, 1600)]).to(DEVICE)
    state, slot = random(rows + 3, len(places)), torch.arange(rows, device=DEVICE).flip(0) + 1
    working = torch.zeros(rows, 1600, device=DEVICE)
    expected = working.clone()
    expected[:, places] = state[slot]
    mimi.load_state(state, slot, places, working)
    assert torch.equal(working, expected)
    active, saved = torch.arange(rows, device=DEVICE) % 3 != 1, random(rows, 1600, seed=1)
    after = state.clone()
    after[slot[active]] = saved[active][:, places]
    mimi.save_state(state, slot, places, saved, active)
    assert torch.equal(state, after)
