"""The `personaplex` command."""

import os
from pathlib import Path
from typing import Any

import click
import msgspec

from core.cli.bench import bench
from core.cli.call import call
from core.cli.evaluate import evaluate
from core.cli.lists import check, personas, plugins, voices
from core.cli.options import Commands, config_option
from core.cli.talk import talk
from core.cli.voice import voice
from core.settings.config import load_config


@click.group(cls=Commands)
@click.version_option(package_name="personaplex-modal")
def main() -> None:
    """PersonaPlex as a service: pick a persona and talk with it, both sides at once."""


@main.command()
@config_option
@click.option("--host", help="Address to listen on; 0.0.0.0 is every network.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 is any free one.")
@click.option("--insecure", is_flag=True, default=None, help="Let everybody call who reaches a public address.")
def serve(config: Path | None, host: str | None, port: int | None, insecure: bool | None) -> None:
    """Serve the page and the WebSocket until Ctrl-C."""
    from core.cli.serve import serve_until_stopped  # the engine's libraries take seconds to load

    loaded = load_config(config, os.environ)
    given: dict[str, Any] = {"host": host, "port": port, "insecure": insecure}
    changes = {name: value for name, value in given.items() if value is not None}
    serve_until_stopped(msgspec.structs.replace(loaded, server=msgspec.structs.replace(loaded.server, **changes)))


for command in (talk, call, bench, evaluate, voice, personas, voices, plugins, check):
    main.add_command(command)
