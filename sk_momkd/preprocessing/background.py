"""Patches of bare glass, told by their near-identical features."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.metrics import pairwise_distances_argmin_min
from sklearn.neighbors import NearestNeighbors
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted, validate_data

_TYPICAL = 0.75  # quantile that is still tissue where up to three quarters are background


class BackgroundDetector(BaseEstimator):
    """Find patches that many others resemble far more closely than tissue resembles tissue.

    An encoder maps all patches of bare glass, of scanner fill or of black border to nearly the
    same vector, whereas no two patches of tissue are alike. A patch is background if it lies
    within a radius of such a crowd: the radius is `max_distance` times the typical distance (upper
    quartile) from a training patch to its `n_neighbors`-th nearest.

    Made for :class:`InstanceFilter`, which keeps the patches that are predicted as 1.

    Parameters
    ----------
    max_distance : float, default=0.25
        Radius of the background as a share of the typical distance between patches. Smaller is
        more cautious.
    n_neighbors : int, default=10
        Background with fewer patches than that among those of `fit` is not seen.

    Attributes
    ----------
    centers_ : ndarray of shape (n_centers, n_features)
        Mean of each crowd of background; no row where there is none.
    radius_ : float
    n_features_in_ : int

    See Also
    --------
    InstanceFilter : Drops the patches from bags.
    TissueMaskFilter : Keeps what lies inside polygons of tissue.

    Notes
    -----
    Up to about three quarters of the patches of `fit` may be background; beyond that, background
    is taken for what is typical and nothing is found. Features should be those of the encoder:
    z-scores of each dimension blow up the noise of dimensions that hardly vary. Tissue whose
    patches overlap by nearly their whole width is as dense as background.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import BackgroundDetector
    >>> random = np.random.default_rng(0)
    >>> glass = 3 + 0.01 * random.normal(size=(20, 8))
    >>> detector = BackgroundDetector().fit(np.concatenate([random.normal(size=(80, 8)), glass]))
    >>> detector.predict([[0.0] * 8, [3.0] * 8])
    array([ 1, -1])
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "max_distance": [Interval(Real, 0, 1, closed="neither")],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(self, max_distance: float = 0.25, n_neighbors: int = 10) -> None:
        self.max_distance = max_distance
        self.n_neighbors = n_neighbors

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn where background lies from patches of shape (n_patches, n_features).

        Raises
        ------
        ValueError
            If there are too few patches, or three quarters of them are copies of one another.
        """
        self._validate_params()
        X = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        k = min(self.n_neighbors, len(X) - 1)
        distances, _ = NearestNeighbors(n_neighbors=k).fit(X).kneighbors()
        crowding = distances[:, -1]
        self.radius_ = float(self.max_distance * np.quantile(crowding, _TYPICAL))
        if self.radius_ == 0:
            raise ValueError(
                f"Three quarters of {len(X)} patches have {k} exact copies, so background cannot "
                "be told from tissue. Were the features extracted from blank images?"
            )
        dense = np.flatnonzero(crowding <= self.radius_)
        self.centers_ = _crowds(X[dense[np.argsort(crowding[dense], kind="stable")]], self.radius_)
        return self

    def predict(self, X: Any) -> NDArray:
        """1 for tissue, -1 for background, of shape (n_patches,)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        if len(self.centers_) == 0:
            return np.ones(len(X), dtype=int)
        _, distance = pairwise_distances_argmin_min(X, self.centers_)
        return np.where(distance <= self.radius_, -1, 1)


def _crowds(points: NDArray, radius: float) -> NDArray:
    """Means of the points around the densest one, then around the densest of the rest, ..."""
    centers = [points[:0]]
    while len(points):
        near = np.linalg.norm(points - points[0], axis=1) <= radius
        center = points[near].mean(axis=0, dtype=np.float64).astype(points.dtype)
        centers.append(center[None])
        left = np.linalg.norm(points - center, axis=1) > radius
        left[0] = False  # rounding aside, it lies within the radius of the mean
        points = points[left]
    return np.concatenate(centers)
