"""Patches as z-scores within their own patient or their own site."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar, Self

import pandas as pd
from sklearn.preprocessing import StandardScaler
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from ..data.sequence import BagSequence, as_bags, first_few
from ..data.tcga import tissue_source_site
from ..exceptions import BagError, CohortError
from .bag_transformer import BagTransformer, features_of_one_width, some_bags


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
