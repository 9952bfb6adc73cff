"""Attention and memory components on bare glass, a failure that the paper describes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..data.sequence import as_bags
from ..estimators.momkd import MoMKDClassifier
from ..exceptions import BagError
from ..preprocessing.background_detector import BackgroundDetector
from ..preprocessing.instance_filter import InstanceFilter
from .fitted import fitted_classifier, is_ensemble, momkd_output
from .inspected_bags import InspectedBag, inspected_bags
from .memory import component_table

REMEDY = "Fit again without such patches: make_pipeline(InstanceFilter(BackgroundDetector()), clf)."


@dataclass(frozen=True)
class BackgroundReport:
    """Attention and memory components on background; the result of :func:`background_report`.

    Attributes
    ----------
    slides : DataFrame, a row per bag
        ``bag_id, patient_id, n_patches``; ``background``, the fraction of patches that are
        background; ``attention``, the attention on them; and ``flagged``, whether that exceeds
        `threshold`.
    components : DataFrame or None
        A row per memory component: ``class, component``; ``n_patches``, the number of patches that
        match it best; ``background``, the fraction of these that are background; and ``flagged``,
        whether that exceeds `threshold`. None without a memory, and for an ensemble.
    threshold : float
        Fraction above which a slide or component is flagged.
    detector : estimator
        The fitted detector, which predicts 1 for tissue.

    Examples
    --------
    >>> import pandas as pd
    >>> from sk_momkd import BackgroundReport
    >>> slides = pd.DataFrame(
    ...     {"n_patches": [60], "background": [0.5], "attention": [0.8], "flagged": [True]}
    ... )
    >>> print(BackgroundReport(slides, components=None, threshold=0.5, detector=None))
    50.0% of 60 patches in 1 bags are background.
    1 bags have more than 50% of their attention on it.
    Fit again without such patches: make_pipeline(InstanceFilter(BackgroundDetector()), clf).
    """

    slides: pd.DataFrame
    components: pd.DataFrame | None
    threshold: float
    detector: Any = field(repr=False)

    @property
    def remedy(self) -> str | None:
        """Advice if anything is flagged, else None."""
        flagged = self.slides["flagged"].any()
        if self.components is not None:
            flagged |= self.components["flagged"].any()
        return REMEDY if flagged else None

    def __str__(self) -> str:
        slides, limit = self.slides, f"{self.threshold:.0%}"
        n_patches = slides["n_patches"].sum()
        share = (slides["background"] * slides["n_patches"]).sum() / n_patches
        lines = [
            f"{share:.1%} of {n_patches} patches in {len(slides)} bags are background.",
            f"{slides['flagged'].sum()} bags have more than {limit} of their attention on it.",
        ]
        if self.components is not None:
            names = self.components.index[self.components["flagged"]]
            named = f": {', '.join(names)}" if len(names) else ""
            lines.append(
                f"{len(names)} of {len(self.components)} components have more than {limit} "
                f"background among their patches{named}."
            )
        return "\n".join(lines + ([self.remedy] if self.remedy else []))


def background_report(
    clf: Any,
    bags: Any,
    *,
    detector: Any = None,
    threshold: float = 0.5,
    max_patches: int | None = 10_000,
    random_state: Any = 0,
) -> BackgroundReport:
    """Find slides with attention, and memory components with patches, on background.

    Background is found by a detector of patches, by default :class:`BackgroundDetector`, which
    finds dense clusters of near-identical features. A slide is flagged if more than `threshold` of
    its attention is on background, and a memory component if more than `threshold` of the patches
    that match it best are background.

    Parameters
    ----------
    clf : fitted classifier of this package, or a Pipeline that ends in one
    bags : bags in any form that `fit` accepts
        Bags with the features of the encoder. The detector gets them before the steps of the
        pipeline, the classifier after them.
    detector : estimator, optional
        Detector as in :class:`InstanceFilter`; it is cloned and fitted on patches of `bags`.
    threshold : float, default=0.5
        Fraction above which a slide or component is flagged.
    max_patches : int or None, default=10_000
        Number of patches that are drawn to fit the detector; None takes all.
    random_state : int, RandomState or None, default=0
        Controls which patches are drawn.

    Returns
    -------
    BackgroundReport
        Its ``components`` are None without a memory, and for an ensemble.

    Raises
    ------
    BagError
        If a bag is unusable, or a filter of the pipeline drops patches and coordinates do not
        identify the kept ones.
    TypeError
        If `clf` has no attention.
    ValueError
        If `threshold` is not between 0 and 1, or most patches are copies of each other.

    See Also
    --------
    InstanceFilter : Drops background before fitting.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import ABMILClassifier, background_report
    >>> random = np.random.default_rng(0)
    >>> glass = 3 + 0.01 * random.normal(size=(20, 8))
    >>> bags = [np.concatenate([random.normal(i % 2, size=(40, 8)), glass]) for i in range(10)]
    >>> clf = ABMILClassifier(dim=8, max_epochs=2, early_stopping=False, random_state=0)
    >>> report = background_report(clf.fit(bags, np.arange(10) % 2), bags)
    >>> report.slides["background"].round(3).unique()
    array([0.333])
    """
    if not 0 < threshold < 1:
        raise ValueError(f"threshold must be between 0 and 1, got {threshold!r}.")
    model = fitted_classifier(clf)
    given = as_bags(bags)
    finder = BackgroundDetector() if detector is None else detector
    fitted = InstanceFilter(finder, max_patches=max_patches, random_state=random_state).fit(given)
    has_memory = isinstance(model, MoMKDClassifier) and not is_ensemble(model)
    rows, found = _measure_background(
        inspected_bags(clf, given), fitted.detector_, has_memory=has_memory
    )
    slides = pd.DataFrame(rows)
    slides["flagged"] = slides["attention"] > threshold
    components = None
    if has_memory and found is not None:
        count, background = found.reshape(2, -1)
        components = component_table(model)
        components["n_patches"] = count.astype(int)
        components["background"] = np.divide(
            background, count, out=np.full(len(count), np.nan), where=count > 0
        )
        components["flagged"] = components["background"] > threshold
    return BackgroundReport(slides, components, threshold, fitted.detector_)


def _measure_background(
    bags: Iterable[InspectedBag], detector: Any, *, has_memory: bool
) -> tuple[list[dict[str, Any]], NDArray | None]:
    """Rows of the slides, and counts (2: all and background, K, m) of patches per component."""
    rows: list[dict[str, Any]] = []
    counts = None
    for inspected in bags:
        background = _is_background(inspected, detector)
        attention = inspected.output.attention.double().numpy().mean(axis=1)
        rows.append(
            {
                "bag_id": inspected.bag_id,
                "patient_id": inspected.bag.patient_id,
                "n_patches": len(background),
                "background": background.mean(),
                "attention": attention[background].sum(),
            }
        )
        if has_memory:
            both = _counts(momkd_output(inspected.output).affinity.numpy(), background)
            counts = both if counts is None else counts + both
    return rows, counts


def _counts(affinity: NDArray, background: NDArray) -> NDArray:
    n_classes, n_components = affinity.shape[1:]
    nearest = affinity.argmax(axis=2)  # (n, K)
    counts = np.zeros((2, n_classes, n_components))
    for k in range(n_classes):
        counts[0, k] = np.bincount(nearest[:, k], minlength=n_components)
        counts[1, k] = np.bincount(nearest[background, k], minlength=n_components)
    return counts


def _is_background(inspected: InspectedBag, detector: Any) -> NDArray:
    if (inspected.positions < 0).any():
        raise BagError(
            f"{inspected.bag.name}: a filter of the pipeline drops patches, and without "
            "coordinates it is unknown which. Pass the bags that the filter returns."
        )
    features = inspected.bag.load().features[inspected.positions]
    return np.asarray(detector.predict(features)) != 1
