"""Save fitted estimators, and load them: no code in a file runs, no patient is named in it."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..exceptions import ModelFileError
from .archive import (
    LARGEST_JSON,
    model_errors,
    parsed_json,
    read_parts,
    require_new_or_model,
    write_parts,
)
from .model_card import model_card
from .model_facts import summary, versions
from .on_device import move_to
from .own_objects import ModelReader, ModelWriter

_MODEL, _ARRAYS = "model.json", "model.safetensors"


def save_model(
    estimator: Any,
    path: str | PathLike,
    *,
    include_omics: bool = False,
    include_validation: bool = False,
    evaluation: Any = None,
    card: Any = None,
    overwrite: bool = False,
) -> Path:
    """Save an estimator in files that hold arrays and text alone.

    Parameters
    ----------
    estimator : estimator
        A classifier or transformer of this package, or a ``Pipeline``, ``CalibratedClassifierCV``,
        ``FixedThresholdClassifier`` or ``TunedThresholdClassifierCV`` of them and of steps of
        scikit-learn.
    path : path
        A name that ends in ``.zip`` is one file; any other is a folder, whose layout is that of
        model hubs.
    include_omics : bool, default=False
        Keep the omics branch and the fitted omics transformer, which
        :func:`gene_attributions` reads and prediction does not need.
    include_validation : bool, default=False
        Keep ``validation_``: ids, labels and predictions of patients. Without it no patient is
        named in the file, and `sites` of an `InstanceStandardizer` is left empty.
    evaluation : Evaluation or None, default=None
        Result of :func:`evaluate`, for the model card: patients, folds and intervals.
    card : dict or None, default=None
        Text for the model card: any of ``name``, ``cohort``, ``labels``, ``intended_use``,
        ``limits`` and ``license``.
    overwrite : bool, default=False
        Replace a model at this path.

    Returns
    -------
    Path

    Raises
    ------
    ModelFileError
        If the estimator holds something that such a file cannot, such as the callbacks of a user
        or fitted boosting; names it. Also if the suffix of the path is that of a pickle.
    FileExistsError
        If there is a model at the path already, or something that is none: this is never replaced.

    See Also
    --------
    load_model : Loads it.

    Notes
    -----
    Everything is written before anything is replaced. ``docs/models.md`` describes the files.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> import numpy as np
    >>> from sk_momkd import ABMILClassifier, load_model, save_model
    >>> y = np.arange(12) % 2
    >>> bags = np.random.default_rng(0).normal(y[:, None, None], size=(12, 5, 4))
    >>> clf = ABMILClassifier(dim=8, attention_dim=4, max_epochs=1, random_state=0).fit(bags, y)
    >>> path = save_model(clf, f"{mkdtemp()}/abmil.zip")
    >>> bool((load_model(path).predict_proba(bags) == clf.predict_proba(bags)).all())
    True
    """
    path = Path(path)
    require_new_or_model(path, overwrite=overwrite)
    writer = ModelWriter(include_omics=include_omics, include_validation=include_validation)
    model = writer.encode(estimator, type(estimator).__name__)
    if not isinstance(model, dict) or not model.keys() & {"object", "sklearn"}:
        raise ModelFileError(
            f"{type(estimator).__name__} is no estimator. Expected one of this package, or a "
            "Pipeline of them and of steps of scikit-learn."
        )
    facts = summary(estimator)
    document = {"summary": facts, "objects": writer.objects, "model": model}
    parts = {
        _MODEL: json.dumps(document, indent=1, allow_nan=False).encode(),
        _ARRAYS: _packed(writer.arrays),
        **writer.steps,
    }
    text = model_card(facts, card, evaluation)
    write_parts(path, parts, text, versions())
    return path


def require_savable(estimator: Any) -> None:
    """Raise, before it is fitted, if an estimator holds what `save_model` cannot save.

    Raises
    ------
    ModelFileError
    """
    writer = ModelWriter(include_omics=False, include_validation=False)
    writer.encode(estimator, type(estimator).__name__)


def load_model(path: str | PathLike, *, device: str | None = None) -> Any:
    """Load an estimator that `save_model` wrote.

    Parameters
    ----------
    path : path
        The folder or the zip file.
    device : str or None, default=None
        Device of all classifiers in it. None keeps the saved parameter `device`, or takes "auto",
        with a warning, where that device is absent.

    Returns
    -------
    estimator
        Its predictions are those of the saved one, bit for bit on the same device and versions.

    Raises
    ------
    ModelFileError
        If the file is missing, damaged, incomplete, of a newer format, or no model of `save_model`;
        says which part, what came and what was expected. A pickle is refused by its name, unread.

    See Also
    --------
    save_model : Saves it.

    Notes
    -----
    Nothing in the file is executed: it names classes of a fixed list, parameters that are checked
    as in `fit`, and arrays. SHA-256 sums find damage. They do not prove who made the file: whoever
    can change the file can change the sums.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from sk_momkd import BagPooling, load_model, save_model
    >>> load_model(save_model(BagPooling("mean+max"), f"{mkdtemp()}/pooling"))
    BagPooling(statistics='mean+max')
    """
    path = Path(path)
    parts, manifest = read_parts(path)
    needed = {_MODEL, _ARRAYS}
    if not needed <= parts.keys():
        raise ModelFileError(f"{path} is incomplete: it needs {_MODEL} and {_ARRAYS}.")
    content = parts.pop(_MODEL)
    if len(content) > LARGEST_JSON:
        raise ModelFileError(f"{path}: {_MODEL} has {len(content):,} bytes, more than any model.")
    document = parsed_json(content, f"{path}: {_MODEL}")
    arrays = _unpacked(parts.pop(_ARRAYS), path)
    try:
        with model_errors("it is damaged"):
            model = _decoded(document, arrays, parts)
    except ModelFileError as error:
        made_by = f"sk_momkd {manifest.get('sk_momkd')!s:.40}"
        raise ModelFileError(f"{path}, written by {made_by}, cannot be loaded: {error}") from error
    move_to(model, device)
    return model


def _decoded(document: Any, arrays: dict[str, NDArray], steps: dict[str, bytes]) -> Any:
    if not isinstance(document, dict) or not {"objects", "model"} <= document.keys():
        raise ModelFileError(f"{_MODEL} describes no model.")
    model_file = ModelReader(document["objects"], arrays, steps)
    model = model_file.decode(document["model"])
    unused = [*arrays, *steps]
    if unused:
        raise ModelFileError(f"{len(unused)} parts are not used, the first is {unused[0]!r:.100}.")
    if not hasattr(model, "get_params"):
        raise ModelFileError(f"it holds a {type(model).__name__}, expected an estimator.")
    return model


def _packed(arrays: dict[str, NDArray]) -> bytes:
    from safetensors.numpy import save

    return save(arrays)


def _unpacked(content: bytes, path: Path) -> dict[str, NDArray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        with model_errors(f"{path}: {_ARRAYS} is damaged"), np.errstate(all="ignore"):
            return load(content)
    except SafetensorError as error:
        raise ModelFileError(f"{path}: {_ARRAYS} is damaged: {error}.") from error
