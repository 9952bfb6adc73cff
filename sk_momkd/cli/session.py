"""One command while it runs: messages on standard error, results on standard output, a log."""

from __future__ import annotations

import json
import logging
import re
import shlex
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from .problems import (
    INTERRUPTED,
    OF_FITS,
    OF_INPUT,
    SomeFailed,
    exit_code,
    message_of,
)

LOGGER = logging.getLogger("sk_momkd")
_WARNING = ("warning", "yellow")
_GLYPH = re.compile(r"Glyph \d+ .* missing from font", re.DOTALL)


class Session:
    """Output of a command.

    Parameters
    ----------
    quiet : bool
        Whether only errors and results are shown.
    as_json : bool
        Whether results are JSON.
    debug : bool
        Whether errors have their traceback.

    Attributes
    ----------
    goes_on : bool
        Whether the command, called again after an interrupt, goes on from what is done.
    """

    def __init__(self, *, quiet: bool, as_json: bool, debug: bool) -> None:
        self.quiet, self.as_json, self.debug = quiet, as_json, debug
        self.goes_on = False
        self._files: list[logging.Handler] = []

    @property
    def shows_bars(self) -> bool:
        """Whether progress bars are drawn; in a log, lines say how far it is."""
        return not self.quiet and sys.stderr.isatty()

    def note(self, text: str) -> None:
        """Write a note to standard error and into the log."""
        LOGGER.info(text)

    def result(self, text: str, data: Any) -> None:
        """Write a result to standard output: its text, or its data as JSON."""
        said = json.dumps(plain(data), indent=1, allow_nan=False) if self.as_json else text
        sys.stdout.write(f"{said}\n")
        sys.stdout.flush()

    def log_to(self, path: Path) -> None:
        """Append how the command was called and everything that is written to a file, too."""
        handler = _LogFile(path, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        LOGGER.addHandler(handler)
        self._files.append(handler)
        LOGGER.debug("%s", shlex.join(["sk-momkd", *sys.argv[1:]]))

    def _close(self) -> None:
        for handler in self._files:
            LOGGER.removeHandler(handler)
            handler.close()


class _LogFile(logging.FileHandler):
    """A log whose disk may become full or vanish, which no result depends on."""

    _lost = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, unless an earlier one could not be written."""
        if not self._lost:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Say once that the log ends here."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        self._lost = True
        LOGGER.warning("%s is not written any more: %s.", self.baseFilename, error.strerror)

    def close(self) -> None:
        """Close the file, also where its last lines cannot be written."""
        with suppress(OSError):
            super().close()


@contextmanager
def session(
    options: Iterable[str], *, quiet: bool, as_json: bool, debug: bool
) -> Iterator[Session]:
    """A session whose errors end the command with their message and exit code.

    The `options` are the names of arguments that messages should show as options.
    """
    out = Session(quiet=quiet, as_json=as_json, debug=debug)
    shown = _Shown(logging.ERROR if quiet else logging.INFO)
    before, shower = LOGGER.level, warnings.showwarning
    LOGGER.addHandler(shown)
    LOGGER.setLevel(logging.DEBUG)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _WarningLines()
            yield out
    except SomeFailed as failed:
        LOGGER.error("%s", failed)
        raise typer.Exit(exit_code(failed)) from failed
    except (*OF_INPUT, *OF_FITS) as error:
        LOGGER.error("%s", message_of(error, options), exc_info=debug)
        LOGGER.debug("Traceback", exc_info=error)
        raise typer.Exit(exit_code(error)) from error
    except KeyboardInterrupt as error:
        then = " The same command goes on from what is done." if out.goes_on else ""
        LOGGER.error("Interrupted.%s", then)
        raise typer.Exit(INTERRUPTED) from error
    finally:
        _log_unexpected(sys.exc_info()[1])
        warnings.showwarning = shower
        out._close()
        LOGGER.removeHandler(shown)
        LOGGER.setLevel(before)


def _log_unexpected(error: BaseException | None) -> None:
    """Write the traceback of an error that no command expects into the log."""
    if isinstance(error, Exception) and not isinstance(error, typer.Exit):
        LOGGER.debug("Traceback", exc_info=error)


class _Shown(logging.Handler):
    """Lines on standard error, above the progress bars that are drawn there."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a line; errors and warnings begin with what they are."""
        from tqdm import tqdm

        if record.name.endswith(".progress") and sys.stderr.isatty():
            return  # there is a bar
        line = Text(record.getMessage())
        if record.levelno >= logging.WARNING:
            kind, colour = ("error", "red") if record.levelno > logging.WARNING else _WARNING
            line = Text.assemble((f"{kind}: ", f"bold {colour}"), line)
        with tqdm.external_write_mode(file=sys.stderr):
            console = Console(stderr=True, soft_wrap=True, highlight=False)
            console.print(line)
            if record.exc_info:
                console.print(logging.Formatter().formatException(record.exc_info), markup=False)


class _WarningLines:
    """Warnings of Python as lines of the log, without file and line, each once in a command."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(self, message: Any, category: Any, *_: Any, **__: Any) -> None:
        """Log the message, if it is a new one."""
        text = str(message)
        if _GLYPH.match(text):  # one for each character
            text = "Pictures show boxes for characters of names that are not in their font."
        if text not in self._said:
            self._said.add(text)
            LOGGER.warning("%s", text)


def plain(value: Any) -> Any:
    """Tables, numbers of NumPy and paths as what JSON has; NaN as null."""
    if hasattr(value, "to_dict") and hasattr(value, "columns"):
        named = value.index.name is not None
        return plain((value.reset_index() if named else value).to_dict("records"))
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and (value != value or value in (float("inf"), -float("inf"))):
        return None
    return value if isinstance(value, str | int | float | None) else str(value)
