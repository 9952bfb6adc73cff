"""The folder of a run: resolved configuration, log, versions, and results written whole."""

from __future__ import annotations

import json
from pathlib import Path

from ..io.atomic import atomic_write
from .config import write_run_file
from .keys import Run
from .session import Session

RUN_FILE = "run.yaml"


def open_folder(run: Run, say: Session) -> Path:
    """Make the folder of the results, with run.yaml and log.txt in it.

    The run.yaml of an earlier run stays until this one ends: it may be refused.
    """
    folder = run.output.out
    folder.mkdir(parents=True, exist_ok=True)
    say.log_to(folder / "log.txt")
    if not (folder / RUN_FILE).exists():
        write_run_file(run, folder / RUN_FILE)
    return folder


def close_folder(run: Run, folder: Path) -> None:
    """Write what the results in the folder were made with."""
    write_run_file(run, folder / RUN_FILE)
    _write_versions(folder / "versions.json")


def describe(run: Run, say: Session, out: Path) -> None:
    """Write how a file was made beside it: the resolved run, versions, and a log."""
    say.log_to(out.with_name(f"{out.name}.log.txt"))
    write_run_file(run, out.with_name(f"{out.name}.run.yaml"))
    _write_versions(out.with_name(f"{out.name}.versions.json"))


def _write_versions(path: Path) -> None:
    from ..versions import facts

    with atomic_write(path) as part:
        Path(part).write_text(json.dumps(facts(), indent=1) + "\n", encoding="utf-8")
