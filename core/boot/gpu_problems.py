"""Why a GPU cannot be used, in sentences: its driver, its age, and what its kernels are compiled with."""

import os
import re
import subprocess
from pathlib import Path

import torch

DEVICES = Path("/dev")
NONE_VISIBLE = "No CUDA GPUs are available"
"""What torch says where the driver works, and shows it no GPU."""
INSTALL_TORCH = "https://pytorch.org/get-started/locally says which torch to install"


def gpu_problem() -> str:
    """Why torch cannot use the GPU of this machine, and what to do; "" where it can, and where there is no GPU."""
    if not torch.cuda.is_available():
        return _why_not_available() if _has_gpu() else ""
    name, capability = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    return _why_not_supported(name, capability, torch.cuda.get_arch_list())


def explain_gpu_error(error: Exception) -> str:
    """What a person should do about an error that came up while the engine was loaded; "" for any other error."""
    text = str(error)
    if "Failed to find C compiler" in text or (
        isinstance(error, FileNotFoundError) and error.filename == os.environ.get("CC")
    ):
        return "The GPU's kernels need a C compiler: install gcc, or name another one in CC."
    if isinstance(error, subprocess.CalledProcessError):
        return (
            f"The GPU's kernels cannot be compiled: {Path(str(error.cmd[0])).name} ended with {error.returncode}. Its "
            "own words stand above; often the header files of Python are missing (the package python3-dev)."
        )
    if isinstance(error, OSError) and _concerns(error, _compile_cache()):
        return (
            f"The compiled kernels cannot be kept in {_compile_cache()}: {error.strerror}. Let the service's user "
            "write there, or name another folder in TRITON_CACHE_DIR."
        )
    if "no kernel image is available" in text:
        return f"This torch ({torch.__version__}) has no kernels for this GPU: {INSTALL_TORCH}."
    if text.startswith("CUDA error") or "CUDA driver" in text or "NVIDIA driver" in text:
        return f"The GPU failed: {_first_sentence(text)}. Look at nvidia-smi, and at the driver."
    return ""


def _has_gpu() -> bool:
    """Whether the system knows of an NVIDIA GPU, whatever torch says."""
    return any(DEVICES.glob("nvidia[0-9]*")) or (DEVICES / "dxg").exists()


def _why_not_available() -> str:
    if torch.version.cuda is None:
        return f"this torch ({torch.__version__}) is built for CPUs alone: {INSTALL_TORCH}"
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        if NONE_VISIBLE not in str(error):
            return f"{_first_sentence(str(error))}. Update the driver, or see what nvidia-smi says"
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return "torch sees none. See what nvidia-smi says"
    # The supervisor sets the variable for each of the engines that `engine.devices` asks for.
    return f"{chosen!r} was chosen (by engine.devices, or CUDA_VISIBLE_DEVICES), and torch sees no GPU of that number"


def _why_not_supported(name: str, capability: tuple[int, int], built_for: list[str]) -> str:
    """Why a torch that is built for such architectures (`sm_86`, `compute_90`) has nothing that this GPU runs.

    A GPU runs what is compiled for its own major version and no later minor one, and what is there as PTX for an
    earlier architecture (`compute_`).
    """
    found = [re.fullmatch(r"(sm|compute)_(\d+)(\d)[a-z]*", architecture) for architecture in built_for]
    versions = [(match[1], (int(match[2]), int(match[3]))) for match in found if match]
    usable = [
        version <= capability and (kind == "compute" or version[0] == capability[0]) for kind, version in versions
    ]
    if any(usable) or not versions:
        return ""
    age = "old" if capability < min(version for _, version in versions) else "new"
    numbers = ", ".join(f"{major}.{minor}" for _, (major, minor) in versions)
    return (
        f"{name} (compute capability {capability[0]}.{capability[1]}) is too {age} for this torch "
        f"({torch.__version__}), which is built for {numbers}: {INSTALL_TORCH}"
    )


def _compile_cache() -> Path:
    """Where Triton keeps compiled kernels."""
    home = os.environ.get("TRITON_HOME") or os.path.expanduser("~/")  # noqa: PTH111 - as Triton does, also without HOME
    return Path(os.environ.get("TRITON_CACHE_DIR") or Path(home) / ".triton" / "cache")


def _concerns(error: OSError, folder: Path) -> bool:
    """Whether an error is about a folder, something in it, or a folder that it is in."""
    if not isinstance(error.filename, str):
        return False
    path = Path(error.filename)
    return path.is_relative_to(folder) or folder.is_relative_to(path)


def _first_sentence(text: str) -> str:
    """The first sentence of an error of CUDA's, which go on with advice for programmers."""
    return re.split(r"(?<=[a-z)])\.\s|\n", text, maxsplit=1)[0].strip().rstrip(".")
