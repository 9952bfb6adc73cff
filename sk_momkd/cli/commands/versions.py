"""`versions`: installed versions and hardware, for bug reports, and the methods there are."""

from __future__ import annotations

import typer

from ..examples import Command
from ..keys import Run
from ..methods import method_names
from ..options import run_command
from ..session import Session


@run_command(config="none")
def _versions(run: Run, output: Session) -> None:
    from ...versions import facts

    found = {**facts(), "methods": ", ".join(method_names())}
    output.result("\n".join(f"{name:<16} {value}" for name, value in found.items()), found)


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    text = "Show versions, device and methods; attach it to a bug report."
    app.command("versions", help=text, cls=Command)(_versions)
