"""A detector of patches of bare glass, which have near-identical features."""

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

_TYPICAL = 0.75  # quantile of distances: of tissue, even if three quarters are background


class BackgroundDetector(BaseEstimator):
    """Find patches of background by dense clusters in feature space.

    An encoder maps all patches of bare glass, of scanner fill or of black border to nearly the
    same vector, whereas no two patches of tissue are alike. A patch is background if its distance
    to the centre of such a dense cluster is at most `radius_`: `max_distance` times the typical
    distance (upper quartile) from a training patch to its `n_neighbors`-th nearest neighbour.

    The detector is made for :class:`InstanceFilter`, which keeps the patches that are predicted
    as 1.

    Parameters
    ----------
    max_distance : float, default=0.25
        Radius of the clusters as a fraction of the typical distance between patches. A smaller
        value drops fewer patches.
    n_neighbors : int, default=10
        Background with at most this many patches among those of `fit` is not found.

    Attributes
    ----------
    centers_ : ndarray of shape (n_centers, n_features)
        Mean of each dense cluster of background; no row where there is none.
    radius_ : float
        Largest distance of a background patch to the nearest centre.
    n_features_in_ : int
        Number of features of each patch.

    See Also
    --------
    InstanceFilter : Drops the patches from bags.
    TissueMaskFilter : Keeps the patches inside polygons of tissue.

    Notes
    -----
    Up to about three quarters of the patches of `fit` may be background; with more, distances
    within the background count as typical and nothing is found. Features should be those of the
    encoder: z-scores of each dimension inflate the noise of dimensions that hardly vary. Tissue
    whose patches overlap by nearly their whole width forms clusters as dense as background.

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

    _fitted: ClassVar[tuple[str, ...]] = ("centers_", "radius_")

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "max_distance": [Interval(Real, 0, 1, closed="neither")],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(self, max_distance: float = 0.25, n_neighbors: int = 10) -> None:
        self.max_distance = max_distance
        self.n_neighbors = n_neighbors

    def fit(self, X: Any, y: Any = None) -> Self:
        """Find the dense clusters among training patches.

        Parameters
        ----------
        X : array-like of shape (n_patches, n_features)
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If there are too few patches, or three quarters of them are copies of one another.
        """
        self._validate_params()
        X = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        k = min(self.n_neighbors, len(X) - 1)
        distances, _ = NearestNeighbors(n_neighbors=k).fit(X).kneighbors()
        nearest = distances[:, -1]
        self.radius_ = float(self.max_distance * np.quantile(nearest, _TYPICAL))
        if self.radius_ == 0:
            raise ValueError(
                f"Three quarters of {len(X)} patches have {k} exact copies, so background cannot "
                "be told from tissue. Check that the features were not extracted from blank images."
            )
        dense = np.flatnonzero(nearest <= self.radius_)
        densest_first = dense[np.argsort(nearest[dense], kind="stable")]
        self.centers_ = _cluster_centers(X[densest_first], self.radius_)
        return self

    def predict(self, X: Any) -> NDArray:
        """Predict which patches are tissue.

        Parameters
        ----------
        X : array-like of shape (n_patches, n_features)

        Returns
        -------
        int ndarray of shape (n_patches,)
            1 for tissue, -1 for background.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        if len(self.centers_) == 0:
            return np.ones(len(X), dtype=int)
        _, distance = pairwise_distances_argmin_min(X, self.centers_)
        return np.where(distance <= self.radius_, -1, 1)


def _cluster_centers(points: NDArray, radius: float) -> NDArray:
    """Mean of the points around the first point, then around the first of the rest, and so on."""
    centers = [points[:0]]
    while len(points):
        near = np.linalg.norm(points - points[0], axis=1) <= radius
        center = points[near].mean(axis=0, dtype=np.float64).astype(points.dtype)
        centers.append(center[None])
        left = np.linalg.norm(points - center, axis=1) > radius
        left[0] = False  # guarantees progress where rounding puts it just outside the radius
        points = points[left]
    return np.concatenate(centers)
