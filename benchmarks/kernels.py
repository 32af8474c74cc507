"""The kernels against their references in higher precision, on random inputs: matmuls, depformer and Mimi."""

import torch
from torch import Tensor
from torch.nn.functional import rms_norm

from benchmarks.baseline import PlainMimi
from benchmarks.untrained import MIMI, untrained_mimi
from core.engine.depformer import reference_codebook_attention
from core.engine.linear import reference_linear
from core.engine.mimi.codec import MimiCodec
from core.engine.mimi.coder import reference_nearest_codes
from core.engine.mimi.linear import reference_linear as reference_mimi_linear
from core.engine.mimi.spectral import SpectralMimi, SpectralNetwork, SpectralShape
from core.engine.mimi.transformer import ReferenceRingAttention
from core.engine.transformer import NORM_EPSILON

CODEC_FRAMES = 40
SLOTS = 3


def relative(got: Tensor, exact: Tensor) -> float:
    """The relative error in the Euclidean norm."""
    return float((got.double() - exact.double()).norm() / exact.double().norm())


@torch.inference_mode()
def fused_errors(device: torch.device) -> dict[str, float]:
    """Relative errors, and shares of codes that differ."""
    return {
        **matmul_errors(device),
        **depformer_errors(device),
        **mimi_errors(device),
        **codec_errors(device),
        **spectral_errors(device),
    }


def matmul_errors(device: torch.device) -> dict[str, float]:
    """Matmuls with what comes before and after them, and the norm."""
    from core.engine.kernels.matmul import linear
    from core.engine.kernels.mimi_matmul import linear as mimi_linear
    from core.engine.kernels.norm import rms_norm as norm_kernel

    errors = {}
    for dtype in (torch.float32, torch.bfloat16):
        for batch in (1, 20, 70):
            x, weight = (
                torch.randn(batch, 1024, device=device).to(dtype),
                torch.randn(5632, 1024, device=device).to(dtype),
            )
            residual = torch.randn(batch, 2816, device=device).to(dtype)
            exact = reference_linear(x.double(), weight.double(), gated=True, residual=residual.double())
            errors[f"gated matmul, {batch}, {dtype}"] = relative(
                linear(x, weight, gated=True, residual=residual), exact
            )
    x, weight = torch.randn(5, 2, 512, device=device), torch.randn(2048, 512, device=device) * 0.1
    bias = torch.randn(2048, device=device)
    exact = reference_mimi_linear(
        x.double(), weight.double(), bias=bias.double(), centred=True, epsilon=1e-5, gelu=True
    )
    errors["matmul after a norm"] = relative(
        mimi_linear(x, weight, bias=bias, centred=True, epsilon=1e-5, gelu=True), exact
    )
    hidden, weight = torch.randn(20, 2, 2048, device=device), torch.randn(512, 2048, device=device) * 0.05
    residual = torch.randn(20, 2, 512, device=device)
    exact = reference_mimi_linear(hidden.double(), weight.double(), residual=residual.double())
    for time in ("once", "again"):  # The second uses the counters that the first has left behind.
        errors[f"split matmul, {time}"] = relative(mimi_linear(hidden, weight, residual=residual), exact)
    sound = torch.randn(5, 4400, device=device)
    windows = sound[:, 3:4347].unfold(1, 512, 8)
    weight, bias = torch.randn(128, 512, device=device) * 0.05, torch.randn(128, device=device)
    out, elu = torch.empty(2, 5, 480, 128, device=device)
    mimi_linear(windows, weight, bias=bias, out=out, elu=elu)
    exact = reference_mimi_linear(windows.double(), weight.double(), bias=bias.double())
    errors["matmul over windows"] = relative(out, exact)
    errors["matmul over windows, through ELU"] = relative(elu, torch.nn.functional.elu(exact))
    x, alpha = torch.randn(70, 4096, device=device), torch.rand(4096, device=device)
    errors["norm"] = relative(
        norm_kernel(x, alpha, NORM_EPSILON), rms_norm(x.double(), (4096,), alpha.double(), NORM_EPSILON)
    )
    return errors


def depformer_errors(device: torch.device) -> dict[str, float]:
    """Attention of a codebook to those before it."""
    from core.engine.kernels.depformer import codebook_attention

    errors = {}
    for dtype in (torch.float32, torch.bfloat16):
        cached = torch.randn(7, 8, 3072, device=device).to(dtype)
        for codebook in (0, 4, 7):
            exact = reference_codebook_attention(cached.double(), codebook, 16)
            errors[f"depformer's attention, {codebook}, {dtype}"] = relative(
                codebook_attention(cached, codebook, 16), exact
            )
    return errors


def mimi_errors(device: torch.device) -> dict[str, float]:
    """Mimi's attention and its search for the nearest codes."""
    from core.engine.kernels.mimi import nearest_codes, ring_attention

    cached = torch.randn(2, 6, 8, 250, 64, device=device)
    exact_cached = cached.double()
    projected, angles = torch.randn(4, 2, 3, 8, 64, device=device), torch.randn(4, 2, 32, device=device)
    slots, position = torch.tensor([5, 0, 3, 2], device=device), torch.tensor([0, 6, 248, 9990], device=device)
    active = torch.tensor([True, True, False, True], device=device)
    got = ring_attention(projected, cached, slots, active, position, angles.cos(), angles.sin())
    exact_angles = angles.double().cos(), angles.double().sin()
    exact = ReferenceRingAttention(slots, active, position, *exact_angles, 250)(projected.double(), exact_cached)
    vectors, latent = torch.randn(8, 2048, 256, device=device), torch.randn(40, 512, device=device) * 3
    exact_vectors = vectors.double()
    codes = nearest_codes(latent, vectors, vectors.square().sum(-1) / 2)
    exact_codes = reference_nearest_codes(latent.double(), exact_vectors, exact_vectors.square().sum(-1) / 2)
    return {
        "Mimi's attention": relative(got, exact),
        "Mimi's new keys and values": relative(cached, exact_cached),
        "nearest codes that differ": float((codes != exact_codes).float().mean()),
    }


def codec_errors(device: torch.device) -> dict[str, float]:
    """Kyutai's whole Mimi, with random filters, against `moshi`'s in float32."""
    generator = torch.Generator(device).manual_seed(3)
    mimi = untrained_mimi(generator, None)
    ours, plain = MimiCodec(mimi, SLOTS), PlainMimi(mimi, SLOTS)
    slots = torch.arange(SLOTS, device=device)
    differ, sound = 0.0, 0.0
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    for frame in range(CODEC_FRAMES):
        active = (slots + frame) % 4 > 0
        pcm = torch.randn(SLOTS, 1920, device=device, generator=generator) * 0.1
        codes = plain.encode(pcm, active)
        differ += float((ours.encode(pcm, active, slots) != codes)[active].float().mean()) / CODEC_FRAMES
        got, exact = ours.decode(codes, active, slots), plain.decode(codes, active)
        sound = max(sound, relative(got[active], exact[active]))
    torch.backends.cudnn.allow_tf32 = allowed
    return {"Mimi's codes that differ": differ, "Mimi's sound": sound}


def spectral_errors(device: torch.device) -> dict[str, float]:
    """A decoder of spectra with random weights, against the whole network on the CPU, and rows alone against many."""
    torch.manual_seed(4)
    mimi = untrained_mimi(torch.Generator().manual_seed(4), MIMI)
    whole = SpectralMimi(mimi, SpectralNetwork(SpectralShape(latent=mimi.dimension)).eval())
    codes = torch.randint(mimi.cardinality, (SLOTS, 8, CODEC_FRAMES))
    exact = whole.decode(codes).view(SLOTS, -1, 1920).to(device)
    whole.to(device)
    together, alone = MimiCodec(whole, SLOTS), MimiCodec(whole, SLOTS)
    slots, active = torch.arange(SLOTS, device=device), torch.ones(SLOTS, dtype=torch.bool, device=device)
    sound, differ = 0.0, 0.0
    for frame in range(CODEC_FRAMES):
        step = codes[:, :, frame].to(device)
        got = together.decode(step, active, slots)
        one = alone.decode(step[1:2], active[1:2], slots[1:2])
        sound = max(sound, relative(got, exact[:, frame]))
        differ += float((one != got[1:2]).float().mean()) / CODEC_FRAMES
    return {"spectral decoder's sound": sound, "its samples that differ in a row alone": differ}
