"""A folder that holds the fits of a study as they end, and knows again what they are of."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from types import UnionType
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from ..data.omics import OmicsTable
from ..data.value_digest import array_digest, configuration, digest
from ..exceptions import StoreError
from ..io.atomic import atomic_write, sweep_parts
from ..io.bag_digest import bag_digest, omics_digests
from ..io.claims import claimed
from ..messages import first_few
from ..versions import of_results
from .planned_fits import PlannedFits
from .stored_fits import FIT_FILE, FORMAT, DamagedFit, StoredFits, plain_label, read_fit
from .study import Study

_STUDY, _FITS = "study.json", "fits.json"
_KEY_BYTES = 16
_PLACE = ("repeat", "fold")
_OF_BAGS = ("content", "patient", "label", "group")  # what is known of a bag


@dataclass(frozen=True)
class StudyStore:
    """Folder in which an evaluation keeps each fit as it ends, and from which it goes on.

    The functions that take ``store=`` take the path of a folder; this class has what else can be
    set, and reads what is there while a run goes on.

    Parameters
    ----------
    folder : path
        Created if it does not exist. Several processes and machines may share it.
    retry_failed : bool, default=False
        Whether fits that are stored as failed are tried again.
    expires : float, default=120
        Seconds after which a fit is taken from a process that has not renewed its claim, for
        example because its machine was switched off; above 0. A process that was killed on the same
        machine is known at once. All who share the folder need the same.

    Raises
    ------
    ValueError
        If `expires` is not above 0.

    See Also
    --------
    evaluate, compare, compare_omics, permutation_check, learning_curve, seed_spread : Take it.

    Notes
    -----
    The files of the fits hold the ids of patients, their labels and their predictions.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> import numpy as np
    >>> from sklearn.dummy import DummyClassifier
    >>> from sk_momkd import Bag, BagSequence, StudyStore, evaluate
    >>> bags = BagSequence(Bag(np.ones((2, 3)), patient_id=f"P{i:02d}") for i in range(20))
    >>> store = StudyStore(mkdtemp())
    >>> result = evaluate(DummyClassifier(), bags, np.arange(20) % 2, cv=2, store=store)
    >>> store.fits()[["name", "fold", "n_test", "error"]].values.tolist()
    [['evaluate', 0, 10, None], ['evaluate', 1, 10, None]]
    >>> len(store.predictions())
    20
    """

    folder: str | os.PathLike[str]
    retry_failed: bool = False
    expires: float = 120.0

    def __post_init__(self) -> None:
        if not isinstance(self.expires, Real) or not self.expires > 0:
            raise ValueError(f"expires must be a number of seconds above 0, got {self.expires!r}.")

    def fits(self) -> pd.DataFrame:
        """The fits that have ended, of all processes.

        Returns
        -------
        DataFrame
            One row per fit. Columns ``name`` (of the method, seed, permutation or fraction, or
            "evaluate"), ``repeat``, ``fold``, ``n_train``, ``n_test`` (patients), ``fit_seconds``,
            ``predict_seconds`` and ``error``, which is None where the fit has not failed.

        Raises
        ------
        StoreError
            If the folder is no store, or the file of a fit is damaged; names it.
        """
        columns = ["name", "repeat", "fold", "n_train", "n_test"]
        columns += ["fit_seconds", "predict_seconds", "error"]
        _, found = self._read()
        rows = [{key: row.get(key) for key in columns} | _error_text(row) for row, _ in found]
        return pd.DataFrame(rows, columns=columns)

    def predictions(self) -> pd.DataFrame:
        """The out-of-fold predictions of the fits that have ended.

        Returns
        -------
        DataFrame
            One row per fit and test patient. Columns ``name``, ``repeat``, ``fold``,
            ``patient_id``, ``n_bags``, ``y``, ``predicted`` and ``p_<class>`` for each class.

        Raises
        ------
        StoreError
            If the folder is no store, or the file of a fit is damaged; names it.
        """
        place = ["name", *_PLACE]
        stored, found = self._read()
        columns = [*place, "patient_id", "n_bags", "y", "predicted"]
        columns += [f"p_{c}" for c in stored["classes"]]
        rows = [{key: row[key] for key in place} | line for row, lines in found for line in lines]
        return pd.DataFrame(rows, columns=columns)

    def _read(self) -> tuple[dict[str, Any], list[tuple[dict[str, Any], list[dict[str, Any]]]]]:
        """Description of the study, and the fits."""
        try:
            stored = _description(Path(self.folder) / _STUDY, _KINDS_OF_STUDY)
        except FileNotFoundError as error:
            raise StoreError(
                f"{self.folder} holds no store. Give the folder that a call has as store=; the "
                "call makes it when it begins."
            ) from error
        found = []
        for path in sorted(Path(self.folder).glob("*/*.jsonl")):
            try:
                found += [read_fit(path)] if FIT_FILE.fullmatch(path.name) else []
            except DamagedFit as error:
                raise StoreError(f"{path} is damaged: {error}. Delete it to fit again.") from error
        by_place = sorted(found, key=lambda fit: tuple(fit[0][k] for k in ("name", *_PLACE)))
        return stored, by_place


def _error_text(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"error": f"{row['error']}: {row['message']}"} if "error" in row else {}


def open_store(
    store: Any, call: str, planned: Sequence[PlannedFits], *, keep_models: bool, **options: Any
) -> list[StoredFits]:
    """Folders of all planned fits in a store, which is made or known again.

    Parameters
    ----------
    store : path or StudyStore
    call : str
        Name of the function.
    planned : list of PlannedFits
    keep_models : bool
    **options
        What else must be equal.

    Raises
    ------
    StoreError
        If the store is of something else; names what differs.
    """
    store = store if isinstance(store, StudyStore) else StudyStore(store)
    if not isinstance(store.folder, str | os.PathLike):
        raise TypeError(f"store is a {type(store.folder).__name__}, expected the path of a folder.")
    if keep_models:
        _require_savable(planned)
    folder = Path(store.folder)
    folder.mkdir(parents=True, exist_ok=True)
    stored = _known_again(folder, store.expires, call, planned[0].study)
    tables = _Tables(planned[0].study.omics, stored["omics"])
    options["keep_models"] = keep_models
    return [_fits_of(store, stored, one, tables, options) for one in planned]


def _require_savable(planned: Iterable[PlannedFits]) -> None:
    from ..persistence.model_files import require_savable

    for one in {id(one.estimator): one for one in planned}.values():
        with one.named_in_errors():
            require_savable(one.estimator)


def _known_again(folder: Path, expires: float, call: str, study: Study) -> dict[str, Any]:
    """Description of the study in a store, which is made, or compared with `study`."""
    made: dict[str, dict[str, Any]] = {}

    def described(key: str) -> dict[str, Any]:
        if key not in made:  # it reads all bags
            made[key] = _described(call, study, key)
        return made[key]

    sweep_parts(folder, shared=True)
    new_key = secrets.token_hex(_KEY_BYTES)
    stored = _made_once(folder / _STUDY, expires, lambda: described(new_key), _KINDS_OF_STUDY)
    now = described(stored["key"])
    found = [*_differing_versions(stored, now), *_differing_cohort(stored, now, study)]
    _refuse(folder, found)
    return stored


def _fits_of(
    store: StudyStore,
    stored: Mapping[str, Any],
    one: PlannedFits,
    tables: _Tables,
    options: Mapping[str, Any],
) -> StoredFits:
    folder = Path(store.folder) / _folder_name(one.name)
    folder.mkdir(exist_ok=True)
    sweep_parts(folder, shared=True)
    fits = StoredFits(folder.resolve(), one.name, store.expires, options["keep_models"])
    with one.named_in_errors():
        now = _described_fits(one, bytes.fromhex(stored["key"]), tables) | dict(options)
    known = _made_once(folder / _FITS, store.expires, lambda: now, _KINDS_OF_FITS)
    _refuse(Path(store.folder), [f"{text} ({one.name})" for text in _differing_fits(known, now)])
    if store.retry_failed:
        _forget_failed(fits, one)
    return fits


def _forget_failed(fits: StoredFits, one: PlannedFits) -> None:
    for fold in one.folds:
        with fits.claimed(fold) as free:
            path = fits.path(fold)
            if free and path.exists() and "error" in _row(path):
                path.unlink()


def _row(path: Path) -> dict[str, Any]:
    try:
        return read_fit(path)[0]
    except DamagedFit:
        return {}


def _folder_name(name: str) -> str:
    """Name of a folder for fits of any name, of which two never share one."""
    return f"{re.sub(r'[^A-Za-z0-9.-]+', '_', name)[:40].strip('.')}-{digest(name)[:8]}"


def _made_once(
    path: Path, expires: float, make: Callable[[], dict[str, Any]], kinds: Mapping[str, Any]
) -> dict[str, Any]:
    """Content of a JSON file, which one of the processes that need it makes."""
    while True:
        try:
            return _description(path, kinds)
        except FileNotFoundError:
            with claimed(path, expires) as free:
                if free and not path.exists():
                    with atomic_write(path) as part:
                        Path(part).write_text(json.dumps(make(), indent=1), encoding="utf-8")
            if not free:
                time.sleep(0.1)


def _description(path: Path, kinds: Mapping[str, Any]) -> dict[str, Any]:
    """Content of a JSON file of a store, which has these keys with values of these kinds.

    Raises
    ------
    FileNotFoundError
    StoreError
        If it is none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"it holds a {type(found).__name__}")
        stated = found.get("format")
        if isinstance(stated, int) and stated > FORMAT:
            raise ValueError("it is of a newer version of this package")
        wrong = [k for k, kind in kinds.items() if k not in found or not _is_of(found[k], kind)]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is missing or is something else")
        return found
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path} is no store of a study: {error}. Use another folder.") from error


def _is_of(value: Any, kind: Any) -> bool:
    """Whether a value has a type, passes a check, or is a list or dict of what is in the kind."""
    if isinstance(kind, list):
        return isinstance(value, list) and all(_is_of(v, kind[0]) for v in value)
    if isinstance(kind, dict):
        return isinstance(value, dict) and all(_is_of(v, kind[str]) for v in value.values())
    if isinstance(kind, type | UnionType):
        return isinstance(value, kind)
    return kind(value)


def _is_key(value: Any) -> bool:
    return (
        isinstance(value, str) and re.fullmatch(f"[0-9a-f]{{{2 * _KEY_BYTES}}}", value) is not None
    )


def _is_bag(value: Any) -> bool:
    return isinstance(value, dict) and all(key in value for key in _OF_BAGS)


_KINDS_OF_STUDY: dict[str, Any] = {
    "format": int,
    "call": str,
    "versions": {str: str},
    "key": _is_key,
    "classes": [str | int | float | bool],
    "bags": {str: _is_bag},
    "genes": str | None,
    "omics": {str: str},
}
_KINDS_OF_FITS: dict[str, Any] = {
    "format": int,
    "name": str,
    "estimator": {str: str},
    "labels": str,
    "omics": [str | None],
    "splits": [[str]],
    "seeds": list,
}


def _described(call: str, study: Study, key: str) -> dict[str, Any]:
    """What must be the same for all fits of the store."""
    secret, bags = bytes.fromhex(key), {}
    for i, bag in enumerate(study.bags):
        bags[_hashed(_bag_name(study, i), secret)] = {
            "content": bag_digest(bag),
            "patient": _hashed(str(study.names[study.patient_of[i]]), secret),
            "label": _hashed(str(study.y[i]), secret),
            "group": None if study.groups is None else _hashed(str(study.groups[i]), secret),
        }
    return {
        "format": FORMAT,
        "call": call,
        "versions": of_results(),
        "key": key,
        "classes": [plain_label(c) for c in study.classes],
        "bags": bags,
        "genes": None if study.omics is None else digest(*map(str, study.omics.genes)),
        "omics": _rows_of(study, study.omics, secret),
    }


def _bag_name(study: Study, i: int) -> str:
    """Id of a bag; for one without, its place in the input."""
    return str(study.bags[i].bag_id or study.bags.name(i))


def _rows_of(study: Study, omics: OmicsTable | None, key: bytes) -> dict[str, str]:
    """Digests of the omics of the study's patients, by hashed id."""
    if omics is None:
        return {}
    rows = omics.match(study.bags)
    return {_hashed(i, key): v for i, v in omics_digests(omics.take(_used(rows))).items()}


def _used(rows: NDArray) -> NDArray:
    return pd.unique(rows[rows >= 0])


def _hashed(text: str, key: bytes) -> str:
    return hashlib.blake2b(text.encode(), key=key, digest_size=8).hexdigest()


class _Tables:
    """Digests of omics tables, each made once; of one table the digests of the rows are known."""

    def __init__(self, known: OmicsTable | None, rows: Mapping[str, str]) -> None:
        self._known: dict[int, tuple[OmicsTable, str]] = {}
        if known is not None:
            self._known[id(known)] = known, _joint(rows)

    def of(self, study: Study, omics: OmicsTable | None, key: bytes) -> str | None:
        """Digest of the rows of a table that belong to the study."""
        if omics is None:
            return None
        if id(omics) not in self._known:
            self._known[id(omics)] = omics, _joint(_rows_of(study, omics, key))
        return self._known[id(omics)][1]


def _joint(rows: Mapping[str, str]) -> str:
    """One digest of those of the rows, which does not depend on their order."""
    return digest(*(f"{name} {row}" for name, row in sorted(rows.items())))


def _described_fits(one: PlannedFits, key: bytes, tables: _Tables) -> dict[str, Any]:
    study, plan = one.study, one.plan
    names = [_hashed(_bag_name(study, i), key) for i in range(len(study.bags))]
    return {
        "format": FORMAT,
        "name": one.name,
        "estimator": configuration(one.estimator),
        "labels": digest(*(_hashed(str(label), key) for label in study.y)),
        "omics": [tables.of(study, table, key) for table in one.tables],
        "splits": [
            [digest(*(_joined(names, part) for part in split)) for split in splits]
            for splits in plan.splits
        ],
        "seeds": plan.seeds,
        # Absent without any, as in stores that are older than `params`.
        **{f"params[{k!r}]": array_digest(v) for k, v in study.params.items()},
    }


def _joined(names: Sequence[str], positions: NDArray) -> str:
    return " ".join(names[i] for i in positions)


def _differing_versions(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    found = []
    if stored.get("call") != now["call"]:
        found.append(f"it is of {stored.get('call')}, and this is {now['call']}")
    there = stored.get("versions", {})
    for package, version in now["versions"].items():
        if there.get(package) != version:
            found.append(f"{package} was {there.get(package)} and is {version}")
    if stored.get("classes") != now["classes"]:
        found.append(
            f"its classes are {stored.get('classes')}, of two the positive one last, and these "
            f"are {now['classes']}"
        )
    return found


def _differing_cohort(stored: Mapping[str, Any], now: Mapping[str, Any], study: Study) -> list[str]:
    key = bytes.fromhex(str(stored["key"]))
    names = {_hashed(n, key): n for n in (_bag_name(study, i) for i in range(len(study.bags)))}
    found = _differing_ids(stored["bags"], now["bags"], names, "bags")
    both = [name for name in names if name in stored["bags"]]
    for what in _OF_BAGS:
        differ = [names[n] for n in both if stored["bags"][n][what] != now["bags"][n][what]]
        if differ:
            found.append(f"{what} of {len(differ)} bags differs: {first_few(differ)}")
    rows = {} if study.omics is None else {_hashed(str(i), key): i for i in study.omics.ids}
    found += _differing_ids(stored["omics"], now["omics"], rows, "rows of omics")
    if stored["genes"] != now["genes"] and stored["genes"] and now["genes"]:
        found.append("the genes differ")
    else:
        mine = [name for name in now["omics"] if name in stored["omics"]]
        differ = [rows[n] for n in mine if stored["omics"][n] != now["omics"][n]]
        if differ:
            found.append(f"omics of {len(differ)} patients differs: {first_few(differ)}")
    return found


def _differing_ids(
    stored: Mapping[str, Any], now: Mapping[str, Any], names: Mapping[str, str], what: str
) -> list[str]:
    new = [names[name] for name in now if name not in stored]
    n_missing = sum(name not in now for name in stored)
    found = [f"{len(new)} {what} are new: {first_few(new)}"] if new else []
    return found + ([f"{n_missing} {what} of it are missing"] if n_missing else [])


def _differing_fits(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    found, there, here = [], stored["estimator"], now["estimator"]
    for name in dict.fromkeys([*there, *here]):
        if there.get(name) != here.get(name):
            was, now_is = there.get(name, "not a parameter"), here.get(name, "not a parameter")
            found.append(f"{name} was {was:.100} and is {now_is:.100}")
    found += [f"{what} differ" for what in ("labels", "omics") if stored[what] != now[what]]
    found += _differing_splits(stored, now)
    others = {"estimator", "labels", "omics", "splits", "seeds", "name"}
    for option in sorted((now.keys() | stored.keys()) - others):
        if stored.get(option) != now.get(option):
            found.append(f"{option} was {stored.get(option)} and is {now.get(option)}")
    return found


def _differing_splits(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    there, here = stored["splits"], now["splits"]
    if len(there) != len(here):
        return [f"n_repeats was {len(there)} and is {len(here)}"]
    for repeat, (one, other) in enumerate(zip(there, here, strict=True)):
        if len(one) != len(other):
            return [f"repeat {repeat} had {len(one)} folds and has {len(other)}"]
        differ = [i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
        if stored["seeds"] != now["seeds"]:
            return ["random_state differs"]
        if differ:
            return [f"splits differ, the first is fold {differ[0]} of repeat {repeat}"]
    return []


def _refuse(folder: Path, found: Sequence[str]) -> None:
    if found:
        raise StoreError(
            f"The store {folder} holds fits of something else: {'; '.join(found)}. Use another "
            "folder for this call, or delete this one to start again."
        )
