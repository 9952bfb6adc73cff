"""The command ``sk-momkd``: from files to results without Python."""

from __future__ import annotations

import sys
from types import TracebackType

from ..messages import install_hint


def main() -> None:
    """Run ``sk-momkd``, or say which packages it lacks."""
    if "--debug" not in sys.argv:
        sys.excepthook = _without_traceback
    try:
        from .app import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("typer", "rich", "ruamel"):
            raise
        hint = install_hint("typer", "rich", "ruamel.yaml")
        sys.stderr.write(f"sk-momkd needs {error.name}, which is not installed: {hint}\n")
        sys.exit(2)
    app(prog_name="sk-momkd")


def _without_traceback(
    kind: type[BaseException], error: BaseException, _: TracebackType | None
) -> None:
    """Name an error that no command expects."""
    sys.stderr.write(
        f"error: {kind.__name__}: {error}\nThis was not expected. Run the command again with "
        "--debug, and report what it shows.\n"
    )
