"""The folder of a run: resolved configuration, log, versions, and results written whole."""

from __future__ import annotations

import json
from os.path import normpath
from pathlib import Path
from typing import Any

from ..io.atomic import atomic_write, require_writable
from .config import Values, read_run_file, saved_model, values_of, write_run_file
from .keys import Cohort, Run, names_of
from .problems import UsageProblem
from .session import Session

RUN_FILE = "run.yaml"
_SAME_CONTENT = ("cache",)  # keys of the cohort that do not change what is read


def open_folder(folder: Path, values: Values, output: Session) -> None:
    """Make the folder of the results, with a log in it.

    Parameters
    ----------
    folder : Path
    values : dict
        What the run file of the results will hold.
    output : Session

    Raises
    ------
    UsageProblem
        If the folder has the results of another cohort or of another saved model.
    """
    if (folder / RUN_FILE).exists():
        _refuse_another_run(folder, values)
    require_writable(folder)
    output.log_to(folder / "log.txt")


def begin_run(folder: Path, values: Values) -> None:
    """Write the run file once the input is accepted; that of an earlier run stays to the end."""
    if not (folder / RUN_FILE).exists():
        write_run_file(values, folder / RUN_FILE)


def close_folder(folder: Path, values: Values, name: str = RUN_FILE) -> None:
    """Write what the results in the folder were made with."""
    write_run_file(values, folder / name)
    _write_versions(folder / "versions.json")


def describe(values: Values, output: Session, out: Path) -> None:
    """Write how a file was made beside it: the resolved run, versions, and a log."""
    output.log_to(out.with_name(f"{out.name}.log.txt"))
    write_run_file(values, out.with_name(f"{out.name}.run.yaml"))
    _write_versions(out.with_name(f"{out.name}.versions.json"))


def _refuse_another_run(folder: Path, values: Values) -> None:
    before = _compared(values_of_file(folder / RUN_FILE))
    for key, now in _compared(values).items():
        if not _is_same(key, before[key], now):
            raise UsageProblem(
                f"{folder} has the results of another run: {key} was {before[key]!r}, and is now "
                f"{now!r}. Name another folder with --out."
            )


def values_of_file(path: Path) -> Values:
    """What a run file beside results holds, with the saved model if it is of one."""
    run, read = Run(), read_run_file(path)
    for name, value in read.get("cohort", {}).items():
        setattr(run.cohort, name, value)
    return {"cohort": values_of(run)["cohort"], "model": saved_model(path)}


def _compared(values: Values) -> dict[str, Any]:
    """What two runs with results in one folder have in common, by key."""
    given = vars(Cohort()) | values["cohort"]
    compared = {f"cohort.{name}": given[name] for name in names_of("cohort")}
    compared = {k: v for k, v in compared.items() if k.partition(".")[2] not in _SAME_CONTENT}
    return compared | {"model.file": values.get("model", {}).get("file")}


def _is_same(key: str, before: Any, now: Any) -> bool:
    """Whether a value is the same; a file may be called otherwise where its folder was moved."""
    if key not in _PATHS or None in (before, now):
        return bool(before == now)
    moved = not Path(before).exists() and Path(before).name == Path(now).name
    return moved or normpath(before) == normpath(now)


_PATHS = tuple(f"cohort.{name}" for name in ("table", "features", "omics", "slide_table"))


def _write_versions(path: Path) -> None:
    from ..versions import facts

    with atomic_write(path) as part:
        Path(part).write_text(json.dumps(facts(), indent=1) + "\n", encoding="utf-8")
