"""`voice make`: makes a voice from a recording of a speaker."""

import os
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from core.cli.options import config_option, sound_in
from core.engine.prompt import Voice
from core.errors import VoiceError
from core.media.voice_clips import read_voice_clip
from core.media.voices import VOICE_NAME, offered, write_voice
from core.settings.config import load_config


@click.group()
def voice() -> None:
    """Make voices of your own."""


@voice.command()
@click.argument("name")
@sound_in
@config_option
@click.option("--replace", is_flag=True, help="Overwrite the voice of that name.")
def make(name: str, source: Path, config: Path | None, replace: bool) -> None:
    """Make the voice NAME from the recording IN.wav: 5 to 15 s of one person speaking, without noise.

    It is levelled, encoded with the codec of the configured model, and saved in the voices' folder. Voices of one codec
    fit every model that uses it.
    """
    # The engine's libraries take seconds to load.
    from core.boot.local_engine import open_voice_encoder
    from core.engine.mimi.voice_encoder import drain

    loaded = load_config(config, os.environ)
    if not VOICE_NAME.fullmatch(name):
        raise VoiceError(f"{name!r} is not a voice's name: use letters and digits, and '-' and '_' between them.")
    target = Path(loaded.voices.folder) / f"{name}.safetensors"
    if target.exists() and not replace:
        raise VoiceError(f"{target} exists already. Choose another name, or overwrite it with --replace.")
    clip = read_voice_clip(source)
    console = Console(stderr=True)
    encode = open_voice_encoder(loaded.engine, lambda line: console.print(line, markup=False, highlight=False))
    with Progress(console=console) as bar:
        task = bar.add_task("encoding", total=encode.chunks(clip))
        codes = drain(encode(clip), lambda: bar.advance(task))
    write_voice(target, Voice(name, codes=codes))
    if offered([name], loaded.voices.allow):
        click.echo(f"{target}: the next call can use it.")
    else:
        click.echo(f"{target}: add {name} to voices.allow in config.yaml to offer it.")
