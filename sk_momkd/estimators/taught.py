"""Classifiers that omics may teach while they train."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from numpy.typing import NDArray

from ..data.omics import OmicsTable, join_omics
from ..data.patients import patients_and_groups
from ..data.sequence import BagSequence
from .base import BaseMILClassifier
from .omics_transformer import default_omics_transformer
from .parameters import OMICS, TRAINING
from .privileged import PrivilegedOmics, fit_omics, seeded_clone, transform_omics


@dataclass(kw_only=True, eq=False, repr=False)
class TaughtClassifier(BaseMILClassifier):
    """Base of classifiers whose `fit` takes privileged omics; prediction never does."""

    n_genes: int = 768
    omics_transformer: Any = None

    _parameter_constraints: ClassVar[dict[str, Any]] = TRAINING | OMICS
    _keeps_omics_branch: ClassVar[bool] = False
    _validates_with_omics: ClassVar[bool] = False

    def fit(self, X: Any, y: Any, omics: Any = None, groups: Any = None) -> Self:
        """Train on bags, their labels and, where patients have it, their omics.

        Parameters
        ----------
        X : BagSequence, list of Bag, of arrays, of (features, coords) or of PyG ``Data``, array \
of shape (n_bags, n_instances, n_features) or (n_bags, n_features)
        y : array-like of shape (n_bags,)
            Class labels of any kind.
        omics : AnnData, DataFrame with ids as index, OmicsTable, array in bag order, or None
            Joined to the bags by patient id and then by bag id, never by position (an array has
            no ids and must have a row per bag). Bags without omics train the histology side
            alone; ``None`` trains without omics.
        groups : array-like of shape (n_bags,), optional
            The inner validation part takes whole groups (e.g. sites); by default patients.

        Returns
        -------
        self

        Raises
        ------
        BagError, OmicsError, LeakageError, ValueError
            Naming the bag, patient or gene, what came, what was expected and how to mend it.
        """
        self._fit(X, y, groups, omics)
        if not self._keeps_omics_branch:
            for module in self.modules_:
                module.omics_branch = None  # type: ignore[assignment]
        return self

    def _fit_omics(
        self,
        omics: Any,
        bags: BagSequence,
        labels: NDArray,
        parts: tuple[NDArray, NDArray | None],
        *,
        groups: Any,
        seed: int,
    ) -> tuple[PrivilegedOmics | None, PrivilegedOmics | None]:
        self.n_paired_ = 0
        if omics is None:
            return None, None
        training, validation = parts
        table, rows = join_omics(omics, bags)
        self.omics_transformer_ = (
            default_omics_transformer(self.n_genes)
            if self.omics_transformer is None
            else seeded_clone(self.omics_transformer, seed)
        )
        taught = fit_omics(self.omics_transformer_, table, rows[training], labels[training])
        _, group_of_bag = patients_and_groups(bags, bags, groups)
        known = (rows[training], labels[training], group_of_bag[training])
        taught = replace(taught, teacher=self._soft_labels(table, *known, seed=seed))
        self.genes_ = taught.genes
        self.n_paired_ = int(taught.paired.sum())
        if validation is None or not self._validates_with_omics:
            return taught, None
        return taught, transform_omics(self.omics_transformer_, table, rows[validation])

    def _soft_labels(
        self, table: OmicsTable, rows: NDArray, labels: NDArray, groups: NDArray, *, seed: int
    ) -> NDArray | None:
        """Soft labels of the training bags, for a method that learns from them."""
        return None
