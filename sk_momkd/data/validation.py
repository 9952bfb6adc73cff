"""Checks of bags and labels that an estimator is given."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils import assert_all_finite
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, validate_data

from ..bag_warnings import BagWarnings
from .bag import Bag
from .bag_order import in_bag_order, labels_in_bag_order
from .positive_class import positive_class
from .sequence import (
    BagSequence,
    as_bags,
    is_bag_list,
    patients_in_index,
    refuse_other_containers,
    refuse_other_elements,
)
from .stated import agreed, pinned, require_as_in_training
from .training_patients import HashedIds


def is_table(X: Any) -> bool:
    """Whether `X` is something else than bags, which scikit-learn validates."""
    if isinstance(X, BagSequence | Bag) or is_bag_list(X) or hasattr(X, "edge_index"):
        return False
    return sparse.issparse(X) or getattr(X, "ndim", None) != 3


def check_bags(estimator: BaseEstimator, X: Any, *, reset: bool) -> BagSequence:
    """Return `X` as bags; scikit-learn validates a table first.

    With `reset` the estimator gets its ``n_features_in_`` from the first bag, what the files state
    of their features as ``bag_info_`` (bags that state different things raise), and hashes of the
    ids as ``training_patients_``. The files must then stay as they are. Without, bags that state
    something else than in `fit` raise. The number of features of later bags is checked when they
    are read.
    """
    if isinstance(X, list | tuple) and len(X) == 0:
        raise ValueError("X holds no bags.")
    refuse_other_containers(X)
    refuse_other_elements(X)
    if is_table(X):
        rows = validate_data(estimator, X, reset=reset, dtype=np.float32)
        table = as_bags(rows, patient_ids=patients_in_index(X))
        if reset:
            estimator.training_patients_ = HashedIds.of(table)
        return table
    bags = as_bags(X)
    if len(bags) == 0:
        raise ValueError("X holds no bags.")
    if not reset:
        trained_on = getattr(estimator, "bag_info_", {})
        for i, bag in enumerate(bags):
            require_as_in_training(bag, bags.name(i), trained_on)
        return bags
    bags = bags.replace(pinned(bags))
    with BagWarnings().held():  # it is read again with the others, which says what is found of it
        estimator.n_features_in_ = bags.load(0).features.shape[1]
    estimator.bag_info_ = agreed(bags)
    estimator.training_patients_ = HashedIds.of(bags)
    return bags


class EncodedLabels(NamedTuple):
    """Labels as class numbers of the network.

    Attributes
    ----------
    classes : ndarray of shape (n_classes,)
        Sorted labels.
    pos_label : label or None
        Of two classes the positive one.
    numbers : int ndarray of shape (n_bags,)
        Class number of each bag, see :func:`network_order`.
    """

    classes: NDArray
    pos_label: Any
    numbers: NDArray


def network_order(classes: NDArray, pos_label: Any) -> NDArray:
    """Positions in the sorted `classes` by class number of the network.

    Of two classes, the positive one is number 1 inside a network, wherever it sorts.

    Examples
    --------
    >>> import numpy as np
    >>> network_order(np.array(["HER2+", "HER2-"]), "HER2+")
    array([1, 0])
    """
    order = np.arange(len(classes))
    return order[::-1].copy() if len(classes) == 2 and classes[0] == pos_label else order


def check_sample_weight(sample_weight: Any, bags: BagSequence) -> NDArray | None:
    """Weights of bags in their order as float64; None stays None.

    Raises
    ------
    ValueError
        If there is not one number per bag, or one is negative or not finite, naming the bag; or if
        all are 0.
    """
    if sample_weight is None:
        return None
    values = in_bag_order(sample_weight, bags, "sample_weight")
    try:
        weights = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"sample_weight must be numbers: {error}.") from error
    if weights.shape != (len(bags),):
        raise ValueError(
            f"sample_weight has the shape {weights.shape}, expected one number for each of the "
            f"{len(bags)} bags: {(len(bags),)}."
        )
    wrong = np.flatnonzero(~((weights >= 0) & np.isfinite(weights)))
    if len(wrong):
        raise ValueError(
            f"{len(wrong)} values of sample_weight are negative or not finite, the first "
            f"({weights[wrong[0]]:g}) for {bags.name(int(wrong[0]))}. Use 0 for a bag that is to "
            "be left out."
        )
    if not weights.any():
        raise ValueError("All values of sample_weight are zero, so no bag is left.")
    return weights


def encode_labels(
    estimator: BaseEstimator, y: Any, bags: BagSequence, *, pos_label: Any = None
) -> EncodedLabels:
    """Encode `y`; the positive class is `pos_label`, by default the estimator's.

    Raises
    ------
    ValueError
        If labels are absent, missing (naming the bag), continuous, or of one class, or if
        `pos_label` is none of two classes.
    """
    name = type(estimator).__name__
    if y is None:
        raise ValueError(f"{name} requires y to be passed, but the target y is None.")
    y = labels_in_bag_order(y, bags)
    check_consistent_length(bags, y)
    missing = np.flatnonzero(pd.isna(y))
    if len(missing):
        raise ValueError(
            f"{len(missing)} labels are missing (y contains NaN or None), the first for "
            f"{bags.name(missing[0])}. Leave these bags out."
        )
    if y.dtype.kind == "f":
        assert_all_finite(y, input_name="y")
    check_classification_targets(y)
    from sklearn.preprocessing import LabelEncoder  # imports a progress bar and more

    encoder = LabelEncoder().fit(y)
    classes = encoder.classes_
    if len(classes) < 2:
        raise ValueError(
            f"{name} needs at least two classes in y; got one class, {classes.tolist()[0]!r}."
        )
    named = estimator.pos_label if pos_label is None else pos_label
    pos_label = positive_class(classes.tolist(), named)
    number = np.argsort(network_order(classes, pos_label))
    return EncodedLabels(classes, pos_label, number[encoder.transform(y)])
