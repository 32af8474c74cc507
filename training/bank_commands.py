"""`python -m training encode` and `mix`, which make the banks that the language model learns from."""

from pathlib import Path

import click

from training.options import device_option, report, small_option

banks_option = click.option(
    "--banks", nargs=2, type=int, default=(0, 8), show_default=True, help="The first, and the one after the last."
)
positions_option = click.option(
    "--positions", default=512, show_default=True, help="Length of the conversations, prompt included."
)
count_option = click.option("--count", default=4000, show_default=True, help="Conversations to a bank.")
long_option = click.option(
    "--long", type=int, default=0, help="Every so manieth bank is of fewer and longer conversations."
)


@click.command()
@device_option
@banks_option
@positions_option
@count_option
@long_option
@click.option("--lines", is_flag=True, help="Encode all lines one by one instead, for the stage `mix`.")
@click.option("--follow", is_flag=True, help="With --lines, go on as new speech comes, until it is ended.")
@small_option
@click.pass_obj
def encode(
    folder: Path,
    device: str,
    banks: tuple[int, int],
    positions: int,
    count: int,
    long: int,
    lines: bool,
    follow: bool,
    small: bool,
) -> None:
    """Conversations are mixed from the lines, and encoded."""
    import torch

    from training.bank import BankSizes
    from training.shape import NANO, SMALL
    from training.stages import encode_all_lines, encode_conversations

    shape = SMALL if small else NANO
    if lines:
        encode_all_lines(folder, torch.device(device), report, shape, follow)
        return
    encode_conversations(folder, torch.device(device), range(*banks), BankSizes(count, positions, long), report, shape)


@click.command()
@banks_option
@positions_option
@count_option
@long_option
@small_option
@click.pass_obj
def mix(folder: Path, banks: tuple[int, int], positions: int, count: int, long: int, small: bool) -> None:
    """Conversations are laid out of lines that have codes, on a CPU."""
    from training.bank import BankSizes
    from training.mixing import mix_conversations
    from training.shape import NANO, SMALL
    from training.stages import tokenizer_file

    shape = SMALL if small else NANO
    mix_conversations(
        folder, tokenizer_file(folder, shape), range(*banks), BankSizes(count, positions, long), report, shape
    )
