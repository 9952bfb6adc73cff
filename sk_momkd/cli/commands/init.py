"""`init`: a commented run file for the files that it is pointed at."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...io.atomic import atomic_write
from ..examples import Command
from ..keys import Run
from ..options import run_command
from ..problems import UsageProblem, nearest
from ..session import Session

if TYPE_CHECKING:
    from ..discover import Found

_FILES = Annotated[
    list[Path], typer.Argument(help="A folder with everything, or table, features and omics.")
]
_WRITE = Annotated[Path, typer.Option(help="Run file to write.")]
_LABEL = Annotated[str | None, typer.Option(help="Column with the labels.")]
_POSITIVE = Annotated[str | None, typer.Option(help="Its value that is the positive class.")]
_OUT = Annotated[Path, typer.Option(help="Folder for the results.")]
_OVERWRITE = Annotated[bool, typer.Option(help="Replace the run file if it exists.")]
_FEW = 10
_SMALL = 1000  # patients, below which the preset "small" fits

_PRESET = "null  # small for momkd, unified for others"
_OF_MANY = "; for momkd and so many patients also: default, the paper's sizes"
_THRESHOLD = "youden  # chosen on out-of-fold predictions; null: the most probable class"
_NO_THRESHOLD = "null  # the most probable class; a threshold is for two classes"
_TEXT = """\
# A run of sk-momkd. Options override this file: sk-momkd evaluate {path} --cv 3 --out three
# All keys: sk-momkd evaluate --help. Paths are relative to this file.
# Values are YAML 1.2: yes and no are text, true and false are not.

cohort:
  table: {table}
  features: {features}  # {n_files} files, the first is {formats}
  omics: {omics}{omics_note}
  slide_id: {slide_id}  # names {n_slides} of the files
  patient_id: {patient_id}  # {n_patients} patients{patient_note}
{optional}  label: {label}{label_note}
  positive: {positive}{positive_note}
  # negative: ...  # with it, slides with any other value are left out

model:
  method: momkd  # or abmil, transmil, logistic ... (sk-momkd versions lists them)
  preset: {preset}
  scale: true  # standardise patch features inside each training fold
  threshold: {threshold}
  random_state: 0
  parameters: {{}}  # of the classifier, such as max_epochs: 50

evaluation:
  cv: {cv}  # folds; no patient is in two folds
  keep_sites: {keep_sites}
  n_repeats: 1  # more of them show how much chance there is in training

comparison:
  methods: []  # such as [momkd, abmil, logistic]; none: with, without and permuted omics

report:
  title: {title}
  images: null  # folder with an image of each slide, named by its id

output:
  out: {out}
"""


@run_command(config="none")
def _init(
    files: _FILES,
    run: Run,
    output: Session,
    label: _LABEL = None,
    positive: _POSITIVE = None,
    out: _OUT = Path("results"),
    write: _WRITE = Path("run.yaml"),
    overwrite: _OVERWRITE = False,
) -> None:
    if write.exists() and not overwrite:
        raise UsageProblem(f"{write} exists. Give --overwrite, or another name with --write.")
    from ..discover import discover

    found = discover(files)
    text = _TEXT.format(**_values(found, label, positive, write, out))
    write.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(write) as part:
        Path(part).write_text(text, encoding="utf-8")
    for line in _said(found, write):
        output.note(line)
    output.result(str(write), {"run_file": write, **vars(found)})


def _values(
    found: Found, label: str | None, positive: str | None, write: Path, out: Path
) -> dict[str, Any]:
    """What stands in the template."""
    from ..discover import positive_of

    column = label or next(iter(found.labels), None)
    counts = found.labels.get(column or "", {})
    if label is not None and not counts and label not in found.columns:
        raise UsageProblem(nearest(label, found.columns, f"column in {found.table}"))
    chosen = positive or positive_of(counts)
    folder = write.absolute().parent
    small, few = found.n_patients < _SMALL, _has_few_patients(found)
    return {
        "path": _quoted(write.name),
        "table": _path(found.table, folder),
        "features": _path(found.features, folder),
        "omics": "null" if found.omics is None else _path(found.omics, folder),
        "omics_note": f"  # {found.omics_note}" if found.omics_note else "",
        "formats": found.formats,
        "n_files": found.n_files,
        "n_slides": found.n_slides,
        "n_patients": found.n_patients,
        "slide_id": _as_yaml(found.slide_id),
        "patient_id": _as_yaml(found.slide_id if few else found.patient_id),
        "patient_note": _patient_note(found),
        "optional": _optional(found, folder),
        "label": _as_yaml(column),
        "label_note": _label_note(found, column, counts),
        "positive": _as_yaml(chosen),
        "positive_note": _positive_note(counts, chosen, given=positive is not None),
        "preset": _PRESET if small else _PRESET + _OF_MANY,
        "threshold": _NO_THRESHOLD if chosen is None else _THRESHOLD,
        "cv": max(2, min(5, found.n_patients)),
        "keep_sites": "true" if few else "false  # true: no site is in two folds",
        "title": _as_yaml(f"{column or 'A label'} from slides"),
        "out": _as_yaml(str(out)),
    }


def _as_yaml(value: Any) -> str:
    """A value as it stands in a run file: JSON, which is YAML and quotes text."""
    return json.dumps(value)


def _quoted(path: Path | str) -> str:
    """A path as a shell reads it."""
    return shlex.quote(str(path))


def _path(path: Path, folder: Path) -> str:
    """A path as YAML, relative to the folder of the run file where it is below that."""
    absolute = path.absolute()
    below = absolute.is_relative_to(folder)
    return _as_yaml((absolute.relative_to(folder) if below else absolute).as_posix())


def _patient_note(found: Found) -> str:
    if _has_few_patients(found):
        return (
            f": TOO FEW TO COUNT. Slides are counted one by one, as if each were a patient; "
            f"{found.patient_id} stands below as site; no site is in two folds"
        )
    if found.patient_id != found.slide_id:
        return ""
    return "; NO COLUMN OF PATIENTS WAS FOUND: name it, or slides of one may be in two folds"


def _has_few_patients(found: Found) -> bool:
    """Whether results by patient would rest on fewer than ten, who have several slides each."""
    return found.n_patients < _FEW and found.n_slides >= 4 * found.n_patients


def _optional(found: Found, folder: Path) -> str:
    lines = []
    if found.slide_table is not None:
        lines.append(f"slide_table: {_path(found.slide_table, folder)}")
    if found.barcodes:
        lines.append(f"barcodes: {found.barcodes}  # patient and site are read from the slide ids")
    site = found.patient_id if _has_few_patients(found) else found.site
    if site:
        lines.append(f"site: {_as_yaml(site)}")
    if found.id_column:
        lines.append(f"id_column: {_as_yaml(found.id_column)}  # holds the ids of the omics")
    return "".join(f"  {line}\n" for line in lines)


def _label_note(found: Found, column: str | None, counts: dict[str, int]) -> str:
    """Values of the label, and which other columns could be one."""
    if column is None:
        return "  # NO COLUMN WITH TWO TO SIX VALUES WAS FOUND: name the one with the labels"
    values = ", ".join(f"{value!r} ({n})" for value, n in counts.items())
    others = [name for name in found.labels if name != column]
    note = f"  # {values or 'values were not counted'}"
    return note + (f"; or {', '.join(others[:12])}" if others else "")


def _positive_note(counts: dict[str, int], chosen: str | None, *, given: bool) -> str:
    if given or chosen is None:
        return "" if given else "  # more than two values: each is a class"
    return "  # CHECK: guessed from the values of the label"


def _said(found: Found, write: Path) -> list[str]:
    omics, run_file = found.omics or "none", _quoted(write)
    return [
        f"table: {found.table}",
        f"features: {found.features} ({found.n_files} files, {found.n_slides} in the table)",
        f"omics: {omics}" + (f" ({found.omics_note})" if found.omics_note else ""),
        f"labels could be: {', '.join(found.labels) or 'none with two to six values'}",
        f"Read {write}, then: sk-momkd inspect {run_file}; sk-momkd evaluate {run_file}",
    ]


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    text = "Write a commented run file for your files: columns, labels and omics are found."
    app.command("init", help=text, cls=Command)(_init)
