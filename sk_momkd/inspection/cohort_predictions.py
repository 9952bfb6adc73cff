"""Predictions for many files, on one machine or many, that go on after a stop."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ..bag_warnings import BagWarnings
from ..data.value_digest import digest
from ..estimators.decisions import known_classes
from ..exceptions import BagFileError
from ..io.atomic import atomic_write, create_file, sweep_parts
from ..io.local_files import file_state
from ..io.readers import SlideFile, read_bags
from ..io.slide_files import bag_files
from ..messages import install_hint, warn
from ..parallel import WorkerCall, errors_with_warnings, one_by_one, received
from ..progress import progress_bar
from .cohort_warnings import categories, doubts, in_one_column, texts_of, warn_of_slides
from .predictions import prediction_table

_RUN = "predictions.json"  # what the parts in a folder are of
# Columns of parts that are text, as those of `categories` are; others are numbers.
_TEXT = ("file", "state", "bag_id", "predicted", "error")
# What reading, memory or a network may raise for one file; the others are not of the file.
_OF_THE_FILE = (ValueError, OSError, ArithmeticError, MemoryError, RuntimeError)


class _Part(NamedTuple):
    """Files whose predictions are written together."""

    files: tuple[str, ...]
    path: str
    reading: Mapping[str, Any]


def predict_cohort(
    model: Any,
    files: str | PathLike | Iterable[str | PathLike],
    out: str | PathLike,
    *,
    format: str = "parquet",
    files_per_part: int = 32,
    retry_errors: bool = False,
    n_jobs: int | None = None,
    resources: Mapping[str, float] | None = None,
    reading: Mapping[str, Any] | None = None,
    verbose: bool | None = False,
) -> pd.DataFrame:
    """Predict the slides of many files; what is done is in a folder and is not done again.

    The workers write one table per `files_per_part` files, which is complete or absent. Called
    again with the same folder, the function predicts the files that no table has yet, and those
    whose size or time of change is another one now. A file that cannot be read or predicted (a
    ValueError, OSError, ArithmeticError, MemoryError or RuntimeError) is a row with an error, and
    the others go on; another error ends the call.

    Parameters
    ----------
    model : fitted classifier, or a Pipeline that ends in one
    files : path of a folder, or iterable of paths
        Feature files as :func:`read_bags` reads them. Workers get their paths, so that they must
        be valid on each machine. A path that is given twice has one row.
    out : path
        A folder, which is made; it must be on a file system that all workers share.
    format : {"parquet", "csv"}, default="parquet"
        Of the tables that are written; those of an earlier call may have the other one.
    files_per_part : int, default=32
    retry_errors : bool, default=False
        Try files again whose row has an error, also where they have not changed. The row then has
        the prediction, or the newer error.
    n_jobs : int or None, default=None
        Processes of joblib, where no Dask client is in use.
    resources : dict, optional
        What a task occupies of a Dask worker, such as ``{"GPU": 1}`` for workers started with
        ``--resources GPU=1``.
    reading : dict, optional
        Options of :func:`read_bags`, such as ``{"allow_mixed": True}``.
    verbose : bool or None, default=False
        Show a progress bar; None for one where standard error is a terminal.

    Returns
    -------
    DataFrame
        A row per file, in their order: ``file, bag_id, p_<class>`` for each class, ``predicted``,
        ``warning`` and ``error``. Where there is no prediction, ``p_<class>`` and ``predicted`` are
        missing, elsewhere ``error``. ``warning`` is what is doubtful about the slide, such as that
        its features lie far from those of training; missing where there is nothing to say.

    Raises
    ------
    ValueError
        If `out` holds predictions of another model or with another `reading`, or is the folder of
        the files, or an option is unusable.
    BagFileError
        If `files` is a folder without bag files.
    ImportError
        If `format` is "parquet" and pyarrow is not installed.

    Warns
    -----
    UserWarning
        If files have an error; names the first.
    FeatureShiftWarning, EmptyInstancesWarning, CohortWarning, FeatureTypeWarning, CacheWarning
        Once for each of these categories that ``warning`` has, also in a later call with the same
        folder: how many slides it is said of, and the worst.

    Notes
    -----
    Slides that the model was trained on are predicted without a warning; :func:`prediction_table`
    warns of them.

    With a ``distributed.Client`` in use, the parts are tasks of Dask. The part of a worker that
    dies is given to another. A part whose worker died four times, or as often as
    ``distributed.scheduler.allowed-failures`` says, is split into files, and the file at fault gets
    an error. Without a client joblib runs them, on the backend that ``joblib.parallel_config``
    names; there a worker that dies raises an error, and the next call goes on from the parts.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from sk_momkd import ABMILClassifier, load_cohort, predict_cohort, simulate_cohort
    >>> paths = simulate_cohort(mkdtemp(), n_patients=12, n_patches=9, random_state=0)
    >>> bags, y, _ = load_cohort(paths.table, paths.features, label="subtype")[:3]
    >>> clf = ABMILClassifier(dim=8, max_epochs=1, random_state=0).fit(bags, y)
    >>> table = predict_cohort(clf, paths.features, mkdtemp(), format="csv")
    >>> len(table), int(table["error"].notna().sum())
    (12, 0)
    """
    names, folder = _names_of(files), Path(out)
    _check(format, files_per_part)
    _require_elsewhere(folder, names)
    reading = dict(reading or {})
    folder.mkdir(parents=True, exist_ok=True)
    sweep_parts(folder, shared=True)
    _require_same_run(folder, model, reading)
    states = {name: _state(name, reading) for name in names}
    rows = _read_parts(folder)
    rows = rows[rows["state"] == rows["file"].map(states)]
    finished = set(rows["file"][rows["error"].isna() | (not retry_errors)])
    left = [name for name in names if name not in finished]
    parts = [
        _part(left[start : start + files_per_part], folder, format, reading)
        for start in range(0, len(left), files_per_part)
    ]
    with progress_bar(len(left), "file", "predict", shown=verbose) as bar:
        for n_files in _run(model, parts, n_jobs, resources):
            bar.update(n_files)
    rows = _latest(_read_parts(folder), states)
    texts = texts_of(rows)
    table = _with_labels(rows.assign(warning=in_one_column(texts)), known_classes(model))
    warn_of_slides(texts, rows)
    _warn_of_errors(table)
    return table


def _names_of(files: str | PathLike | Iterable[str | PathLike]) -> list[str]:
    if isinstance(files, str | PathLike) and Path(files).is_dir():
        found: Iterable[Any] = bag_files(files, BagFileError)
    else:
        found = [files] if isinstance(files, str | PathLike) else files
    names = [fspath(file) for file in found]
    return list(dict.fromkeys(names))


def _check(format: str, files_per_part: int) -> None:
    if format not in ("parquet", "csv"):
        raise ValueError(f'format must be "parquet" or "csv", got {format!r}.')
    if files_per_part < 1:
        raise ValueError(f"files_per_part must be at least 1, got {files_per_part}.")
    if format == "parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise ImportError(
                f"format='parquet' needs pyarrow: {install_hint('pyarrow')}. Or use format='csv'."
            ) from error


def _require_elsewhere(folder: Path, names: Iterable[str]) -> None:
    """Refuse a folder in which the next call would take tables of predictions for slides."""
    if folder.resolve() in {Path(name).resolve().parent for name in names}:
        raise ValueError(
            f"out={fspath(folder)!r} is the folder of the feature files, among which the tables "
            "would be taken for slides. Name another folder."
        )


def _require_same_run(folder: Path, model: Any, reading: Mapping[str, Any]) -> None:
    """Note of what the predictions in `folder` are, or check that they are of the same."""
    from .model_identity import model_digest  # which imports torch

    classes = [str(c) for c in known_classes(model)]
    run = {
        "model": model_digest(model),
        "classes": classes,
        "reading": repr(sorted(reading.items())),
    }
    path = folder / _RUN
    with suppress(FileExistsError):
        create_file(path, json.dumps(run, indent=1).encode())
    before = _noted_run(path)
    other = [name for name in run if run[name] != before.get(name)]
    if other:
        raise ValueError(
            f"{folder} holds predictions of another {other[0]}: {before.get(other[0])}, now "
            f"{run[other[0]]}. Use another folder for `out`."
        )


def _noted_run(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(
            f"{path} is not what predict_cohort writes: {error}. Use another folder for `out`."
        ) from error
    return found if isinstance(found, dict) else {}


def _state(file: str, reading: Mapping[str, Any]) -> str:
    """Digest of sizes and times of change of what a bag is read from; empty for an absent file."""
    options = {name: reading[name] for name in ("format", "allow_external") if name in reading}
    try:
        parts = SlideFile(file, **options).parts
        return digest(*(f"{size} {changed}" for size, changed, *_ in map(file_state, parts)))
    except (OSError, ValueError):
        return ""


def _part(files: Sequence[str], folder: Path, format: str, reading: Mapping[str, Any]) -> _Part:
    path = folder / f"part-{digest(*files)}.{format}"
    return _Part(tuple(files), fspath(path), reading)


def _run(
    model: Any, parts: Sequence[_Part], n_jobs: int | None, resources: Mapping[str, float] | None
) -> Iterator[int]:
    """Write the parts; yield the number of files of each."""
    client = _dask_client()
    if client is not None:
        yield from _run_on_dask(client, model, parts, resources)
        return
    if resources is not None:
        raise ValueError("resources are of the workers of Dask, and no client is in use.")
    calls = (partial(_predict_part, model, part) for part in parts)
    yield from one_by_one(calls, n_jobs)


def _dask_client() -> Any:
    """The Dask client in use, if there is one."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return None
    try:
        return distributed.get_client()
    except ValueError:
        return None


def _run_on_dask(
    client: Any, model: Any, parts: Sequence[_Part], resources: Mapping[str, float] | None
) -> Iterator[int]:
    from distributed import as_completed
    from distributed.scheduler import KilledWorker

    everywhere = client.scatter(model, broadcast=True)
    options = {"pure": False, "resources": resources}
    predict = WorkerCall(_predict_part)
    waiting = {client.submit(predict, everywhere, part, **options): part for part in parts}
    completed = as_completed(list(waiting))
    for future in completed:
        part = waiting.pop(future)
        if not isinstance(error := future.exception(), KilledWorker):
            with errors_with_warnings():
                n_files = received(future.result())
            yield n_files
        elif len(part.files) == 1:
            (file,) = part.files
            row = _error_row(file, error).assign(state=_state(file, part.reading))
            yield _write(row, part)
        else:
            for single in _singles(part):
                again = client.submit(predict, everywhere, single, **options)
                waiting[again] = single
                completed.add(again)


def _singles(part: _Part) -> list[_Part]:
    """A part per file."""
    path = Path(part.path)
    return [
        _part([file], path.parent, path.suffix.removeprefix("."), part.reading)
        for file in part.files
    ]


def _predict_part(model: Any, part: _Part) -> int:
    """Predict the files of a part and write it."""
    rows = []
    for file in part.files:
        state = _state(file, part.reading)  # before it is read: a later change is seen
        rows.append(_predict_file(model, file, part.reading).assign(state=state))
    return _write(pd.concat(rows, ignore_index=True), part)


def _predict_file(model: Any, file: str, reading: Mapping[str, Any]) -> pd.DataFrame:
    from ..training.feature_scale import noted_distances  # which imports torch

    found = BagWarnings()
    try:
        with noted_distances() as distances, found.held():
            bags = read_bags([file], **reading)
            row = prediction_table(model, bags, allow_training_patients=True)
    except _OF_THE_FILE as error:
        return _error_row(file, error)
    row.insert(0, "file", file)
    labels = row["predicted"].map(str)  # beside missing ones numbers would become floats
    columns = {"predicted": labels, "error": None, **doubts(found, distances)}
    return row.drop(columns="patient_id").assign(**columns)


def _error_row(file: str, error: BaseException) -> pd.DataFrame:
    notes = " ".join(getattr(error, "__notes__", []))
    text = f"{type(error).__name__}: {error} {notes}".strip()
    return pd.DataFrame({"file": [file], "bag_id": [Path(file).stem], "error": [text]})


def _write(table: pd.DataFrame, part: _Part) -> int:
    path = Path(part.path)
    with atomic_write(path) as temporary:
        if path.suffix == ".csv":
            table.to_csv(temporary, index=False)
        else:
            table.to_parquet(temporary, index=False)
    return len(part.files)


def _read_parts(folder: Path) -> pd.DataFrame:
    """All rows that are there; those that were written later come later."""
    paths = [*folder.glob("part-*.csv"), *folder.glob("part-*.parquet")]
    paths.sort(key=lambda path: (path.stat().st_mtime_ns, path.name))
    tables = [_read_csv(p) if p.suffix == ".csv" else pd.read_parquet(p) for p in paths]
    if not tables:
        return pd.DataFrame(columns=_TEXT, dtype=object)
    rows = pd.concat([t.dropna(axis=1, how="all") for t in tables], ignore_index=True)
    return rows.reindex(columns=[*_TEXT, *(c for c in rows.columns if c not in _TEXT)])


def _read_csv(path: Path) -> pd.DataFrame:
    """Text stays as it was written, such as an id or a label "NA"; empty numbers are missing."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    said = categories(table)
    for column in table.columns.difference([*_TEXT, *said]):
        table[column] = table[column].where(table[column] != "", "nan").astype(float)
    for column in ("error", *said):
        table[column] = table[column].where(table[column] != "", None)
    if "predicted" in table:
        table["predicted"] = table["predicted"].where(table["error"].isna(), None)
    return table


def _latest(rows: pd.DataFrame, states: Mapping[str, str]) -> pd.DataFrame:
    """A row per file: of its present state, then a prediction, then the one written last."""
    order = pd.DataFrame(
        {
            "is_current": rows["state"] == rows["file"].map(states),
            "is_predicted": rows["error"].isna(),
            "place": range(len(rows)),
        }
    )
    rows = rows.loc[order.sort_values(list(order.columns)).index]
    rows = rows.drop_duplicates("file", keep="last").set_index("file").loc[list(states)]
    return rows.reset_index()


def _with_labels(rows: pd.DataFrame, classes: list[Any]) -> pd.DataFrame:
    columns = ["file", "bag_id", *(f"p_{c}" for c in classes), "predicted", "warning", "error"]
    labels = {str(c): c for c in classes}
    table = rows.reindex(columns=columns)
    return table.assign(predicted=table["predicted"].map(labels, na_action="ignore"))


def _warn_of_errors(table: pd.DataFrame) -> None:
    failed = table[table["error"].notna()]
    if len(failed):
        first = failed.iloc[0]
        warn(
            f"{len(failed)} of {len(table)} files have no prediction; the first is "
            f"{first['file']}: {first['error']} Fix the files and call again; with "
            "retry_errors=True those that have not changed are tried, too.",
            UserWarning,
        )
