"""Options that several stages have, and how they tell of what they do."""

from pathlib import Path

import click


def _ready(_context: click.Context, _parameter: click.Parameter, device: str | None) -> str:
    """The device that was named, or the one that there is; torch, which takes seconds to import, is made ready for it
    here, since stages that only speak do without."""
    import torch

    torch.set_float32_matmul_precision("high")
    torch.backends.cuda.enable_cudnn_sdp(False)  # Its backward pass fails on the depformer's eight short steps.
    return device or ("cuda" if torch.cuda.is_available() else "cpu")


given_folder = click.Path(exists=True, file_okay=False, path_type=Path)
device_option = click.option("--device", callback=_ready, help="cuda where there is a GPU, else cpu, when left out.")
flite_option = click.option("--flite", type=given_folder, help="Where flite's libraries are, if not installed.")
rhvoice_option = click.option("--rhvoice", type=given_folder, help="Where RHVoice's libraries and data are.")
small_option = click.option("--small", is_flag=True, help="A small network, for rehearsals on a CPU.")


def report(line: str) -> None:
    """Tell how it goes, at once."""
    click.echo(line)
