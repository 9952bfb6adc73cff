"""Checkpoints of a fit: what must be equal for a fit to go on, and where its networks are kept."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..data.sequence import BagSequence
from ..data.value_digest import WITHOUT_EFFECT, digest, value_text
from ..exceptions import CheckpointError
from ..io.checkpoint_files import open_checkpoints
from ..training.batches import BagDataset
from ..versions import of_results
from .privileged import PrivilegedOmics
from .training_data import FitData, LabelledBags

PLACEHOLDER = "{fit}"
_NOT_OF_NETWORKS = {  # without effect on them, or covered by what it has an effect on
    *("prior", "decision_threshold", "pooled_share", "warm_start"),
    *("training__validation_split", "training__strict"),
}
_CALLBACKS = "training__callbacks"
_DIGEST = "digest "  # before that of a value which is not shown
_LENGTH = 16  # of the sums of parameters and of the name of a folder


@contextmanager
def with_checkpoints(
    folder: str | PathLike | None, data: FitData, identity: Mapping[str, Any], bags: BagSequence
) -> Iterator[FitData]:
    """Yield `data` with the checkpoints in `folder`, which stay locked meanwhile.

    `bags` are those of the fit, for messages. A fit that goes on uses as many threads of torch as
    it began with.

    Raises
    ------
    CheckpointError
        If the folder is of another fit, naming what differs; or in use, or damaged.
    """
    if folder is None:
        yield data
        return
    compared = {key: value for key, value in identity.items() if key != "versions"}
    name = digest(json.dumps(compared, sort_keys=True))[:_LENGTH]
    path = Path(str(folder).replace(PLACEHOLDER, name))
    n_threads = torch.get_num_threads()
    with open_checkpoints(path, {**identity, "threads": n_threads}) as (files, known):
        if known is not None:
            n_begun = known.pop("threads", n_threads)
            require_same_fit(known, identity, path, bags)
            torch.set_num_threads(n_begun)
        try:
            yield replace(data, checkpoints=files)
        finally:
            torch.set_num_threads(n_threads)


def fit_identity(
    clf: Any,
    data: FitData,
    cohort: LabelledBags,
    parts: tuple[NDArray, NDArray | None],
    privileged: tuple[PrivilegedOmics | None, PrivilegedOmics | None],
) -> dict[str, Any]:
    """Everything that the networks of a fit depend on; patients and values are in it as sums.

    Parameters
    ----------
    clf : classifier of bags
    data : FitData
    cohort : LabelledBags
    parts : (positions of the training part, those of the validation part or None)
    privileged : (omics of the training part, of the validation part)
    """
    ids = [f"{bag.bag_id!r} {bag.patient_id!r}" for bag in cohort.bags]
    soft = None if privileged[0] is None else privileged[0].teacher
    genes = None if privileged[0] is None else digest(*map(str, privileged[0].genes))
    return {
        "classifier": type(clf).__name__,
        "parameters": _parameters(clf, data.generators.seeds),
        "versions": of_results(),
        "bags": _contents(data, parts, len(cohort.bags)),
        "ids": digest(*ids),
        "y": digest(repr(clf.classes_.tolist()), cohort.labels),
        "sample_weight": None if cohort.weights is None else digest(cohort.weights),
        "validation part": None if parts[1] is None else digest(parts[1]),
        "omics": [None if part is None else _sum_of(part) for part in privileged],
        "genes": genes,
        "soft labels": None if soft is None else digest(soft),
        "fitted weights": None if data.start is None else _sum_of_weights(data.start),
    }


def require_same_fit(
    known: Mapping[str, Any], now: Mapping[str, Any], folder: Path, bags: BagSequence
) -> None:
    """Raise, naming what differs, unless a folder holds the checkpoints of this fit.

    Raises
    ------
    CheckpointError
        Its message has the ways to go on and to begin anew.
    """
    found = [
        text
        for key in [*now, *(key for key in known if key not in now)]
        if known.get(key) != now.get(key)
        for text in _difference(key, known.get(key), now.get(key), bags)
    ]
    if found:
        raise CheckpointError(
            f"{folder} holds the checkpoints of another fit: {'; '.join(found)}. Call fit as it "
            "was called there to go on, or choose another checkpoint_dir to begin anew. Where "
            f"several fits share it, as in a search or cross-validation, put {PLACEHOLDER} into "
            f"it, as in {str(folder / PLACEHOLDER)!r}: each fit then has a folder of its own."
        )


def _difference(key: str, known: Any, now: Any, bags: BagSequence) -> list[str]:
    if key in ("parameters", "versions"):
        known, now = known or {}, now or {}
        names = sorted(name for name in {*known, *now} if known.get(name) != now.get(name))
        return [_changed(name, known.get(name), now.get(name)) for name in names]
    if key == "classifier":
        return [_changed(key, known, now)]
    if key == "bags" and isinstance(known, list) and isinstance(now, list):
        if len(known) != len(now):
            return [f"{len(known)} bags there, {len(now)} here"]
        names = [bags.name(i) for i in range(len(now)) if known[i] != now[i]]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return [f"the content of {', '.join(names[:3])}{more}"]
    return {
        "ids": ["the ids of bags or patients"],
        "y": ["y"],
        "validation part": ["which bags form the validation part (groups or validation_split)"],
        "omics": ["omics, as the omics transformer gives it"],
        "soft labels": ["the soft labels of the omics teacher"],
        "fitted weights": ["the fitted weights that a warm start begins with"],
    }.get(key, [key])


def _changed(name: str, known: Any, now: Any) -> str:
    texts = [str(value) for value in (known, now)]
    if any(text.startswith(_DIGEST) for text in texts):
        return f"another {name}"
    return f"{name} is {known!r} there and {now!r} here"


def _parameters(clf: Any, seeds: Mapping[str, int]) -> dict[str, Any]:
    given = clf.get_params(deep=True) | {"device": clf.device_, "precision": clf.precision_}
    idle = _NOT_OF_NETWORKS.union(clf._without_effect)
    known = {
        name: _scalar(name, value)
        for name, value in sorted(given.items())
        if name not in idle and name.rpartition("__")[2] not in WITHOUT_EFFECT
    }
    if not isinstance(clf.random_state, int | np.integer):
        known["random_state"] = _DIGEST + digest(json.dumps(seeds))[:_LENGTH]
    return known


def _scalar(name: str, value: Any) -> Any:
    """A number or text as it is, anything else as a digest.

    Raises
    ------
    CheckpointError
        If a value cannot be known again in another process; names the parameter.
    """
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bool | int | str | None):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    try:
        text = value_text(list(map(_callback, value)) if name == _CALLBACKS else value)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{name}={value!r:.100} cannot be known again in another process, so that no fit could "
            f"go on: {error}. Change it, or fit without checkpoint_dir."
        ) from error
    return _DIGEST + digest(text)[:_LENGTH]


def _callback(given: Any) -> list[Any]:
    """Name, class and attributes of a callback of skorch, without its results."""
    name, callback = given if isinstance(given, tuple) else (None, given)
    return [name, type(callback), {k: v for k, v in vars(callback).items() if k[-1:] != "_"}]


def _contents(
    data: FitData, parts: tuple[NDArray, NDArray | None], n_bags: int
) -> list[str | None]:
    """Sum of each bag's features and graph; None for a bag that the fit does not read."""
    sums: list[str | None] = [None] * n_bags
    datasets: tuple[BagDataset | None, ...] = (data.training, data.validation)
    for positions, dataset in zip(parts, datasets, strict=True):
        if positions is not None and dataset is not None:
            for position, own in zip(positions.tolist(), dataset.content_sums, strict=True):
                sums[position] = own
    return sums


def _sum_of(omics: PrivilegedOmics) -> str:
    return digest(*([] if omics.vectors is None else [omics.vectors]), omics.paired)


def _sum_of_weights(start: list[Mapping[str, torch.Tensor]]) -> str:
    return digest(
        *(
            part
            for weights in start
            for name in sorted(weights)
            for part in (name, weights[name].numpy())
        )
    )
