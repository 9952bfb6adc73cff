"""The application: every command, and the help of the whole."""

from __future__ import annotations

from typing import Annotated

import typer

from .commands import (
    card,
    compare,
    convert,
    evaluate,
    explain,
    external,
    fit,
    init,
    inspect,
    predict,
    report,
    simulate,
    versions,
)
from .examples import Group

_HELP = """Slide classifiers that learn from omics: from files to results without Python.

Each command takes options, or a run file (init writes one), or both; options override the run file.

Exit codes: 0 done, 1 failed training or a bug, 2 wrong usage, 3 input refused,
4 some fits failed, 130 interrupted."""

app = typer.Typer(
    help=_HELP,
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (init, inspect, simulate, evaluate, compare, fit, predict, external, explain):
    command.add_to(app)
for command in (report, convert, card, versions):
    command.add_to(app)


def _show_version(value: bool) -> None:
    if value:
        from .. import __version__

        typer.echo(f"sk_momkd {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Options of sk-momkd itself."""
