"""Soft labels of an omics teacher in the fit of any classifier of bags."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..data.omics import OmicsTable, join_omics
from ..exceptions import BagError
from ..nn.isolation import isolated
from ..preprocessing.expression_outliers import check_expression
from ..training.batches import BagDataset
from ..training.config import Objective
from ..training.random_generators import RandomGenerators
from .bag_weights import draw_shares, loss_weights
from .pooled_head import PooledHead
from .privileged import PrivilegedOmics
from .training_data import LabelledBags, TrainingBags

if TYPE_CHECKING:
    from .cross_fitted_teacher import CrossFittedTeacher
    from .teacher_evidence import Evidence
    from .teacher_weight import TeacherChoice


class SoftLabelsMixin:
    """What `lambda_teacher`, `teacher` and `pooled_share` do in `fit`."""

    lambda_teacher: Any
    teacher: Any
    sampler: str
    pooled_share: float
    _pooled_head: Any
    class_weight: Any
    _network_classes: Any
    _uses_omics: ClassVar[bool]
    lambda_teacher_: float
    n_paired_: int
    teacher_report_: pd.DataFrame
    teacher_verdict_: str

    _teacher_temperature: ClassVar[float] = 0.5

    @property
    def _takes_omics(self) -> bool:
        """Whether `fit` uses omics with these parameters."""
        return self._uses_omics or self.lambda_teacher != 0

    def _prepare_omics(
        self,
        omics: Any,
        cohort: LabelledBags,
        training: NDArray,
        validation: NDArray | None,
        generators: RandomGenerators,
        bags: TrainingBags,
    ) -> tuple[PrivilegedOmics | None, PrivilegedOmics | None]:
        """What omics gives to the training and to the validation part: here soft labels alone."""
        if omics is None:
            from .teacher_weight import TeacherChoice

            self._store_choice(TeacherChoice.without(training < 0, "No omics was given."))
            return None, None
        if not self._takes_omics:
            raise TypeError(
                f"{type(self).__name__} with lambda_teacher=0 learns from histology alone, but "
                'omics was given. Leave it out, set lambda_teacher="auto" to learn from the soft '
                "labels of an omics teacher, or use a classifier that is trained with privileged "
                "omics, e.g. MoMKDClassifier."
            )
        table, rows = join_omics(omics, cohort.bags)
        check_expression(table.rows(np.unique(rows[training][rows[training] >= 0])))
        soft = self._make_soft_labels(table, rows[training], cohort[training], generators, bags)
        return PrivilegedOmics(None, rows[training] >= 0, np.array([], object), soft), None

    @isolated()
    def _make_soft_labels(
        self,
        table: OmicsTable,
        rows: NDArray,
        known: LabelledBags,
        generators: RandomGenerators,
        bags: TrainingBags,
    ) -> NDArray | None:
        """Soft labels of the training bags by an omics teacher; None where it has no weight."""
        from .pooled_student import pooled_evidence  # scikit-learn's models, for training alone
        from .teacher_weight import Samples, learn_from

        def evidence_of(samples: Samples, teacher: CrossFittedTeacher) -> Evidence:
            pooled = replace(samples, X=bags.pooled())
            return pooled_evidence(pooled, teacher, self._teacher_temperature)

        shares = self._shares_in_loss(known)
        choice = learn_from(
            self.teacher,
            table,
            rows,
            Samples(known.bags, known.labels, self._network_classes, known.bags.groups(), shares),
            known.groups,
            evidence_of=evidence_of,
            weight=self.lambda_teacher,
            temperature=self._teacher_temperature,
            random_state=generators.seeds["soft_labels"],
        )
        self._store_choice(choice)
        return choice.soft

    def _shares_in_loss(self, known: LabelledBags) -> NDArray:
        """How much each bag counts in training: how often it is drawn, times its weight."""
        of_loss = loss_weights(
            known.labels,
            known.weights,
            self.class_weight,
            sampler=self.sampler,
            classes=self._network_classes,
        )
        shares = draw_shares(known.labels, self.sampler)
        return shares if of_loss is None else shares * of_loss.bags

    def _fit_pooled_head(self, known: LabelledBags, data: BagDataset) -> PooledHead | None:
        """The regression on pooled bags, on the labels that the network learns, too."""
        if self.pooled_share == 0:
            return None
        if (earlier := self._pooled_head) is not None:  # of the fit that a warm start goes on from
            return replace(earlier, share=float(self.pooled_share))
        from .soft_targets import mixed_targets  # as above

        targets = np.eye(len(self._network_classes))[known.labels]
        if data.teacher is not None:
            soft = data.teacher[data.paired]
            targets = mixed_targets(targets, soft, data.paired, self.lambda_teacher_)
        shares = self._shares_in_loss(known)
        targets *= (shares / shares.mean())[:, None]
        pooled = np.hstack([data.means, data.spreads])
        finite = np.isfinite(pooled).all(axis=1)
        if not finite.all():
            worst = int(finite.argmin())
            raise BagError(
                f"{known.bags.name(worst)}: the standard deviation of its patches overflows; its "
                f"features reach {data.largest[worst]:.3g}. Scale them, e.g. "
                "make_pipeline(InstanceTransformer(StandardScaler()), classifier)."
            )
        return PooledHead.fit(self.pooled_share, pooled, targets)

    def _store_choice(self, choice: TeacherChoice) -> None:
        self.lambda_teacher_, self.n_paired_ = choice.weight, int(choice.paired.sum())
        self.teacher_report_, self.teacher_verdict_ = choice.report, choice.verdict

    @abstractmethod
    def _make_loss(self) -> Objective:
        """Named loss terms and their weights."""

    def _soft_loss(self) -> Objective:
        """The loss of the method, on labels mixed with those of the omics teacher."""
        return replace(self._make_loss(), teacher_weight=self.lambda_teacher_)
