"""`call`: a conversation with a server, over the wire and in real time, measured."""

import asyncio
import json
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from core.cli.options import password_option, seed_option, silence_option, sound_in, sound_out, stereo_option
from core.cli.transcript import print_out
from core.client.connection import CallOptions
from core.client.place_call import CallReport, place_call
from core.engine.call import FRAME_S, SAMPLE_RATE
from core.media.sound_files import check_writable, read_sound, to_stereo, write_wav


@click.command()
@click.argument("url")
@sound_in
@sound_out
@click.option("--persona", help="Whom to talk with; without it the server's default persona.")
@click.option("--voice", help="Another voice than the persona's.")
@click.option("--prompt", help="A prompt of your own, where the server allows it.")
@seed_option
@silence_option
@click.option("--audio", type=click.Choice(["opus", "pcm"]), default="opus", show_default=True)
@password_option
@stereo_option
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def call(
    url: str,
    source: Path,
    target: Path,
    persona: str | None,
    voice: str | None,
    prompt: str | None,
    seed: int | None,
    silence: float,
    audio: str,
    password: str | None,
    stereo: bool,
    as_json: bool,
) -> None:
    """Call the server at URL, say IN.wav in real time, write the answer to OUT.wav, and print the delays.

    URL is such as ws://localhost:8998 or https://example.com/api/chat. When the server ended the call, the exit code
    is 1.
    """
    check_writable(target)
    speech = np.pad(read_sound(source), (0, round(silence * SAMPLE_RATE)))
    parameters = {"persona": persona, "voice": voice, "prompt": prompt, "seed": None if seed is None else str(seed)}
    options = CallOptions(
        {name: value for name, value in parameters.items() if value is not None},
        "pcm" if audio == "pcm" else "opus",
        password,
    )
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:.1f} of {task.total:.1f} s"))
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("connecting", total=len(speech) / SAMPLE_RATE)
        answer, report = asyncio.run(
            place_call(
                url,
                speech,
                options,
                lambda state, frames: bar.update(task, description=state, completed=frames * FRAME_S),
            )
        )
    write_wav(target, to_stereo(speech, answer) if stereo else answer[np.newaxis])
    if as_json:
        click.echo(json.dumps(asdict(report)))
    else:
        _print(report)
    if report.close_reason:
        raise click.ClickException(f"The server ended the call: {report.close_reason} (code {report.close_code}).")


def _print(report: CallReport) -> None:
    times = report.round_trip_ms
    rows = [
        ("connect", f"{report.connect_ms:.0f} ms"),
        ("handshake (queue and prompt)", f"{report.handshake_ms:.0f} ms"),
        ("first audio", "none" if report.first_audio_ms is None else f"{report.first_audio_ms:.0f} ms"),
        (
            "round trip of a frame",
            f"p50 {times.p50:.0f} ms, p99 {times.p99:.0f} ms, most {times.max:.0f} ms" if times else "none",
        ),
        ("frames", f"{report.frames_sent} sent, {report.frames_received} answered, {report.dropped} dropped"),
        ("gaps (80 ms of buffer)", f"{report.gaps}, {report.gap_ms:.0f} ms in all"),
    ]
    table = Table(box=None, show_header=False, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    Console().print(table, markup=False)
    click.echo(print_out(report.lines) or "Nothing was said.")
