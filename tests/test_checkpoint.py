"""Checkpoints: what loads, and how wrong ones are refused."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.untrained import untrained_mimi
from core.boot.checkpoint_source import NANO
from core.engine.architecture import FIXED, Architecture
from core.engine.checkpoint import Checkpoint
from core.engine.kv_cache import PrefillCache
from core.engine.linear import Int8Linear, Linear
from core.engine.lm import CodebookCache, LanguageModel
from core.engine.mimi.spectral import SpectralMimi, SpectralNetwork, SpectralShape
from core.engine.prompt import SpecialCodes
from core.engine.quantization import unpair
from core.engine.sampling import USUAL
from core.engine.stored_weights import in_few_bits, read_weights
from core.engine.tokenizer import SentencePieceTokenizer
from core.engine.weights import load_language_model, load_mimi, stored_name
from core.errors import CheckpointError
from tests.engines import CPU, golden_architecture, golden_weights
from training.shape import codec_shape


def copy_of(folder: Path, **config: Any) -> Path:
    """The nano checkpoint with some keys of its config changed; None removes one."""
    folder.mkdir()
    for part in NANO.iterdir():
        if part.is_file():
            (folder / part.name).symlink_to(part)
    changed = json.loads((NANO / "config.json").read_text()) | config
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps({key: value for key, value in changed.items() if value is not None}))
    return folder


@pytest.mark.parametrize("steps", [8, 16])
def test_sixteen_depformer_steps_load_as_eight(tmp_path: Path, steps: int) -> None:
    architecture = golden_architecture(200)
    golden_weights(tmp_path / "model.safetensors", architecture, steps)
    lm = LanguageModel(architecture, CPU, torch.float32)
    load_language_model(lm, tmp_path / "model.safetensors")
    stored = load_file(tmp_path / "model.safetensors")
    for name, parameter in lm.named_parameters():
        assert torch.equal(parameter, stored[stored_name(name)][: parameter.shape[0]]), name


def test_weights_are_converted_to_the_model_dtype(tmp_path: Path) -> None:
    architecture = golden_architecture(200)
    golden_weights(tmp_path / "model.safetensors", architecture)
    lm = LanguageModel(architecture, CPU, torch.bfloat16)
    load_language_model(lm, tmp_path / "model.safetensors")
    assert {parameter.dtype for parameter in lm.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("stored_dtype", [torch.bfloat16, torch.float32])
def test_a_float32_model_computes_in_float32_whatever_is_packed(tmp_path: Path, stored_dtype: torch.dtype) -> None:
    """Weights that float16 holds, as those from bfloat16, are packed in it where torch can; no others are."""
    path, architecture = tmp_path / "model.safetensors", golden_architecture(200)
    golden_weights(path, architecture, steps=8)
    stored = {name: tensor.to(stored_dtype) for name, tensor in load_file(path).items()}
    save_file(stored, path)
    loaded, exact = LanguageModel(architecture, CPU, torch.float32), LanguageModel(architecture, CPU, torch.float64)
    load_language_model(loaded, path)
    for name, parameter in exact.named_parameters():
        parameter.data.copy_(stored[stored_name(name)])
    tokens = torch.randint(0, 512, (2, 40, 17), generator=torch.Generator().manual_seed(1))
    said = []
    for lm in (loaded, exact):
        hidden = lm(lm.embed(tokens), PrefillCache(architecture, 40, CPU, lm.dtype).attention(40))[:, -1]
        codebook = lm.codebook_logits(hidden, 0, tokens[:, -1, 0], CodebookCache())
        said.append(torch.cat([lm.text_logits(hidden), codebook], dim=1).double())
    assert float((said[0] - said[1]).norm() / said[1].norm()) < 3e-6


def test_every_wrong_tensor_is_named(tmp_path: Path) -> None:
    path, architecture = tmp_path / "model.safetensors", golden_architecture(200)
    golden_weights(path, architecture)
    tensors = load_file(path)
    del tensors["text_linear.weight"]
    tensors["lora.weight"] = torch.zeros(3)
    tensors["depformer_in.x.weight"] = torch.zeros(3)
    tensors["out_norm.alpha"] = torch.zeros(1, 1, 65)
    name = "depformer.layers.0.self_attn.in_proj_weight"
    tensors[name] = tensors[name][:-7]
    save_file(tensors, path)
    with pytest.raises(CheckpointError) as error:
        load_language_model(LanguageModel(architecture, CPU, torch.float32), path)
    for problem in ("text_linear.weight is missing", "lora.weight is not", "depformer_in.x.weight is not",
                    "out_norm.alpha has shape [1, 1, 65], not [1, 1, 64]", f"{name} has shape"):  # fmt: skip
        assert problem in str(error.value)
    assert str(path) in str(error.value)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path, architecture = tmp_path / "model.safetensors", golden_architecture(200)
    golden_weights(path, architecture)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="Fetch it again"):
        load_language_model(LanguageModel(architecture, CPU, torch.float32), path)


def test_a_codec_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    checkpoint = Checkpoint.read(NANO)
    tensors = load_file(checkpoint.mimi)
    first, *_ = tensors
    del tensors[first]
    save_file(tensors, tmp_path / "mimi.safetensors")
    with pytest.raises(CheckpointError, match="is missing"):
        load_mimi(tmp_path / "mimi.safetensors", checkpoint.mimi_config, CPU)


def spectral_codec(path: Path) -> dict[str, Any]:
    """Write a codec with a small decoder of spectra and return its config."""
    config = codec_shape(32, 4, 1, codebook_size=64)
    mimi = untrained_mimi(torch.Generator().manual_seed(0), config)
    shape = SpectralShape(latent=32, dim=32, heads=2, feedforward=48, context=6, blocks=2, hidden=48)
    save_file(SpectralMimi(mimi, SpectralNetwork(shape)).state_dict(), path)
    return config | {"spectral": asdict(shape)}


def test_a_codec_may_have_a_decoder_of_spectra(tmp_path: Path) -> None:
    path = tmp_path / "mimi.safetensors"
    config = spectral_codec(path)
    mimi, stored = load_mimi(path, config, CPU), load_file(path)
    assert isinstance(mimi, SpectralMimi)
    assert all(torch.equal(tensor, stored.pop(name)) for name, tensor in mimi.state_dict().items())
    assert not stored
    with pytest.raises(CheckpointError, match=f"{path} does not fit its config: decoder.*is missing"):
        load_mimi(path, {key: value for key, value in config.items() if key != "spectral"}, CPU)


def test_a_decoder_of_spectra_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mimi.safetensors"
    config, tensors = spectral_codec(path), load_file(path)
    del tensors["spectral.norm.bias"]
    tensors["spectral.expand.weight"] = tensors["spectral.expand.weight"][:-1]
    tensors["decoder.model.0.conv.conv.weight"] = torch.zeros(1)
    save_file(tensors, path)
    with pytest.raises(CheckpointError) as error:
        load_mimi(path, config, CPU)
    for problem in ("spectral.norm.bias is missing", "spectral.expand.weight has shape [255, 32], not [256, 32]",
                    "decoder.model.0.conv.conv.weight is not one of this codec's"):  # fmt: skip
        assert problem in str(error.value)
    with pytest.raises(CheckpointError, match=f"{path}: spectral.latent must be 32"):
        load_mimi(path, config | {"spectral": config["spectral"] | {"latent": 64}}, CPU)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ([], "spectral must be an object"),
        ({"dims": 256}, "spectral.dims is not a key"),
        ({"dim": "256"}, "spectral.dim must be a positive whole number, not '256'"),
        ({"blocks": 0}, "spectral.blocks must be a positive whole number"),
        ({"hop": True}, "spectral.hop must be a positive whole number"),
        ({"dim": 36, "heads": 8}, "spectral.dim must be an even multiple of heads"),
        ({"hop": 250}, "spectral.hop must divide a frame's 1920 samples"),
        ({"window": 250}, "spectral.hop must divide a frame's 1920 samples and window"),
    ],
)
def test_a_wrong_decoder_of_spectra_is_named(tmp_path: Path, section: Any, message: str) -> None:
    folder = copy_of(tmp_path / "copy")
    config = json.loads((folder / "mimi.json").read_text())
    (folder / "mimi.json").unlink()
    (folder / "mimi.json").write_text(json.dumps(config | {"spectral": section}))
    with pytest.raises(CheckpointError, match=f"{folder / 'mimi.json'}: {message}"):
        Checkpoint.read(folder)


def test_nano_says_what_it_is() -> None:
    checkpoint = Checkpoint.read(NANO)
    assert checkpoint.name == "nano"
    assert "does not think" in checkpoint.notice
    assert sum(path.stat().st_size for path in NANO.rglob("*")) < 48_000_000


def test_a_config_without_architecture_is_moshi_7b(tmp_path: Path) -> None:
    keys = dict.fromkeys([*Architecture().to_config(), *FIXED, "personaplex", "mimi_name", "mimi_config_name"])
    folder = copy_of(tmp_path / "bare", **keys, model_type="personaplex")
    (folder / "tokenizer-e351c8d8-checkpoint125.safetensors").symlink_to(NANO / "mimi.safetensors")
    checkpoint = Checkpoint.read(folder)
    assert checkpoint.architecture == Architecture()
    assert (checkpoint.name, checkpoint.notice) == ("bare", "")
    assert checkpoint.mimi_config is None
    assert checkpoint.special == SpecialCodes()
    assert checkpoint.sampling == USUAL


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"gating": "gelu"}, "gating is 'gelu'"),
        ({"n_q": 32}, "n_q is 32"),
        ({"dim": "big"}, "dim must be a positive whole number"),
        ({"context": 48.5}, "context must be a positive whole number"),
        ({"hidden_scale": []}, "hidden_scale must be a positive number"),
        ({"context": -1}, "context must be"),
        ({"num_heads": 7}, "dim must be an even multiple of num_heads"),
        ({"personaplex": {"silence": [1, 2]}}, "silence must be a list of 8"),
        ({"personaplex": []}, "personaplex must be an object"),
        ({"personaplex": {"sampling": {"warmth": 1}}}, "personaplex.sampling is wrong: .*warmth"),
        ({"personaplex": {"sampling": {"temperature": 9}}}, "personaplex.sampling is wrong: temperature must lie"),
        ({"personaplex": {"sampling": {"top_k": "many"}}}, "personaplex.sampling is wrong"),
        ({"personaplex": {"sampling": 3}}, "personaplex.sampling is wrong"),
        ({"moshi_name": "other.safetensors"}, "other.safetensors is missing"),
        ({"mimi_config_name": "none.json"}, "none.json cannot be read"),
    ],
)
def test_a_wrong_config_is_refused_by_name(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        Checkpoint.read(copy_of(tmp_path / "wrong", **config))


@pytest.mark.parametrize("content", ["{", "[]", "\0"])
def test_a_config_that_is_no_json_object_is_refused(tmp_path: Path, content: str) -> None:
    folder = copy_of(tmp_path / "wrong")
    (folder / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        Checkpoint.read(folder)


def test_text_comes_in_words_and_whole_characters() -> None:
    tokenizer = SentencePieceTokenizer(Checkpoint.read(NANO).tokenizer)
    assert len(tokenizer.prompt("  ")) == 0
    for text in ("You are a teacher.", "Grüße, 世界!"):
        tokens = tokenizer.prompt(text)
        assert list(tokenizer.prompt(f" <system> {text} <system> ")) == list(tokens)
        detokenizer = tokenizer.detokenizer()
        shown = [detokenizer.decode(int(token)) for token in tokens]
        assert "".join(shown).strip() == f"<system> {text} <system>"
        assert "\N{REPLACEMENT CHARACTER}" not in "".join(shown)
    detokenizer = tokenizer.detokenizer()
    half, *_ = [int(token) for token in tokenizer.prompt("世") if 0xE0 <= int(token) - 4 < 0xF0]
    word = int(tokenizer.prompt("teacher")[3])
    assert detokenizer.decode(half) == ""
    assert detokenizer.decode(word).startswith("\N{REPLACEMENT CHARACTER}")
    assert "\N{REPLACEMENT CHARACTER}" not in detokenizer.decode(word)
    detokenizer = tokenizer.detokenizer()
    assert [detokenizer.decode(token) for token in (0, 3, 1, 2, 10**6)] == [""] * 5


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.model").write_text("no")
    with pytest.raises(CheckpointError, match=r"x\.model"):
        SentencePieceTokenizer(tmp_path / "x.model")


def test_eight_bit_weights_are_near_the_stored_ones(tmp_path: Path) -> None:
    """Rounded while loading, depformer steps apart; the logits stay near, the tables as they are."""
    architecture = golden_architecture(200)
    golden_weights(tmp_path / "model.safetensors", architecture)
    plain = LanguageModel(architecture, CPU, torch.float32)
    rounded = LanguageModel(architecture, CPU, torch.float32, int8=True)
    for lm in (plain, rounded):
        load_language_model(lm, tmp_path / "model.safetensors")
    assert torch.equal(plain.embeddings, rounded.embeddings)
    matrices = {name: module for name, module in rounded.named_modules() if isinstance(module, Int8Linear)}
    assert len(matrices) == 3 * 4 + 2 * (2 + 2 * 8)
    for name, module in matrices.items():
        exact = dict(plain.named_modules())[name].weight
        error = (unpair(module.weight) * module.scale[:, None] - exact).abs()
        assert bool((error <= module.scale[:, None] / 2 * 1.001).all()), name
    assert apart(plain, rounded) < 0.03


def test_a_checkpoint_may_have_8_bits_itself(tmp_path: Path) -> None:
    """As Moshi's own quantized ones: the nearest bfloat16 is read, or the very integers where 8 bits are wanted."""
    path, architecture = tmp_path / "model.safetensors", golden_architecture(200)
    golden_weights(tmp_path / "exact.safetensors", architecture)
    exact = load_file(tmp_path / "exact.safetensors")
    stored, uneven = in_few_bits(exact), "transformer.layers.0.self_attn.out_proj.weight"
    stored[uneven], stored[f"{uneven}_scb"] = stored[uneven] // 2, stored[f"{uneven}_scb"] * 2
    save_file(stored, path)
    assert stored["text_emb.weight"].dtype == torch.int8
    assert stored["out_norm.alpha"].dtype == torch.float32
    plain, rounded = (LanguageModel(architecture, CPU, torch.float32, int8=int8) for int8 in (False, True))
    for lm in (plain, rounded):
        load_language_model(lm, path)
    read = read_weights(path)
    assert read.keys() == exact.keys()
    for name, parameter in plain.named_parameters():
        weight, at = unpacked(plain, name, parameter), stored_name(name)
        assert torch.equal(weight, read[at][: len(weight)].float()), name
        if exact[at].dim() == 2:
            assert torch.equal(read[at], (stored[at] * (stored[f"{at}_scb"] / 127)[:, None]).bfloat16()), name
        step = exact[at].abs().amax(dim=-1, keepdim=True)[: len(weight)] / 127 * (2 if at == uneven else 1)
        assert bool(((weight - exact[at][: len(weight)]).abs() <= step).all()), name
    for name, module in rounded.named_modules():
        if isinstance(module, Int8Linear):
            at = stored_name(f"{name}.weight")
            assert torch.equal(unpair(module.weight), stored[at][: len(module.weight)]), name
            torch.testing.assert_close(module.scale * 127, stored[f"{at}_scb"][: len(module.scale)])


def test_a_matrix_of_a_checkpoint_may_have_4_bits(tmp_path: Path) -> None:
    path, architecture = tmp_path / "model.safetensors", golden_architecture(200)
    golden_weights(tmp_path / "exact.safetensors", architecture)
    exact = load_file(tmp_path / "exact.safetensors")
    stored = in_few_bits(exact, lambda name: ".gating." in name)
    save_file(stored, path)
    read = read_weights(path)
    assert read.keys() == exact.keys()
    few = {name for name in exact if f"{name.removesuffix('weight')}scales" in stored}
    assert few == {name for name in exact if ".gating." in name and exact[name].shape[1] % 32 == 0}
    assert few
    for name in few:
        rows, columns = exact[name].shape
        assert stored[name].dtype == torch.uint32
        assert list(stored[name].shape) == [rows, columns // 8]
        groups = exact[name].float().view(rows, -1, 32)
        step = (groups.amax(dim=-1) - groups.amin(dim=-1)) / 15
        error = (read[name].float().view(rows, -1, 32) - groups).abs().amax(dim=-1)
        assert bool((error <= 0.52 * step + 0.005 * groups.abs().amax(dim=-1)).all()), name
    plain, rounded = (LanguageModel(architecture, CPU, torch.float32, int8=int8) for int8 in (False, True))
    for lm in (plain, rounded):
        load_language_model(lm, path)
    for name, parameter in plain.named_parameters():
        weight = unpacked(plain, name, parameter)
        assert torch.equal(weight, read[stored_name(name)][: len(weight)].float()), name
    assert apart(plain, rounded) < 0.03


def test_weights_in_4_bits_are_laid_out_as_mlx_does(tmp_path: Path) -> None:
    """Eight to a word, the first lowest, with a scale and the least weight of 32, by hand."""
    integers = torch.arange(32) % 16
    words = torch.tensor([[0x76543210, 0xFEDCBA98, 0x76543210, 0xFEDCBA98]]).to(torch.uint32)
    scale, least = torch.tensor([[0.25]]).half(), torch.tensor([[-2.0]]).half()
    weights = {"x.weight": words, "x.scales": scale, "x.biases": least}
    save_file(weights, tmp_path / "four.safetensors")
    (read,) = read_weights(tmp_path / "four.safetensors").values()
    assert read.tolist() == [(integers * 0.25 - 2).tolist()]
    stored = in_few_bits({"x.weight": read.float()}, lambda _: True)
    assert {name: tensor.tolist() for name, tensor in stored.items()} == {n: t.tolist() for n, t in weights.items()}
    equal = torch.full((3, 64), 0.5)
    save_file(in_few_bits({"x.weight": equal}, lambda _: True), tmp_path / "equal.safetensors")
    assert torch.equal(read_weights(tmp_path / "equal.safetensors")["x.weight"].float(), equal)


@pytest.mark.parametrize(
    "wrong",
    [
        {"x.scales": torch.ones(3, 1)},
        {"x.scales": torch.ones(3, 2, 1)},
        {"x.biases": torch.ones(3, 2, dtype=torch.int8)},
        {"x.scales": torch.ones(3, 2, dtype=torch.int8), "x.scales_scb": torch.ones(3)},
        {"x.weight": torch.ones(8, dtype=torch.int32).to(torch.uint32)},
    ],
)
def test_4_bits_without_scales_are_refused(tmp_path: Path, wrong: dict[str, torch.Tensor]) -> None:
    stored = in_few_bits({"x.weight": torch.ones(3, 64)}, lambda _: True)
    save_file(stored, tmp_path / "right.safetensors")
    assert read_weights(tmp_path / "right.safetensors").keys() == {"x.weight"}
    save_file(stored | wrong, tmp_path / "wrong.safetensors")
    with pytest.raises(
        CheckpointError, match=r"x\.weight has 4 bits, and no x\.scales or x\.biases has a number for every"
    ):
        read_weights(tmp_path / "wrong.safetensors")
    del stored["x.scales"]
    save_file(stored, tmp_path / "without.safetensors")
    with pytest.raises(CheckpointError, match=r"x\.weight has 4 bits, and no x\.scales"):
        read_weights(tmp_path / "without.safetensors")


@pytest.mark.parametrize(("shape", "groups"), [((2, 3), (2, 0)), ((2, 5), (2, 1)), ((0, 5), (0, 1))])
def test_4_bits_that_are_no_whole_groups_are_refused(
    tmp_path: Path, shape: tuple[int, int], groups: tuple[int, int]
) -> None:
    scales = torch.ones(groups)
    words = torch.ones(shape, dtype=torch.int32).to(torch.uint32)
    save_file({"x.weight": words, "x.scales": scales, "x.biases": scales.clone()}, tmp_path / "odd.safetensors")
    with pytest.raises(CheckpointError, match=f"x.weight has 4 bits, and rows of {8 * shape[1]} weights"):
        read_weights(tmp_path / "odd.safetensors")


def apart(plain: LanguageModel, rounded: LanguageModel) -> float:
    """How far the text's logits of one model are from another's, relative, over 40 positions."""
    tokens = torch.randint(0, 512, (1, 40, 17), generator=torch.Generator().manual_seed(1))
    said = []
    for lm in (plain, rounded):
        cache = PrefillCache(lm.architecture, 40, CPU, torch.float32)
        said.append(lm.text_logits(lm(lm.embed(tokens), cache.attention(40))[0]))
    return float((said[0] - said[1]).norm() / said[0].norm())


def unpacked(lm: LanguageModel, name: str, parameter: torch.Tensor) -> torch.Tensor:
    """A parameter as it was loaded, also where its layer keeps it packed: what the layer makes of unit vectors."""
    module = lm.get_submodule(name.rpartition(".")[0])
    if not isinstance(module, Linear) or len(parameter):
        return parameter
    steps = range(len(module._packed))
    return torch.cat([module(torch.eye(parameter.shape[1]), step).T for step in steps])


@pytest.mark.parametrize("magnitudes", [None, torch.ones(3), torch.ones(512, 1)])
def test_8_bits_without_magnitudes_are_refused(tmp_path: Path, magnitudes: torch.Tensor | None) -> None:
    path, architecture = tmp_path / "model.safetensors", golden_architecture(200)
    golden_weights(tmp_path / "exact.safetensors", architecture)
    stored = in_few_bits(load_file(tmp_path / "exact.safetensors"))
    del stored["text_linear.weight_scb"]
    stored |= {} if magnitudes is None else {"text_linear.weight_scb": magnitudes}
    stored["text_linear.bias_scb"] = torch.ones(512)
    save_file(stored, path)
    with pytest.raises(CheckpointError) as error:
        load_language_model(LanguageModel(architecture, CPU, torch.float32), path)
    assert "text_linear.weight has 8 bits, and no text_linear.weight_scb has a number for each" in str(error.value)
    assert "text_linear.bias_scb is not one of this model's" in str(error.value)
    with pytest.raises(CheckpointError, match=r"text_linear\.weight has 8 bits"):
        read_weights(path)


@pytest.mark.parametrize(
    ("name", "tensor", "problem"),
    [
        ("text_emb.weight", torch.ones(3, 4, dtype=torch.uint8), "text_emb.weight has the dtype U8"),
        ("text_emb.weight_scb", torch.ones(3, dtype=torch.int32), "text_emb.weight_scb has the dtype I32"),
        ("out_norm.alpha", torch.ones(3, dtype=torch.int8), "out_norm.alpha has 8 bits"),
    ],
)
def test_numbers_of_another_kind_are_refused(tmp_path: Path, name: str, tensor: torch.Tensor, problem: str) -> None:
    right = {"text_emb.weight": torch.ones(3, 4), "out_norm.alpha": torch.ones(()), "other": torch.ones(2)}
    stored = in_few_bits(right)
    save_file(stored, tmp_path / "right.safetensors")
    assert read_weights(tmp_path / "right.safetensors").keys() == {"text_emb.weight", "out_norm.alpha", "other"}
    save_file(stored | {name: tensor}, tmp_path / "wrong.safetensors")
    with pytest.raises(CheckpointError, match=problem):
        read_weights(tmp_path / "wrong.safetensors")


def test_a_checkpoint_in_the_hub_s_cache_has_its_repository_s_name(tmp_path: Path) -> None:
    snapshots = tmp_path / "models--nvidia--personaplex-7b-v1" / "snapshots"
    snapshots.mkdir(parents=True)
    assert Checkpoint.read(copy_of(snapshots / "3f2a9c", personaplex=None)).name == "personaplex-7b-v1"
    assert Checkpoint.read(copy_of(tmp_path / "mine", personaplex=None)).name == "mine"
