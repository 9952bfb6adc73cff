"""z-scores of patches within their own patient or site (transductive)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar, Self

import pandas as pd
from sklearn.preprocessing import StandardScaler
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from ..data.sequence import BagSequence, as_bags
from ..exceptions import BagError, CohortError
from ..io.tcga import tissue_source_site
from ..messages import first_few
from .bag_transformer import BagTransformer, features_of_one_width, nonempty_bags


class InstanceStandardizer(BagTransformer):
    """Standardise patches with the mean and deviation of their own patient or site.

    **This is transductive.** Bags that are predicted are standardised with their *own* features,
    not with statistics of the training bags. No label is used, but a prediction then depends on
    the other bags in the same call: on the patient's other slides with ``by="patient"``, and on
    all bags of the same site with ``by="site"`` where the site was not in the training fold.
    Predict a patient's slides (a new site's bags) in one call, mention it where results are
    reported, and use ``InstanceTransformer(StandardScaler())`` where the prediction of a bag must
    not depend on other bags.

    Parameters
    ----------
    by : {"patient", "site"}, default="patient"
        ``"patient"`` pools the patches of all slides of a patient in the call and learns nothing in
        `fit`; a bag without patient id is a patient of its own. ``"site"`` learns the statistics
        of the sites of the training bags in `fit` and uses them from then on; only bags of other
        sites are standardised with the bags of their site in the call.
    sites : dict or Series, optional
        Site of each patient id, for ``by="site"``; by default the tissue-source site in TCGA
        barcodes.
    handle_unknown : {"own", "error"}, default="own"
        How to treat bags of sites that were not in `fit`: use their own statistics, or raise an
        error. With ``"error"``, ``by="site"`` is not transductive.

    Attributes
    ----------
    scalers_ : dict of StandardScaler
        Fitted scalers by site; empty for ``by="patient"``.
    n_features_in_ : int
        Number of features of each patch.

    See Also
    --------
    InstanceTransformer : With a `StandardScaler` it uses statistics of the training fold alone.

    Notes
    -----
    Scanner, stain and case mix shift the features of a whole site or slide, and standardising
    removes this shift. It removes *every* shift: all differences between the average patches of
    patients, and between sites with different class frequencies the class signal as well. Bags
    should have many patches; features that are constant within a group become 0.

    :meth:`transform` reads its bags once for their statistics, one after the other; they are read
    again when their features are needed.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import Bag, InstanceStandardizer
    >>> slides = [Bag([[0.0], [2.0]], patient_id="A"), Bag([[10.0], [30.0]], patient_id="B")]
    >>> [bag.features.ravel().tolist() for bag in InstanceStandardizer().fit_transform(slides)]
    [[-1.0, 1.0], [-1.0, 1.0]]
    """

    _fitted: ClassVar[tuple[str, ...]] = ("scalers_",)
    _parameters_of_patients: ClassVar[tuple[str, ...]] = ("sites",)  # their keys are ids

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
        """Learn the statistics of the sites in `X`; with ``by="patient"``, check the ids only.

        Parameters
        ----------
        X : bags in any form that `fit` of a classifier accepts
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        BagError
            If a bag is unusable, bags differ in their number of features, or a site has a single
            patch.
        CohortError
            If the site of a patient is unknown; names the patient.
        """
        self._validate_params()
        bags = nonempty_bags(X)
        keys = self._keys(bags)
        self.scalers_ = _scalers(bags, keys) if self.by == "site" else {}
        self.n_features_in_ = bags.load(0).features.shape[1]
        return self

    def transform(self, X: Any) -> BagSequence:
        """Return bags whose features are z-scores when they are read.

        Parameters
        ----------
        X : bags in any form that `fit` accepts

        Returns
        -------
        BagSequence

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
                f"{first_few(dict.fromkeys(keys[i] for i in new))}. Pass handle_unknown='own' "
                "to standardise them with their own features."
            )
        scalers = self.scalers_ | _scalers(bags[new], [keys[i] for i in new])
        return bags.replace(
            bag.map(scalers[key].transform) for bag, key in zip(bags, keys, strict=True)
        )

    def _keys(self, bags: BagSequence) -> Sequence[Hashable]:
        """Key of the group that each bag is standardised with: its patient or its site."""
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
            raise CohortError(f"{len(twice)} patients occur twice in sites: {first_few(twice)}.")
        unknown = [patient for patient in dict.fromkeys(patients) if patient not in sites]
        if unknown:
            raise CohortError(f"{len(unknown)} patients have no site: {first_few(unknown)}.")
        return sites[patients].tolist()


def _scalers(bags: BagSequence, keys: Sequence[Hashable]) -> dict[Hashable, StandardScaler]:
    """Fit a scaler per key, bag by bag."""
    scalers: dict[Hashable, StandardScaler] = {}
    for key, features in zip(keys, features_of_one_width(bags), strict=True):
        scalers.setdefault(key, StandardScaler()).partial_fit(features)
    for i, key in enumerate(keys):
        if scalers[key].n_samples_seen_ < 2:
            raise BagError(
                f"{bags.name(i)} is the only bag of {key!r} and has a single patch, whose z-scores "
                "would all be zero. Leave it out, or standardise over more bags."
            )
    return scalers
