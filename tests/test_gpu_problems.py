"""What is said about a GPU that cannot be used. The machine that runs this need not have one."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from triton.runtime.build import compile_module_from_src

from core.boot import gpu_problems
from core.boot.devices import pick_device
from core.boot.gpu_problems import gpu_problem
from core.boot.local_engine import open_engine
from core.errors import EngineError
from core.settings.sections import EngineConfig

TOO_OLD_A_DRIVER = (
    "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver by downloading "
    "and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx Alternatively, go to: "
    "https://pytorch.org to install a PyTorch version that has been compiled with your version of the CUDA driver."
)
"""What torch says, whole."""
UNKNOWN = (
    "CUDA unknown error - this may be due to an incorrectly set up environment, e.g. changing env variable "
    "CUDA_VISIBLE_DEVICES after program start. Setting the available devices to be zero."
)
BUILT_FOR = ["sm_75", "sm_80", "sm_86", "sm_90"]


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with a GPU that torch cannot use; the folder of its devices."""
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(gpu_problems, "DEVICES", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (gpu_problems.NONE_VISIBLE, "torch sees none"),
        (TOO_OLD_A_DRIVER, r"The NVIDIA driver on your system is too old \(found version 11040\)\. Update the driver"),
        (UNKNOWN, "CUDA unknown error .* Update the driver"),
    ],
)
def test_auto_says_why_it_does_not_take_the_gpu(
    gpu: Path, monkeypatch: pytest.MonkeyPatch, words: str, said: str
) -> None:
    def fail() -> NoReturn:
        raise RuntimeError(words)

    monkeypatch.setattr(torch.cuda, "init", fail)
    told: list[str] = []
    assert pick_device("auto", told.append).type == "cpu"
    [line] = told
    assert line.startswith("Running on the CPU, since the GPU cannot be used: ")
    with pytest.raises(EngineError, match=said):
        pick_device("cuda")


def test_a_torch_for_cpus_alone_and_a_hidden_gpu_are_named(gpu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [TOO_OLD_A_DRIVER, gpu_problems.NONE_VISIBLE]

    def fail() -> NoReturn:
        raise RuntimeError(words[0])

    monkeypatch.setattr(torch.cuda, "init", fail)
    with monkeypatch.context() as patch:
        patch.setattr(torch.version, "cuda", None)
        assert "is built for CPUs alone" in gpu_problem()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert "driver on your system is too old" in gpu_problem()  # whoever chose the GPU
    del words[0]
    assert re.search("'7' was chosen .*engine.devices.*CUDA_VISIBLE_DEVICES", gpu_problem())
    (gpu / "nvidia0").unlink()
    assert gpu_problem() == ""  # there is none to speak of


@pytest.mark.parametrize(
    ("capability", "built_for", "said"),
    [
        ((6, 1), BUILT_FOR, r"GTX \(compute capability 6.1\) is too old for this torch .*built for 7.5, 8.0, 8.6, 9.0"),
        ((12, 0), BUILT_FOR, r"12.0\) is too new"),
        ((7, 0), BUILT_FOR, "too old"),
        ((10, 3), [*BUILT_FOR, "sm_100"], ""),
        ((12, 0), [*BUILT_FOR, "compute_90"], ""),
        ((9, 0), ["sm_80", "sm_90a"], ""),
        ((8, 9), BUILT_FOR, ""),
    ],
)
def test_a_gpu_that_torch_has_no_kernels_for_is_named(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], built_for: list[str], said: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "GTX")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built_for)
    told: list[str] = []
    assert pick_device("auto", told.append).type == ("cpu" if said else "cuda")
    assert len(told) == bool(said)
    if said:
        with pytest.raises(EngineError, match=said):
            pick_device("cuda")


@contextlib.contextmanager
def broken(problem: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine on which Triton, as it is installed here, cannot compile."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(folder / "cache"))
    monkeypatch.delenv("CC", raising=False)
    match problem:
        case "no compiler":
            monkeypatch.setenv("PATH", str(folder))
        case "another compiler":
            monkeypatch.setenv("CC", str(folder / "nocc"))
        case "no headers":
            compiler = folder / "gcc"
            compiler.write_text("#!/bin/sh\nexit 1\n")
            compiler.chmod(0o755)
            monkeypatch.setenv("PATH", str(folder))
        case "cache":
            (folder / "file").touch()
            monkeypatch.setenv("TRITON_CACHE_DIR", str(folder / "file" / "cache"))
    yield


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        ("no compiler", "install gcc, or name another one in CC"),
        ("another compiler", "install gcc, or name another one in CC"),
        ("no headers", r"gcc ended with 1\. .*python3-dev"),
        ("cache", r"cannot be kept in .*/file/cache: Not a directory.*TRITON_CACHE_DIR"),
    ],
)
def test_what_kernels_are_compiled_with_is_named_when_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: str, said: str
) -> None:
    def compile_kernels(*_: object) -> Any:
        return compile_module_from_src(f"// {os.urandom(8).hex()}\nint unused;", "unused")

    monkeypatch.setattr("core.boot.local_engine.load_engine", compile_kernels)
    with broken(problem, tmp_path, monkeypatch), pytest.raises(EngineError, match=said):
        open_engine(EngineConfig(name="nano", device="cpu"), lambda _: None)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "CUDA error: no kernel image is available for execution on the device\nCUDA kernel errors might be",
            "no kernels",
        ),
        (
            "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be",
            "memory access .*nvidia-smi",
        ),
    ],
)
def test_an_error_of_the_gpu_is_a_sentence(monkeypatch: pytest.MonkeyPatch, words: str, said: str) -> None:
    def fail(*_: object) -> NoReturn:
        raise torch.AcceleratorError(words)

    monkeypatch.setattr("core.boot.local_engine.load_engine", fail)
    with pytest.raises(EngineError, match=said) as caught:
        open_engine(EngineConfig(name="nano", device="cpu"), lambda _: None)
    assert "might be" not in str(caught.value)
