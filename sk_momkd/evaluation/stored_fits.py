"""Results of the fits of one estimator as files: one for each fold, whole or absent."""

from __future__ import annotations

import json
import re
import traceback
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import exceptions
from ..data.value_digest import digest
from ..exceptions import StoreError
from ..io.atomic import atomic_write
from ..io.claims import claimed, is_claimed
from ..io.values import ValueReader, ValueWriter
from ..messages import warn
from .fold_fit import FAILURES, Fold
from .fold_results import FailedFold, FoldResult
from .study import Study

Result = FoldResult | FailedFold
FORMAT = 1  # of the files
FIT_FILE = re.compile(r"repeat-\d+-fold-\d+\.jsonl")
_AS_THEY_ARE = ("fit_seconds", "predict_seconds", "fit_mib", "threshold", "threshold_source")
_TEACHER = ("teacher_weight", "teacher_verdict", "teacher_report")
_ENCODED = (*_AS_THEY_ARE, "prior", "n_validation", "shares", *_TEACHER)


class DamagedFit(ValueError):
    """The file of a fit is not what was written."""


@dataclass(frozen=True)
class StoredFits:
    """Folder of the fits of one estimator; it goes to workers.

    Attributes
    ----------
    folder : Path
    name : str
        Of these fits in the study.
    expires : float
        Seconds after which the claim of a fit that was not renewed has expired.
    keep_models : bool
    """

    folder: Path
    name: str
    expires: float
    keep_models: bool

    def path(self, fold: Fold) -> Path:
        """File of a fold."""
        return self.folder / f"repeat-{fold.repeat}-fold-{fold.fold}.jsonl"

    def claimed(self, fold: Fold) -> AbstractContextManager[bool]:
        """Try to take a fold for this process."""
        return claimed(self.path(fold), self.expires)

    def is_claimed(self, fold: Fold) -> bool:
        """Whether some process has the fold now."""
        return is_claimed(self.path(fold), self.expires)

    def read(self, study: Study, fold: Fold) -> Result | None:
        """The stored result of a fold; None if there is none, or, with a warning, a damaged one.

        It has its model where models are kept.
        """
        try:
            return self._read(study, fold)
        except FileNotFoundError:
            return None
        except DamagedFit as error:
            warn(
                f"{self.path(fold)} is damaged ({error}), so that the fold is fitted again.",
                UserWarning,
            )
            return None

    def read_back(self, study: Study, fold: Fold) -> Result:
        """The result that was written just now.

        Raises
        ------
        StoreError
            If it cannot be read, so that no later call could use it.
        """
        try:
            return self._read(study, fold)
        except (FileNotFoundError, DamagedFit) as error:
            raise StoreError(
                f"{self.path(fold)} was written just now and cannot be read: {error}. Something "
                "else changes the files of this folder, or its disk is faulty. Use another folder."
            ) from error

    def _read(self, study: Study, fold: Fold) -> Result:
        row, lines = read_fit(self.path(fold))
        result = _decoded(row, lines, study, fold)
        if self.keep_models and isinstance(result, FoldResult):
            return replace(result, model=self._model(fold))
        return result

    def write(self, study: Study, fold: Fold, result: Result) -> None:
        """Store the result of a fold, and before it the model if models are kept.

        Raises
        ------
        OSError
            If the disk is full or the folder cannot be written.
        """
        try:
            if self.keep_models and isinstance(result, FoldResult):
                self._save_model(fold, result.model)
            row, lines = _encoded(result, study, self.name)
            content = [json.dumps(line, ensure_ascii=False, allow_nan=False) for line in lines]
            row |= {"n_lines": len(content), "digest": digest(*content)}
            row["digest_of_fit"] = digest(json.dumps(row))
            text = "\n".join([json.dumps(row, allow_nan=False), *content, ""])
            with atomic_write(self.path(fold)) as part:
                Path(part).write_text(text, encoding="utf-8")
        except OSError as error:
            error.add_note(
                f"The result of fold {fold.fold} (repeat {fold.repeat}) could not be written to "
                "the store. What ended before is kept: free or unlock the folder, and the same "
                "call goes on."
            )
            raise

    def _save_model(self, fold: Fold, model: Any) -> None:
        from ..persistence import save_model

        path = self.path(fold).with_suffix(".zip")
        path.unlink(missing_ok=True)  # `save_model` replaces no damaged file
        save_model(model, path)

    def _model(self, fold: Fold) -> Any:
        from ..persistence import load_model

        try:
            return load_model(self.path(fold).with_suffix(".zip"))
        except exceptions.ModelFileError as error:
            raise DamagedFit(f"its model cannot be loaded: {error}") from error


def read_fit(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """First line of the file of a fit, and the lines of its test patients.

    Raises
    ------
    DamagedFit
        If it is not what was written, or of a newer format.
    FileNotFoundError
    """
    try:
        # Not by splitlines: a label or an id may hold another line separator, as U+2028.
        first, *rest = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        row = json.loads(first)
        stated = row.pop("digest_of_fit")
        if digest(json.dumps(row)) != stated:
            raise DamagedFit("its first line was changed")
        if row.pop("format") > FORMAT:
            raise DamagedFit("it is of a newer version of this package")
        if (row.pop("n_lines"), row.pop("digest")) != (len(rest), digest(*rest)):
            raise DamagedFit("its predictions were changed")
        return row, [json.loads(line) for line in rest]
    except DamagedFit:
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DamagedFit("it is truncated or no such file") from error


def _encoded(
    result: Result, study: Study, name: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    row = {
        "format": FORMAT,
        "name": name,
        "repeat": result.repeat,
        "fold": result.fold,
        "n_train": len(result.trained),
        "n_test": len(result.tested),
    }
    if isinstance(result, FailedFold):
        return row | _encoded_error(result.error), []
    writer = _RowWriter()
    row |= {key: writer.encode(getattr(result, key), key) for key in _ENCODED}
    return row | {"type": result.proba.dtype.str}, _lines(result, study)


def _lines(result: FoldResult, study: Study) -> list[dict[str, Any]]:
    labels = [plain_label(c) for c in study.classes]
    lines = []
    for i, patient in enumerate(result.tested.tolist()):
        line = {"patient_id": str(study.names[patient]), "n_bags": int(result.n_bags[i])}
        line["y"] = labels[study.labels[patient]]
        if result.predicted is not None:
            line["predicted"] = labels[result.predicted[i]]
        proba = result.proba[i].tolist()
        lines.append(line | {f"p_{c}": p for c, p in zip(labels, proba, strict=True)})
    return lines


def _decoded(row: dict[str, Any], lines: list[dict[str, Any]], study: Study, fold: Fold) -> Result:
    trained, tested = map(study.patients_at, fold.split)
    place = (fold.repeat, fold.fold, trained, tested)
    try:
        if "error" in row:
            return FailedFold(*place, _decoded_error(row))
        if [line["patient_id"] for line in lines] != [str(i) for i in study.names[tested]]:
            raise DamagedFit("it has other patients")
        labels = [plain_label(c) for c in study.classes]
        predicted = [labels.index(line["predicted"]) for line in lines if "predicted" in line]
        reader = _RowReader({})
        return FoldResult(
            *place,
            proba=np.array([[line[f"p_{c}"] for c in labels] for line in lines], row["type"]),
            n_bags=np.array([line["n_bags"] for line in lines]),
            predicted=np.array(predicted) if predicted else None,
            # Files may be older than a field, which has a default then.
            **{key: reader.decode(row[key]) for key in _ENCODED if key in row},
        )
    except (ValueError, LookupError, TypeError) as error:
        raise DamagedFit(str(error)) from error


def plain_label(label: Any) -> Any:
    """A label as JSON has it."""
    return label if type(label) in (str, int, float, bool) else str(label)


class _RowWriter(ValueWriter):
    """Encodes values with their arrays of numbers in place."""

    def _array(self, value: NDArray, name: str) -> Any:
        if value.dtype.kind not in "biuf":
            return super()._array(value, name)
        return {"numbers": [value.dtype.str, self.encode(value.tolist(), name)]}

    def encode_object(self, value: Any, name: str) -> Any:
        raise TypeError(f"{name} of a fit is a {type(value).__name__}, which cannot be stored.")


class _RowReader(ValueReader):
    def decode_object(self, kind: str, stored: Any) -> Any:
        if kind != "numbers":
            raise DamagedFit(f"it holds a {kind!r:.100}")
        dtype, values = stored
        return np.array(self.decode(values), dtype)


def _encoded_error(error: Exception) -> dict[str, Any]:
    return {
        "error": type(error).__name__,
        "kinds": [kind.__name__ for kind in type(error).__mro__],
        "message": str(error),
        "notes": [str(note) for note in getattr(error, "__notes__", [])],
        "traceback": "".join(traceback.format_exception(error)),
    }


def _decoded_error(row: dict[str, Any]) -> Exception:
    """An error of the stored name and text, which is caught where the first one was."""
    own = {k.__name__: k for k in vars(exceptions).values() if isinstance(k, type)}
    known = {kind.__name__: kind for kind in FAILURES} | own
    base = next((known[kind] for kind in row["kinds"] if kind in known), RuntimeError)
    text = str(row["message"])
    kind = type(str(row["error"]), (base,), {"__str__": lambda error: text})
    error = kind(text)
    for note in row["notes"]:
        error.add_note(str(note))
    return error
