"""`personas`, `voices`, `plugins` and `check`: what a configuration results in, without starting the engine."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import click
from rich.console import Console
from rich.table import Table

from core.boot.check import check as check_settings
from core.cli.options import config_option
from core.errors import ConfigError
from core.events import OPERATOR
from core.plugin.host import PluginHost
from core.settings.config import Config, load_config
from core.settings.log import silenced

_Result = TypeVar("_Result")


@click.command()
@config_option
def personas(config: Path | None) -> None:
    """List the personas on offer, the default one first."""
    found = _query(load_config(config, os.environ), lambda host: host.list_personas(OPERATOR))
    _print(("id", "name", "voice", "description"), [(p.id, p.name, p.voice, p.description) for p in found])


@click.command()
@config_option
def voices(config: Path | None) -> None:
    """List the voices on offer. Those of a checkpoint are named as PersonaPlex packages them."""
    found = _query(load_config(config, os.environ), lambda host: host.list_voices())
    _print(("voice",), [(name,) for name in found])


@click.command()
@config_option
def plugins(config: Path | None) -> None:
    """List every plugin that was found, in order of precedence."""
    infos = PluginHost.load(load_config(config, os.environ)).describe()
    _print(
        ("plugin", "version", "state", "hooks", "source", "problem"),
        [(i.name, i.version, i.state, ", ".join(i.hooks), i.source, i.problem) for i in infos],
    )


@click.command()
@config_option
def check(config: Path | None) -> None:
    """Check configuration, personas, voices and plugins, and name everything that is wrong."""
    with silenced():
        found = asyncio.run(check_settings(config, os.environ))
    if found.problems:
        raise ConfigError(list(found.problems))
    click.echo(f"{found.config.source} is fine: {found.personas} personas, {found.voices} voices.")
    for note in found.notes:
        click.echo(note)


def _query(config: Config, query: Callable[[PluginHost], Awaitable[_Result]]) -> _Result:
    """The result of a query to the plugins, started without an engine."""

    async def run() -> _Result:
        host = PluginHost.load(config)
        await host.startup(None)
        try:
            return await query(host)
        finally:
            await host.shutdown()

    return asyncio.run(run())


def _print(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """A table for people on a terminal, and tab-separated lines for a pipe."""
    console = Console()
    if not console.is_terminal:
        for row in rows:
            click.echo("\t".join(row))
        return
    table = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console.print(table, markup=False)
