"""The base of the classifiers that are trained with privileged omics."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from numpy.typing import NDArray
from sklearn.utils._param_validation import HasMethods

from ..data.omics import join_omics
from ..nn.isolation import isolated
from ..training.random_generators import RandomGenerators
from .base import BaseMILClassifier
from .parameters import AT_LEAST_ONE, parameter
from .privileged import PrivilegedOmics, fit_omics, require_paired, seeded_clone, transform_omics
from .training_data import LabelledBags, TrainingBags
from .warm_start import INPUT_GENES


@dataclass(kw_only=True, eq=False, repr=False)
class PrivilegedMILClassifier(BaseMILClassifier):
    """Classifier of bags that is trained with privileged omics and predicts without it.

    Parameters
    ----------
    n_genes : int, default=768
        Number of genes that the default omics transformer keeps.
    omics_transformer : transformer or None, default=None
        Fitted on the omics of the training part. None takes log2(x + 1) where the data are counts,
        clips outliers as :class:`ExpressionClipper` does, keeps the `n_genes` genes with the
        largest Welch's t between classes, and standardises them.

    Attributes
    ----------
    genes_ : ndarray of shape (n_genes_used,)
        Names of the genes that were used; only after a fit with omics.
    omics_transformer_ : transformer
        The fitted omics transformer; only after a fit with omics.
    """

    n_genes: int = parameter(768, AT_LEAST_ONE)
    omics_transformer: Any = parameter(None, HasMethods(["fit", "transform"]), None)

    _uses_omics: ClassVar[bool] = True
    _validates_with_omics: ClassVar[bool] = False
    _fitted: ClassVar[tuple[str, ...]] = (*BaseMILClassifier._fitted, "genes_")
    _fitted_omics: ClassVar[tuple[str, ...]] = ("omics_transformer_", INPUT_GENES)

    @isolated()
    def _prepare_omics(
        self,
        omics: Any,
        cohort: LabelledBags,
        training: NDArray,
        validation: NDArray | None,
        generators: RandomGenerators,
        bags: TrainingBags,
    ) -> tuple[PrivilegedOmics | None, PrivilegedOmics | None]:
        """Join omics to the bags and fit its transformer on the training part."""
        earlier = self._earlier
        if omics is None:
            without = super()._prepare_omics(None, cohort, training, validation, generators, bags)
            return without if earlier is None else (earlier.without_omics(len(training)), None)
        table, rows = join_omics(omics, cohort.bags)
        known = cohort[training]
        if earlier is None:
            self.omics_transformer_ = self._new_omics_transformer(generators.seeds["soft_labels"])
            vectors = fit_omics(self.omics_transformer_, table, rows[training], known.labels)
            self._input_genes = table.genes
        else:
            table = earlier.table(table)
            require_paired(rows[training])
            vectors = transform_omics(self.omics_transformer_, table, rows[training])
        soft = self._make_soft_labels(table, rows[training], known, generators, bags)
        self.genes_ = vectors.genes
        for_training = replace(vectors, teacher=soft)
        if validation is None or not self._validates_with_omics:
            return for_training, None
        return for_training, transform_omics(self.omics_transformer_, table, rows[validation])

    def _new_omics_transformer(self, seed: int) -> Any:
        if self.omics_transformer is None:
            from ..preprocessing.omics import default_omics_transformer

            return default_omics_transformer(self.n_genes)
        return seeded_clone(self.omics_transformer, seed)
