"""Any scikit-learn classifier, trained with soft labels of an omics teacher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.base import ClassifierMixin, MetaEstimatorMixin
from sklearn.utils import check_random_state, get_tags, indexable
from sklearn.utils._param_validation import HasMethods, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import (
    _num_samples,
    check_consistent_length,
    check_is_fitted,
    validate_data,
)

from ..data.bag import Bag
from ..data.omics import join_omics
from ..data.patient import patients_and_groups
from ..data.sequence import BagSequence, patients_in_index, refuse_other_containers
from ..data.training_patients import HashedIds
from ..data.validation import check_bags, encode_labels, is_table, network_order
from ..preprocessing.expression_outliers import check_expression
from .inner_pos_labels import agreed_pos_label, set_pos_label
from .parameters import POSITIVE, UP_TO_ONE, Parameters, parameter
from .privileged import seeded_clone
from .soft_targets import fit_softly, require_weights
from .teacher_weight import Samples, TeacherChoice, learn_from, student_evidence

_SEEDS = 2**31 - 1


def _inner_has(name: str) -> Callable[[Any], bool]:
    """Check of `available_if`: whether the classifier inside has the method."""

    def check(self: Any) -> bool:
        return hasattr(getattr(self, "estimator_", self.estimator), name)

    return check


@dataclass(eq=False, repr=False)
class PrivilegedClassifier(MetaEstimatorMixin, ClassifierMixin, Parameters):
    """Any classifier, trained with soft labels of an omics teacher.

    A teacher is fitted to the omics of the training patients in grouped folds, so that no patient's
    label reaches its own soft label. The classifier inside is fitted on weighted copies of each
    sample: ``1 - weight`` for its label, and `weight` divided among the classes by its soft label.
    It predicts without omics.

    Parameters
    ----------
    estimator : scikit-learn classifier
        It, or the last step of a pipeline, takes ``sample_weight`` in `fit`.
    teacher : scikit-learn classifier or None, default=None
        Fitted on a table of patients x genes; it has ``decision_function`` or ``predict_proba``.
        None takes log2(x + 1) where the data are counts, clips outliers, standardises the genes,
        and fits a strongly regularised logistic regression.
    weight : {"auto"} or float in [0, 1], default="auto"
        Weight of the teacher in the targets. 0 fits the classifier as it is, 1 lets it learn from
        the teacher alone. "auto" chooses 0, 0.25, 0.5, 0.75 or 1 in inner folds of the training
        data, and 0 where nothing can be gained.
    temperature : float, default=0.5
        Standard deviations of the teacher's logits are multiplied by it: soft labels are
        ``softmax(logits / (temperature * sd))``, shifted such that their mean is the share of
        each class among the labels.
    random_state : int, RandomState or None, default=None
        Seed of the folds, and of teacher and classifier where these have none of their own.
    pos_label : label or None, default=None
        The positive one of two classes. None takes that of the classifier inside, else the label
        that sorts last. Each `pos_label` inside that is None is set to it.

    Attributes
    ----------
    estimator_ : classifier
        The fitted clone of `estimator`. It predicts without this class.
    classes_ : ndarray of shape (n_classes,)
        Class labels in sorted order.
    pos_label_ : label or None
        The positive one of two classes; None for more classes.
    weight_ : float
        Weight of the teacher.
    n_paired_ : int
        Number of training samples with omics.
    teacher_report_ : DataFrame, index weight
        Of students that were fitted without a fold and scored in it: AUROC, its gain over weight 0
        with the standard error, and this gain shrunk towards a typical one. Empty where nothing was
        to be chosen; files of :func:`save_model` do not hold it.
    teacher_verdict_ : str
        The weight, why it was chosen, and the AUROC of teacher and student in inner folds.
    n_features_in_ : int
        Number of features of a sample, or of a patch.
    training_patients_ : HashedIds
        Ids of the patients and slides that were given to `fit`, as hashes under a random key, by
        which :func:`evaluate_external` and :func:`prediction_table` know them again.

    See Also
    --------
    compare_omics : Tests on other patients whether omics helps.
    MoMKDClassifier : Takes soft labels by `lambda_teacher`.
    BagPooling : Makes rows of bags, for classifiers that take no bags.

    Notes
    -----
    With "auto" the teacher is fitted without each fold and without each two folds, and the
    student with each weight without each fold; all are scored on labels that neither has seen. The
    weight is 0 if the teacher is not better than chance by two standard errors, or if the
    correlation of a student of the teacher alone with the teacher within the classes is below 2.5
    standard deviations of that with a teacher permuted within the classes. Else it is the weight
    with the largest gain in AUROC after shrinking,
    :math:`(s_w^2 m_w + t_w^2 g_w) / (s_w^2 + t_w^2)`, with the gain :math:`g_w`, its standard error
    :math:`s_w`, and mean :math:`m_w` and standard deviation :math:`t_w` of gains on cohorts of
    development; it is at most 0.25 unless the teacher is better than the student by two standard
    errors. With fewer than 10 patients with omics in a class nothing is chosen: the weight is 0,
    with a warning. A `weight` that is given is used, or raises.

    The steps of a pipeline before the last are fitted on the samples as they are. A classifier
    that splits its training data is refused with omics, because copies of one sample would be on
    both sides: ``GridSearchCV`` and ``CalibratedClassifierCV`` belong around this class, and early
    stopping, ``probability=True`` and ``oob_score=True`` are to be switched off.
    ``early_stopping="auto"`` does not stop on copies, and ``class_weight="balanced"`` weighs the
    classes by the labels.

    References
    ----------
    Lopez-Paz, Bottou, Schoelkopf, Vapnik. Unifying distillation and privileged information.
    ICLR 2016. arXiv:1511.03643.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sk_momkd import Bag, BagPooling, PrivilegedClassifier
    >>> random = np.random.default_rng(0)
    >>> cause = random.normal(size=60)
    >>> y = np.where(cause + random.normal(size=60) > 0, "high", "low")
    >>> names = [f"P{i}" for i in range(60)]
    >>> rna = pd.DataFrame(cause[:, None] + random.normal(size=(60, 20)), index=names)
    >>> bags = [
    ...     Bag(random.normal(size=(5, 8)) + c * np.eye(8)[0], patient_id=name)
    ...     for name, c in zip(names, cause)
    ... ]
    >>> student = make_pipeline(BagPooling(), LogisticRegression())
    >>> clf = PrivilegedClassifier(student, random_state=0, pos_label="high")
    >>> clf.fit(bags, y, omics=rna).predict_proba(bags).shape
    (60, 2)
    >>> list(clf.teacher_report_.index)
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """

    estimator: Any = field(metadata={"allowed": [HasMethods(["fit", "predict"])]})
    _: KW_ONLY
    teacher: Any = parameter(
        None, HasMethods(["fit", "decision_function"]), HasMethods(["fit", "predict_proba"]), None
    )
    weight: Any = parameter("auto", StrOptions({"auto"}), UP_TO_ONE)
    temperature: float = parameter(0.5, POSITIVE)
    random_state: Any = parameter(None, "random_state")
    pos_label: Any = parameter(None, str, Real, "boolean", None)

    _fitted: ClassVar = (
        *("estimator_", "classes_", "pos_label_", "weight_", "n_paired_", "teacher_verdict_"),
        *("bag_info_", "training_patients_"),
    )
    _not_saved: ClassVar = ("teacher_report_",)  # a table of the training, which nothing reads

    def fit(
        self, X: Any, y: Any, *, omics: Any = None, groups: Any = None, patient_ids: Any = None
    ) -> Self:
        """Train on samples and their labels.

        Parameters
        ----------
        X : bags, or table of shape (n_samples, n_features)
            What the classifier inside takes: bags in any form that a pipeline with
            :class:`BagPooling` accepts, or an array, DataFrame or sparse matrix. The index of a
            DataFrame holds patient ids, unless it counts the rows.
        y : array-like of shape (n_samples,)
            Class labels of any kind.
        omics : AnnData, DataFrame with ids as index, OmicsTable, array in the order of X, or None
            Privileged omics. Rows are joined by patient id and then by bag id, never by position;
            an array has no ids and must have a row per sample. Samples without omics keep their
            labels. None fits the classifier as it is.
        groups : array-like of shape (n_samples,), optional
            What stays whole in all folds, e.g. sites; by default patients.
        patient_ids : array-like of shape (n_samples,), optional
            Patients of the rows of a table. Bags have ids of their own.

        Returns
        -------
        self

        Raises
        ------
        BagError, OmicsError, LeakageError, ValueError
            If the input is unusable.
        TypeError
            If omics is given and the classifier inside takes no ``sample_weight``, splits its
            training data, or has class weights that cannot be found from copies.
        """
        with self._restored_if_interrupted():
            return self._fit(X, y, omics, groups, patient_ids)

    def _fit(self, X: Any, y: Any, omics: Any, groups: Any, patient_ids: Any) -> Self:
        samples, bags = self._validate(X, y, groups, patient_ids)
        seed = int(check_random_state(self.random_state).randint(_SEEDS))
        ordered = self.classes_[network_order(self.classes_, self.pos_label_)].tolist()
        student = set_pos_label(seeded_clone(self.estimator, seed), ordered)
        _, group_of_sample = patients_and_groups(bags, bags, groups)
        with config_context(enable_metadata_routing=False):
            choice = self._choose(student, samples, bags, omics, group_of_sample, seed)
            targets = choice.targets(samples.hard)
            self.estimator_ = fit_softly(
                student, samples.X, self.classes_, samples.numbers, targets
            )
        self.weight_, self.n_paired_ = choice.weight, int(choice.paired.sum())
        self.teacher_report_, self.teacher_verdict_ = choice.report, choice.verdict
        return self

    def _validate(
        self, X: Any, y: Any, groups: Any, patient_ids: Any
    ) -> tuple[Samples, BagSequence]:
        """Check parameters, samples and labels; forget an earlier fit."""
        self._validate_params()
        for name in [name for name in vars(self) if name.endswith("_") and name[0] != "_"]:
            delattr(self, name)  # a fit that fails leaves no model behind
        X, bags = self._check(X, patient_ids)
        named = agreed_pos_label([self], None)
        self.classes_, self.pos_label_, labels = encode_labels(self, y, bags, pos_label=named)
        check_consistent_length(bags, groups)
        numbers = network_order(self.classes_, self.pos_label_)[labels]
        return Samples(X, numbers, self.classes_, bags.groups()), bags

    def _choose(
        self, student: Any, samples: Samples, bags: BagSequence, omics: Any, groups: Any, seed: int
    ) -> TeacherChoice:
        """Targets of the student, and why they are these."""
        if omics is None:
            return TeacherChoice.without(np.zeros(len(bags), bool), "No omics was given.")
        require_weights(student)
        table, rows = join_omics(omics, bags)
        check_expression(table.rows(np.unique(rows[rows >= 0])))
        return learn_from(
            self.teacher,
            table,
            rows,
            samples,
            groups,
            evidence_of=partial(student_evidence, student, temperature=self.temperature),
            weight=self.weight,
            temperature=self.temperature,
            random_state=seed,
        )

    def _check(self, X: Any, patient_ids: Any) -> tuple[Any, BagSequence]:
        """`X` in a form that can be indexed, and bags with the ids of its rows."""
        refuse_other_containers(X)
        if not is_table(X):
            if patient_ids is not None:
                raise ValueError(
                    "patient_ids are for tables; bags have ids of their own. Pass "
                    "as_bags(X, patient_ids=...) as X."
                )
            bags = check_bags(self, X, reset=True)
            return bags, bags
        (X,) = indexable(X)
        if _num_samples(X) == 0:
            raise ValueError("X holds no samples.")
        validate_data(self, X, skip_check_array=True)
        bags = _named_rows(X, patient_ids)
        self.training_patients_ = HashedIds.of(bags)
        return X, bags

    @available_if(_inner_has("predict_proba"))
    def predict_proba(self, X: Any) -> NDArray:
        """Class probabilities, without omics.

        Parameters
        ----------
        X : bags or table, as in `fit`

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Columns are in the order of ``classes_``.
        """
        check_is_fitted(self)
        return self.estimator_.predict_proba(X)

    @available_if(_inner_has("decision_function"))
    def decision_function(self, X: Any) -> NDArray:
        """Scores of the classifier inside, without omics.

        Parameters
        ----------
        X : bags or table, as in `fit`

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes)
        """
        check_is_fitted(self)
        return self.estimator_.decision_function(X)

    @available_if(_inner_has("transform"))
    def transform(self, X: Any) -> Any:
        """What the classifier inside makes of `X`.

        Parameters
        ----------
        X : bags or table, as in `fit`

        Returns
        -------
        ndarray
        """
        check_is_fitted(self)
        return self.estimator_.transform(X)

    def predict(self, X: Any) -> NDArray:
        """Labels, as the classifier inside decides.

        Parameters
        ----------
        X : bags or table, as in `fit`

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        check_is_fitted(self)
        return self.estimator_.predict(X)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "estimator_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator)
        tags.input_tags = inner.input_tags
        tags.non_deterministic = inner.non_deterministic
        if inner.classifier_tags is not None:
            tags.classifier_tags = inner.classifier_tags
        return tags


def _named_rows(X: Any, patient_ids: Any) -> BagSequence:
    """A bag without content for each row of a table, with the id of its patient."""
    if patient_ids is not None:
        check_consistent_length(X, patient_ids)
        ids = list(patient_ids)
    else:
        ids = patients_in_index(X) or [None] * _num_samples(X)
    return BagSequence(Bag(np.ones((1, 1), np.float32), patient_id=i) for i in ids)
