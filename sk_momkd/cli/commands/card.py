"""`card`: the model card of a saved model."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Annotated

import typer

from ..examples import Command
from ..keys import Run
from ..options import run_command
from ..session import Session

_MODEL = Annotated[Path, typer.Argument(help="Model that fit has saved.")]


@run_command(config="none")
def _card(model: _MODEL, run: Run, output: Session) -> None:
    from ...persistence.archive import CARD, read_parts

    read_parts(model)  # refuses what is no model, or a damaged one
    if model.is_dir():
        text = (model / CARD).read_text(encoding="utf-8")
    else:
        with zipfile.ZipFile(model) as archive:
            text = archive.read(CARD).decode("utf-8")
    output.result(text.rstrip("\n"), {"card": text})


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    text = "Show the card of a saved model: classes, prevalence, results, limits, versions."
    app.command("card", help=text, cls=Command)(_card)
