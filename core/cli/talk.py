"""`talk`: a conversation on this machine, without a server."""

import asyncio
import json
import os
from dataclasses import asdict
from pathlib import Path

import click
import msgspec
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from core.cli.offline import Conversation, converse
from core.cli.options import config_option, seed_option, silence_option, sound_in, sound_out, stereo_option
from core.cli.transcript import print_out
from core.engine.call import FRAME_S, SAMPLE_RATE
from core.errors import AudioError, PersonaError
from core.events import OPERATOR, TransformFailed
from core.media.audio_codecs import Samples
from core.media.sound_files import check_writable, read_sound, to_stereo, write_wav
from core.media.voices import voice_name
from core.plugin.host import PluginHost
from core.settings.config import Config, load_config
from core.settings.log import configure_logging


@click.command()
@sound_in
@sound_out
@config_option
@click.option("--persona", default="", help="Whom to talk with; without it the default persona.")
@click.option("--voice", help="Another voice than the persona's.")
@seed_option
@silence_option
@stereo_option
@click.option(
    "--transcript", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.json", help="Write the words."
)
def talk(
    source: Path,
    target: Path,
    config: Path | None,
    persona: str,
    voice: str | None,
    seed: int | None,
    silence: float,
    stereo: bool,
    transcript: Path | None,
) -> None:
    """Say IN.wav to a persona and write its answer to OUT.wav, with the engine and transforms of the server."""
    loaded = load_config(config, os.environ)
    configure_logging(msgspec.structs.replace(loaded.log, level="warning"))
    for path in (target, transcript):
        if path is not None:
            check_writable(path)
    speech = np.pad(read_sound(source), (0, round(silence * SAMPLE_RATE)))
    console = Console(stderr=True)
    asyncio.run(_check_persona(loaded, persona))
    conversation = _converse(loaded, speech, persona, voice, seed, console)
    write_wav(target, to_stereo(conversation.caller, conversation.agent) if stereo else conversation.agent[np.newaxis])
    if transcript is not None:
        _write_transcript(transcript, conversation)
    for failure in conversation.failures:
        what = "transform" if isinstance(failure, TransformFailed) else "handler"
        console.print(f"The {what} of the plugin {failure.plugin} was left out: {failure.reason}", markup=False)
    if conversation.ended:
        console.print(f"A plugin ended the call: {conversation.ended}", markup=False)
    click.echo(print_out(conversation.transcript))


async def _check_persona(config: Config, persona: str) -> None:
    """Raise PersonaError when there is no such persona, before the model is loaded, which takes long."""
    host = PluginHost.load(config)
    await host.startup(None)
    try:
        await host.resolve_persona(persona, OPERATOR)
    except PersonaError:
        offered = [one.id for one in await host.list_personas(OPERATOR)]
        if persona in offered or not offered:
            raise
        raise PersonaError(f"There is no persona {persona!r}. There are: {', '.join(offered)}.") from None
    finally:
        await host.shutdown()


def _converse(
    config: Config, speech: Samples, persona: str, voice: str | None, seed: int | None, console: Console
) -> Conversation:
    from core.boot.local_engine import open_engine  # its libraries take seconds to load

    async def run() -> Conversation:
        host = PluginHost.load(config)
        await host.startup(engine)
        try:
            return await converse(
                engine,
                host,
                speech,
                persona=persona,
                voice=voice_name(voice) if voice else None,
                seed=seed,
                progress=lambda done, of: bar.update(task, completed=done * FRAME_S, total=of * FRAME_S),
            )
        finally:
            await host.shutdown()

    engine = open_engine(config.engine, lambda line: console.print(line, markup=False, highlight=False))
    try:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.1f} of {task.total:.1f} s"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("talking", total=len(speech) / SAMPLE_RATE)
            return asyncio.run(run())
    finally:
        engine.close()


def _write_transcript(path: Path, conversation: Conversation) -> None:
    text = json.dumps(
        {
            "text": "".join(word.text for word in conversation.words).strip(),
            "seed": conversation.seed,
            "words": [asdict(word) for word in conversation.words],
            "transcript": [asdict(line) for line in conversation.transcript],
        }
    )
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise AudioError(f"{path}: cannot be written: {error.strerror or error}.") from None
