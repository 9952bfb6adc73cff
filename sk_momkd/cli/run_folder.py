"""The folder of a run: resolved configuration, log, versions, and results written whole."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from ..io.atomic import atomic_write
from .config import write_run_file
from .keys import Run
from .session import Session

RUN_FILE = "run.yaml"


def open_folder(run: Run, say: Session) -> Path:
    """Make the folder of the results, with run.yaml, versions.json and log.txt in it."""
    folder = run.output.out
    folder.mkdir(parents=True, exist_ok=True)
    describe(run, say, folder / RUN_FILE, folder / "versions.json", folder / "log.txt")
    return folder


def describe(run: Run, say: Session, run_file: Path, versions: Path, log: Path) -> None:
    """Write how results are made: the resolved run with its seeds, versions, and a log."""
    from ..versions import facts

    say.log_to(log)
    write_run_file(run, run_file)
    write_json(versions, facts())
    say.log_command(shlex.join(["sk-momkd", *sys.argv[1:]]))


def write_json(path: Path, data: Any) -> None:
    """Write plain data."""
    with atomic_write(path) as part:
        Path(part).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
