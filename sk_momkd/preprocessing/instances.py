"""Steps on the patches of bags: transform, filter, standardise within patient or site."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import partial
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin, clone, is_classifier
from sklearn.frozen import FrozenEstimator
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from ..data.arrays import BagArrays
from ..data.sequence import BagSequence, as_bags
from ..exceptions import BagError, CohortError
from ..io.tcga import tissue_source_site
from ..messages import first_few


class BagTransformer(TransformerMixin, BaseEstimator):
    """Transformer of bags that stay bags: ids are kept, files stay files."""

    @abstractmethod
    def transform(self, X: Any) -> BagSequence:
        """Bags that are changed when they are read."""

    def set_output(self, *, transform: str | None = None) -> Self:
        """Bags stay bags, whatever container the rest of a pipeline puts out."""
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags


def some_bags(X: Any) -> BagSequence:
    """`X` as bags, of which there must be one or more."""
    bags = as_bags(X)
    if len(bags) == 0:
        raise BagError("X holds no bags.")
    return bags


def features_of_one_width(bags: BagSequence) -> Iterator[NDArray]:
    """Features of one bag after the other.

    Raises
    ------
    BagError
        Naming the first bag of another width than those before it.
    """
    width = None
    for i in range(len(bags)):
        features = bags.load(i).features
        width = width or features.shape[1]
        if features.shape[1] != width:
            raise BagError(
                f"{bags.name(i)} has {features.shape[1]} features, the bags before it have "
                f"{width}. Extract all slides with one encoder."
            )
        yield features


_CHUNK = 50_000


class InstanceTransformer(BagTransformer):
    """Fit a transformer on the stacked patches of the training bags, apply it to each bag.

    Inside a pipeline it is fitted in the training fold alone. Bags are transformed when they are
    read, so a cohort in files stays in files.

    Parameters
    ----------
    transformer : scikit-learn transformer
        Cloned, then fitted on an array of shape (n_instances_of_all_bags, n_features), and on
        the label of each patch's bag where `y` is given. One with ``partial_fit`` is fitted on
        some 50,000 patches at a time and never holds the cohort in memory.

    Attributes
    ----------
    transformer_ : the fitted clone
    n_features_in_ : int

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sk_momkd import InstanceTransformer
    >>> bags = [np.array([[0.0], [2.0]]), np.array([[4.0]])]
    >>> InstanceTransformer(StandardScaler()).fit_transform(bags)[1].features.round(3)
    array([[1.225]], dtype=float32)
    """

    def __init__(self, transformer: Any) -> None:
        self.transformer = transformer

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit on the patches of all bags in `X`.

        Raises
        ------
        BagError
            If a bag is unusable or the bags differ in width.
        """
        bags = some_bags(X)
        self.transformer_ = clone(self.transformer)
        stepwise = hasattr(self.transformer_, "partial_fit")
        for features, labels in _chunks(bags, y, _CHUNK if stepwise else None):
            fit = self.transformer_.partial_fit if stepwise else self.transformer_.fit
            fit(features, labels)
            self.n_features_in_ = features.shape[1]
        return self

    def transform(self, X: Any) -> BagSequence:
        """`X` as a BagSequence whose features pass through the fitted transformer when read."""
        check_is_fitted(self)
        return as_bags(X).map(self._transform_patches)

    def _transform_patches(self, features: NDArray) -> NDArray:
        values = self.transformer_.transform(features)
        return np.asarray(values.toarray() if sparse.issparse(values) else values)


def _chunks(
    bags: BagSequence, y: Any, size: int | None
) -> Iterator[tuple[NDArray, NDArray | None]]:
    """Patches of consecutive bags with their bags' labels, `size` or more at a time.

    A chunk is held back until the next is full, so that no small remainder stands alone.
    """
    labels = None if y is None else np.asarray(y)
    ready: list[NDArray] = []
    growing: list[NDArray] = []
    start = 0
    for features in features_of_one_width(bags):
        growing.append(features)
        if size is None or sum(map(len, growing)) < size:
            continue
        if ready:
            yield _stacked(ready, labels, start)
            start += len(ready)
        ready, growing = growing, []
    yield _stacked(ready + growing, labels, start)


def _stacked(
    blocks: list[NDArray], labels: NDArray | None, start: int
) -> tuple[NDArray, NDArray | None]:
    sizes = [len(block) for block in blocks]
    repeated = None if labels is None else np.repeat(labels[start : start + len(blocks)], sizes)
    return np.concatenate(blocks), repeated


class InstanceFilter(BagTransformer):
    """Keep the patches that a detector predicts as 1; fitted on patches of the training bags.

    Inside a pipeline the detector is fitted in the training fold alone. Patches are dropped when a
    bag is read, so a cohort in files stays in files: features, coordinates and ``slide_index``
    are cut, and of a stored graph the edges between kept patches stay. A graph of neighbours in
    space is built on what is left. Ids and labels stay as they are, so omics is joined as before.

    Parameters
    ----------
    detector : estimator with ``fit`` and ``predict``
        Predicts 1 for patches to keep and -1 or 0 for the others: `BackgroundDetector`,
        scikit-learn's `IsolationForest` and the like, or a classifier of patches that was fitted
        before, as ``FrozenEstimator(classifier)``. It is cloned, and never sees labels of bags.
    max_patches : int or None, default=10_000
        So many patches are drawn for the fit, equally many of each bag (all of a small one); None
        for all, which holds the whole cohort in memory.
    random_state : int, RandomState or None, default=None
        Draws the patches.

    Attributes
    ----------
    detector_ : the fitted clone
    dropped_fraction_ : float
        Share of the patches of the fit that the detector drops.
    n_features_in_ : int

    See Also
    --------
    BackgroundDetector : Finds bare glass by its near-identical features.
    TissueMaskFilter : Keeps what lies inside polygons of tissue.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import BackgroundDetector, Bag, InstanceFilter
    >>> random = np.random.default_rng(0)
    >>> tissue, glass = random.normal(size=(80, 8)), 3 + 0.01 * random.normal(size=(20, 8))
    >>> bags = [Bag(np.concatenate([tissue, glass]), bag_id="S1")]
    >>> kept = InstanceFilter(BackgroundDetector()).fit(bags)
    >>> kept.transform(bags)[0].n_instances
    80
    >>> kept.counts(bags)
        n_instances  n_kept
    S1          100      80
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "detector": [HasMethods(["fit", "predict"])],
        "max_patches": [Interval(Integral, 1, None, closed="left"), None],
        "random_state": ["random_state"],
    }

    def __init__(
        self, detector: Any, *, max_patches: int | None = 10_000, random_state: Any = None
    ) -> None:
        self.detector = detector
        self.max_patches = max_patches
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit the detector on patches of the bags in `X`; `y` is not used.

        Raises
        ------
        BagError
            If a bag is unusable or the bags differ in width.
        TypeError
            If the detector is a classifier that is not frozen.
        """
        self._validate_params()
        if is_classifier(self.detector) and not isinstance(self.detector, FrozenEstimator):
            raise TypeError(
                f"{type(self.detector).__name__} learns from labels of patches, but bags have one "
                "label each. Fit it on labelled patches first and pass FrozenEstimator(classifier)."
            )
        patches = self._draw(some_bags(X))
        self.n_features_in_ = patches.shape[1]
        self.detector_ = clone(self.detector).fit(patches, None)
        self.dropped_fraction_ = float(1 - _is_kept(self.detector_, patches).mean())
        return self

    def transform(self, X: Any) -> BagSequence:
        """`X` without the dropped patches; a bag that loses all raises when it is read."""
        check_is_fitted(self)
        return as_bags(X).filter(partial(_keep, self.detector_))

    def counts(self, X: Any) -> pd.DataFrame:
        """Patches of each bag and how many are kept: ``n_instances``, ``n_kept``; reads the bags.

        A bag that loses all its patches, for which reading raises, has 0 here.
        """
        check_is_fitted(self)
        bags = as_bags(X)
        masks = [_keep(self.detector_, bags.load(i)) for i in range(len(bags))]
        return pd.DataFrame(
            {
                "n_instances": [len(mask) for mask in masks],
                "n_kept": [mask.sum() for mask in masks],
            },
            index=[bags.name(i) if b.bag_id is None else b.bag_id for i, b in enumerate(bags)],
        )

    def _draw(self, bags: BagSequence) -> NDArray:
        random = check_random_state(self.random_state)
        drawn = []
        for features in features_of_one_width(bags):
            share = len(features)
            if self.max_patches is not None:
                share = min(share, max(1, self.max_patches // len(bags)))
            rows = np.sort(random.choice(len(features), share, replace=False))
            drawn.append(features[rows])
        return np.concatenate(drawn)


def _keep(detector: Any, bag: BagArrays) -> NDArray:
    return _is_kept(detector, bag.features)


def _is_kept(detector: Any, features: NDArray) -> NDArray:
    predicted = np.asarray(detector.predict(features))
    unknown = [value for value in predicted.tolist() if value not in (-1, 0, 1)]
    if unknown:
        raise ValueError(
            f"{type(detector).__name__} predicts {unknown[0]!r}; expected 1 for patches to "
            "keep and -1 or 0 for the others."
        )
    return predicted == 1


class InstanceStandardizer(BagTransformer):
    """Z-score patches with the mean and deviation of their own patient, or of their own site.

    **This is transductive.** Bags that are predicted are standardised with their *own* features,
    not with what was learned in training. No label is used, but a prediction then depends on
    which bags stand together in the call: on the patient's other slides with ``by="patient"``, on
    all bags of the same site with ``by="site"`` where the site was not in the training fold.
    Predict a patient's slides (a new site's bags) in one call, say so where results are reported,
    and use ``InstanceTransformer(StandardScaler())`` where a bag shall be judged by itself.

    Parameters
    ----------
    by : {"patient", "site"}, default="patient"
        ``"patient"``: the patches of all slides of a patient in the call are pooled; a bag without
        patient id stands for itself. Nothing is learned in `fit`. ``"site"``: the statistics of
        the sites of the training bags are learned in `fit` and used from then on; only bags of
        other sites are standardised by what is known of their site from the call.
    sites : dict or Series, optional
        Site of each patient id, for ``by="site"``; by default the tissue-source site in TCGA
        barcodes.
    handle_unknown : {"own", "error"}, default="own"
        What becomes of bags of sites that were not in `fit`: their own statistics, or an error,
        which leaves nothing transductive for ``by="site"``.

    Attributes
    ----------
    scalers_ : dict of StandardScaler
        By site; empty for ``by="patient"``.
    n_features_in_ : int

    See Also
    --------
    InstanceTransformer : With a `StandardScaler`, z-scores learned on the training fold alone.

    Notes
    -----
    Scanner, stain and case mix shift features of a whole site or slide, and this takes the shift
    away. It takes *all* shift away: whatever sets one patient's average patch apart from
    another's, and between sites with different shares of a class the class as well. It asks for
    bags of many patches; features that are constant within a group become 0.

    Bags given to :meth:`transform` are read once for their statistics, one after the other, and
    again when their features are needed.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import Bag, InstanceStandardizer
    >>> slides = [Bag([[0.0], [2.0]], patient_id="A"), Bag([[10.0], [30.0]], patient_id="B")]
    >>> [bag.features.ravel().tolist() for bag in InstanceStandardizer().fit_transform(slides)]
    [[-1.0, 1.0], [-1.0, 1.0]]
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "by": [StrOptions({"patient", "site"})],
        "sites": [Mapping, pd.Series, None],
        "handle_unknown": [StrOptions({"own", "error"})],
    }

    def __init__(
        self, by: str = "patient", *, sites: Any = None, handle_unknown: str = "own"
    ) -> None:
        self.by = by
        self.sites = sites
        self.handle_unknown = handle_unknown

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn the statistics of the sites in `X`; for patients, check the bags' ids only.

        Raises
        ------
        BagError
            If a bag is unusable, the bags differ in width, or a site has a single patch.
        CohortError
            If the site of a patient is unknown; names the patient.
        """
        self._validate_params()
        bags = some_bags(X)
        keys = self._keys(bags)
        self.scalers_ = _scalers(bags, keys) if self.by == "site" else {}
        self.n_features_in_ = bags.load(0).features.shape[1]
        return self

    def transform(self, X: Any) -> BagSequence:
        """`X` as a BagSequence whose features are z-scores when they are read.

        Raises
        ------
        CohortError
            If the site of a patient is unknown, or was not in `fit` and
            ``handle_unknown="error"``; names it.
        BagError
            If a bag is unusable, or a patient or site has a single patch.
        """
        check_is_fitted(self)
        bags = as_bags(X)
        keys = self._keys(bags)
        new = [i for i, key in enumerate(keys) if key not in self.scalers_]
        if new and self.by == "site" and self.handle_unknown == "error":
            raise CohortError(
                f"{len(new)} bags are of sites that were not in fit: "
                f"{first_few(dict.fromkeys(keys[i] for i in new))}. handle_unknown='own' "
                "standardises them by their own features."
            )
        scalers = self.scalers_ | _scalers(bags[new], [keys[i] for i in new])
        return bags.replace(
            bag.map(scalers[key].transform) for bag, key in zip(bags, keys, strict=True)
        )

    def _keys(self, bags: BagSequence) -> Sequence[Hashable]:
        """What each bag is standardised with: its patient or its site."""
        patients = bags.patient_ids.tolist()
        if self.by == "patient":
            if self.sites is not None:
                raise ValueError("sites are given, but by='patient'; use by='site'.")
            return [i if patient is None else patient for i, patient in enumerate(patients)]
        if None in patients:
            i = patients.index(None)
            raise CohortError(f"{bags.name(i)} has no patient id, so its site is unknown.")
        if self.sites is None:
            return tissue_source_site(patients).tolist()
        sites = pd.Series(self.sites, dtype=object).dropna()
        if not sites.index.is_unique:
            twice = sites.index[sites.index.duplicated()].unique()
            raise CohortError(f"{len(twice)} patients stand twice in sites: {first_few(twice)}.")
        unknown = [patient for patient in dict.fromkeys(patients) if patient not in sites]
        if unknown:
            raise CohortError(f"{len(unknown)} patients have no site: {first_few(unknown)}.")
        return sites[patients].tolist()


def _scalers(bags: BagSequence, keys: Sequence[Hashable]) -> dict[Hashable, StandardScaler]:
    """A scaler per key, fitted bag by bag."""
    scalers: dict[Hashable, StandardScaler] = {}
    for key, features in zip(keys, features_of_one_width(bags), strict=True):
        scalers.setdefault(key, StandardScaler()).partial_fit(features)
    for i, key in enumerate(keys):
        if scalers[key].n_samples_seen_ < 2:
            raise BagError(
                f"{bags.name(i)} is all there is of {key!r} and has a single patch, which would "
                "become zeros. Leave it out, or standardise over more bags."
            )
    return scalers
