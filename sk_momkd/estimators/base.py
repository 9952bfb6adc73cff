"""The base of all classifiers of bags: parameters, and what `fit` does."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_consistent_length
from torch import nn

from .. import training as engine
from ..data.patient import patients_and_groups
from ..data.sequence import BagSequence
from ..data.validation import check_bags, check_sample_weight, encode_labels, network_order
from ..io.free_memory import bytes_for_features
from ..nn.initialization import initialise
from ..nn.isolation import isolated, own_torch_random_state
from ..nn.thread_budget import threads_for
from ..progress import labelled
from ..training.batches import BagDataset, LossWeights
from ..training.config import Objective, TrainingConfig, resolve_device, resolve_precision
from ..training.feature_scale import UnlikeTraining, check_scale
from ..training.random_generators import RandomGenerators
from .bag_weights import check_class_weight, loss_weights
from .checkpoint import fit_identity, with_checkpoints
from .decision_threshold import DecisionThreshold, check_threshold
from .fit_tasks import CallbackSupportMixin, FitTasks, fit_tasks, teardown_of_callbacks
from .fitted_state import FittedStateMixin
from .parameters import (
    AS_TRAINED,
    AT_LEAST_ONE,
    AUTO_TRAINING,
    BELOW_ONE,
    NON_NEGATIVE,
    POSITIVE,
    UNIFIED,
    UP_TO_ONE,
    Parameters,
    TrainingOptions,
    WithOptions,
    parameter,
)
from .prior import class_probabilities, class_shares, shares_in_loss
from .privileged import PrivilegedOmics
from .slides_without_graph import are_connected
from .soft_labels import SoftLabelsMixin
from .training_data import FitData, LabelledBags, TrainingBags
from .warm_start import INPUT_GENES, KEPT, EarlierFit, begin_with, changed_parameters, earlier_fit


@dataclass(kw_only=True, eq=False, repr=False)
class BaseMILClassifier(
    SoftLabelsMixin, CallbackSupportMixin, FittedStateMixin, ClassifierMixin, WithOptions
):
    """Classifier of bags of instances.

    A subclass is a dataclass of the same kind: a field is a parameter, a repeated field is another
    default. It has two hooks, `_make_module` and `_make_loss`, and where needed `_make_callbacks`
    or, for training in several stages, `_train_model`.

    Parameters
    ----------
    max_epochs : int, default=100
        Largest number of passes over the training slides.
    batch_size : int, default=1
        Number of slides per training step.
    learning_rate : float, default=0.0002
        Learning rate of the optimizer.
    weight_decay : float, default=0.0001
        Weight decay of the optimizer, on all weights.
    sampler : {"balanced", "shuffle"}, default="balanced"
        "balanced" draws slides with replacement such that each class is drawn equally often;
        "shuffle" passes over each slide once per epoch.
    prior : {"training", "sampler"}, dict or array-like, default="training"
        Class shares of the population that probabilities refer to: those of the training data;
        those that the sampler draws, for probabilities as trained; or class probabilities of
        another population, by label or in the order of ``classes_``. It does not change the
        training, so it can be set after `fit`. ``preset("original")`` and MoMKD's ``"paper"`` and
        ``"release"`` have "sampler".
    class_weight : {"balanced"}, dict of label to float, or None, default=None
        Weights of the classes in the loss, 1 for a class that a dict does not have. "balanced"
        gives all classes the same total weight; the balanced sampler does so already, and there
        it changes nothing. Like the sampler it acts on the training part alone, and probabilities
        refer to `prior` whatever it is; only with ``prior="sampler"`` does it move them.
    early_stopping : bool, default=True
        Set a validation part of the training data aside, keep the weights of the epoch that is
        best on it, and stop when it no longer improves.
    validation_fraction : float, default=0.125
        Share of the training patients that form the validation part: a random part of whole
        patients (or `groups`), stratified by class. It depends on `random_state`. A warning names
        the reason where it cannot have this size.
    patience : int, default=15
        Number of epochs without improvement after which training stops.
    input_dropout : float, default=0.0
        Share of the patch features that are set to zero in each training step.
    instance_dropout : float, default=0.0
        Share of the patches that are left out of each training step.
    n_models : int, default=1
        Number of networks that are trained from different seeds on the same data; their logits are
        averaged.
    lambda_teacher : {"auto"} or float in [0, 1], default=0.0
        Weight of the soft labels of an omics teacher in the targets of the bags with omics. "auto"
        chooses 0, 0.25, 0.5, 0.75 or 1 in inner folds of the training part, and 0 where nothing can
        be gained. Without omics it is 0.
    teacher : scikit-learn classifier or None, default=None
        The omics teacher, cross-fitted within the training part. None takes log2(x + 1) where the
        data are counts, clips outliers, standardises the genes, and fits a strongly regularised
        logistic regression.
    pooled_share : float in [0, 1), default=0.0
        Share of a logistic regression on the mean and the standard deviation of the patches of a
        slide in the logits; the network has the rest. The regression is fitted to the same labels,
        soft ones included, and reads no attention. Of some hundred patients it often knows more
        than the network. Early stopping and ``history_`` are of the network alone.
    warm_start : bool, default=False
        Whether `fit` of a fitted classifier goes on from its networks for `max_epochs` more epochs,
        on the same data or on those of another site. Width, classes, genes and network must be the
        same. The omics transformer and the regression of `pooled_share` stay the fitted ones;
        everything else is of the new data. See
        ``docs/resuming.md``.
    training : TrainingOptions or None, default=None
        Rarely changed settings of the training loop, also set as ``training__<name>``.
    device : str, default="auto"
        Device of torch; "auto" is CUDA where there is one, else the CPU.
    precision : {"float32", "bfloat16", "auto"}, default="float32"
        Number format in which patches are kept and first multiplied; sums and weights are always
        float32. "auto" is bfloat16 where the processor has instructions for it.
    random_state : int, RandomState or None, default=None
        Seed of all random draws. The same seed gives the same model, bit for bit on a CPU. Where a
        training step has more than 2^18 values (patches times features), which takes the threads
        of the process, their number must be the same.
    verbose : int, default=0
        1 shows a progress bar over the epochs of each network, on standard error.
    pos_label : label or None, default=None
        The positive one of two classes. None takes the label that sorts last.
    decision_threshold : float, DecisionThreshold or None, default=None
        Probability from which on `predict` takes the positive one of two classes, e.g. from
        :meth:`Evaluation.threshold`. None takes the most probable class. It does not change the
        training, so it can be set after `fit`. A `DecisionThreshold` knows its `prior` and moves
        with it; a number refers to the `prior` at `fit`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels in sorted order.
    pos_label_ : label or None
        The positive one of two classes; None for more classes.
    decision_threshold_ : float or None
        The threshold that `predict` uses at the current `prior`; None for the most probable class.
    n_features_in_ : int
        Number of features of a patch.
    bag_info_ : dict
        What the files of the training bags state, such as encoder and magnification; bags that
        state something else are refused in prediction.
    class_prior_ : ndarray of shape (n_classes,)
        Share of each class in the training data, in the order of ``classes_``; by weight where
        there is `sample_weight`.
    sampled_prior_ : ndarray of shape (n_classes,)
        Share of each class in the loss: among the slides that the sampler draws, by weight.
    largest_feature_ : float
        Largest absolute value of a feature in the training part.
    feature_summary_ : FeatureSummary or None
        Mean and spread of the training slides by feature, with which slides in prediction are
        compared; None of fewer than ten slides.
    module_ : torch module
        The fitted network; of several, the first.
    modules_ : list of torch modules
        All fitted networks.
    mean_patch_ : ndarray of shape (n_features_in_,)
        Mean patch of the slides of the training part, which have equal weight; the reference of
        :func:`patch_evidence`.
    history_ : DataFrame
        One row per epoch: unweighted loss terms by name, learning rate, loss and AUC of the
        validation part. With several networks, column ``model`` numbers them. Where bags are read
        in every epoch, also ``bytes_read`` and the ``seconds_waiting`` for them.
    n_iter_ : int
        Number of epochs that were run; of several networks, the largest.
    validation_ : DataFrame or None
        Predictions for the validation part: bag, patient, label and probabilities. Pickles hold
        them only with ``training__pickle_validation=True``; else its thresholds alone.
    training_patients_ : HashedIds
        Ids of the patients and slides that were given to `fit`, as hashes under a random key, by
        which :func:`evaluate_external` and :func:`prediction_table` know them again.
    lambda_teacher_ : float
        Weight of the omics teacher in the targets.
    teacher_report_ : DataFrame, index weight
        Of students in closed form on pooled bags, fitted without a fold of the training part and
        scored in it: AUROC, its gain over weight 0 with the standard error, this gain shrunk
        towards a typical one, and the gains by teachers permuted within the classes and by a
        teacher that sees the slides. Empty where nothing was to be chosen.
    teacher_verdict_ : str
        The weight, why it was chosen, and the AUROC of teacher and student in inner folds.
    pooled_head_ : PooledHead or None
        The regression on pooled slides; None with ``pooled_share=0``.
    n_paired_ : int
        Number of training bags with omics, without the validation part.
    callbacks_ : list
        The user's callbacks after training.
    device_ : str
        Device on which training ran.
    precision_ : str
        Number format in which patches were kept.
    """

    max_epochs: int = parameter(100, AT_LEAST_ONE)
    batch_size: int = parameter(1, AT_LEAST_ONE)
    learning_rate: float = parameter(2e-4, POSITIVE)
    weight_decay: float = parameter(1e-4, NON_NEGATIVE)
    sampler: str = parameter("balanced", StrOptions({"balanced", "shuffle"}))
    prior: Any = parameter("training", StrOptions({"training", "sampler"}), dict, "array-like")
    class_weight: Any = parameter(None, StrOptions({"balanced"}), dict, None)
    early_stopping: bool = parameter(True, "boolean")
    validation_fraction: float = parameter(0.125, Interval(Real, 0, 0.5, closed="right"))
    patience: int = parameter(15, AT_LEAST_ONE)
    input_dropout: float = parameter(0.0, BELOW_ONE)
    instance_dropout: float = parameter(0.0, BELOW_ONE)
    n_models: int = parameter(1, AT_LEAST_ONE)
    lambda_teacher: Any = parameter(0.0, StrOptions({"auto"}), UP_TO_ONE)
    teacher: Any = parameter(
        None, HasMethods(["fit", "decision_function"]), HasMethods(["fit", "predict_proba"]), None
    )
    pooled_share: float = parameter(0.0, BELOW_ONE)
    warm_start: bool = parameter(False, "boolean")
    training: TrainingOptions | None = parameter(None, TrainingOptions, None)
    device: str = parameter("auto", str)
    precision: str = parameter("float32", StrOptions({"float32", "bfloat16", "auto"}))
    random_state: Any = parameter(None, "random_state")
    verbose: int = parameter(0, "verbose")
    pos_label: Any = parameter(None, str, Real, "boolean", None)
    decision_threshold: Any = parameter(None, UP_TO_ONE, DecisionThreshold, None)

    _options: ClassVar[dict[str, type[Parameters]]] = {"training": TrainingOptions}
    _auto_training: ClassVar[dict[str, Any]] = AUTO_TRAINING
    _presets: ClassVar[dict[str, dict[str, Any]]] = {
        "original": AS_TRAINED,
        "unified": UNIFIED,
    }
    _uses_omics: ClassVar[bool] = False
    _earlier: ClassVar[EarlierFit | None] = None  # of an instance while a warm start fits
    _keeps_omics_branch: ClassVar[bool] = False
    _balances_by_weight: ClassVar[bool] = True  # class_weight="balanced" sums sample weights
    _fitted: ClassVar[tuple[str, ...]] = (  # what a saved model holds beside the networks
        "classes_",
        "pos_label_",
        "bag_info_",
        "class_prior_",
        "sampled_prior_",
        "largest_feature_",
        "feature_summary_",
        "mean_patch_",
        "history_",
        "n_iter_",
        "device_",
        "precision_",
        "training_patients_",
        "lambda_teacher_",
        "n_paired_",
        "pooled_head_",
        "teacher_report_",
        "teacher_verdict_",
        "_prior_at_fit",
        "_connected",
        "_validation",
        "_network",
    )
    _fitted_omics: ClassVar[tuple[str, ...]] = ()
    _not_saved: ClassVar[tuple[str, ...]] = ("callbacks_", "module_", "modules_", "_earlier")

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> Self:
        """Estimator with a named set of parameters.

        Parameters
        ----------
        name : str
        **overrides
            Parameters that differ from the preset. ``training__<name>`` changes one setting of an
            option object; ``training=TrainingOptions(...)`` replaces all of the preset's.

        Returns
        -------
        estimator

        Raises
        ------
        ValueError
            If there is no such preset.
        """
        if name not in cls._presets:
            raise ValueError(f"preset must be one of {sorted(cls._presets)}, got {name!r}.")
        named = {k: v for k, v in cls._presets[name].items() if k.split("__")[0] not in overrides}
        return cls().set_params(**(named | overrides))

    def fit(
        self, X: Any, y: Any, *, omics: Any = None, groups: Any = None, sample_weight: Any = None
    ) -> Self:
        """Train on bags and their labels.

        Parameters
        ----------
        X : BagSequence, list of bags, or array
            A list may hold `Bag`, arrays, ``(features, coords)`` or PyG ``Data``; an array has the
            shape (n_bags, n_instances, n_features) or (n_bags, n_features).
        y : array-like of shape (n_bags,)
            Class labels of any kind.
        omics : AnnData, DataFrame with ids as index, OmicsTable, array in bag order, or None
            Privileged omics, of classifiers that are trained with it, and of all others with
            `lambda_teacher` above 0 or "auto". Rows are joined to the bags by patient id and then
            by bag id, never by position; an array, dense or sparse, has no ids and must have a row
            per bag. Bags without omics train the histology side alone.
        groups : array-like of shape (n_bags,), optional
            What stays whole in the inner validation part, e.g. sites; by default patients.
        sample_weight : array-like of shape (n_bags,), optional
            Weights of the bags in the loss, of which only the ratios count. A bag of weight 0 is
            left out. Under the balanced sampler weights count within a class. The loss and the AUC
            of the validation part are weighted, too. What is drawn, which bags form the validation
            part, and how omics is prepared does not depend on weights.

        Returns
        -------
        self

        Raises
        ------
        BagError, OmicsError, LeakageError, ValueError
            If the input is unusable. The message names the bag, patient or gene, what came, what
            was expected and how to mend it.
        TypeError
            If omics is given to a classifier that learns from histology alone and has
            ``lambda_teacher=0``, or one of ``training__callbacks`` is no callback of skorch.
        TrainingError
            If the training diverges, or is unstable with ``training__strict=True``.
        CheckpointError
            If ``training__checkpoint_dir`` is of another fit, in use or damaged.
        """
        return self._fit(X, y, omics, groups, sample_weight)

    @abstractmethod
    def _make_loss(self) -> Objective:
        """Named loss terms and their weights."""

    def _make_callbacks(self, generator: torch.Generator) -> list[Any]:
        """Callbacks that belong to the method."""
        return []

    def _fit(self, X: Any, y: Any, omics: Any, groups: Any, sample_weight: Any) -> Self:
        """What `fit` of every classifier does."""
        # The teardown comes first: what restores the earlier fit forgets the callbacks.
        with self._restored_if_interrupted(), earlier_fit(self), teardown_of_callbacks(self):
            return self._fit_networks(X, y, omics, groups, sample_weight)

    def _fit_networks(self, X: Any, y: Any, omics: Any, groups: Any, sample_weight: Any) -> Self:
        """The steps of a fit; of a warm start, ``self._earlier`` is the earlier one."""
        cohort, generators = self._validate(X, y, groups, sample_weight)
        training, validation = self._split(cohort, generators)
        bags = self._unread(cohort[training])  # read for the omics teacher, or for training
        privileged = self._prepare_omics(omics, cohort, training, validation, generators, bags)
        tasks = fit_tasks(self, X, y)
        parts = (training, validation)
        models = self._train_models(cohort, parts, bags, privileged, generators, tasks)
        self._keep(models, cohort, validation)
        if tasks is not None:
            tasks.end()
        return self

    def _validate(
        self, X: Any, y: Any, groups: Any, sample_weight: Any
    ) -> tuple[LabelledBags, RandomGenerators]:
        """Check parameters, bags, labels, groups and weights; forget an earlier fit."""
        self._validate_params()
        self._require_seed()
        if self._earlier is not None:
            check_bags(self, X, reset=False)  # raises for files of another encoder
        fitted = [name for name in vars(self) if name.endswith("_") and name[0] != "_"]
        for name in set(fitted) - (set() if self._earlier is None else set(KEPT)):
            delattr(self, name)  # a fit that fails leaves no model behind
        if self._earlier is None:
            self.__dict__.pop(INPUT_GENES, None)
        for name in ("_validation", "_network", "_left_out"):
            self.__dict__.pop(name, None)
        self.device_ = resolve_device(self.device)
        self.precision_ = resolve_precision(self.precision, self.device_)
        self.callbacks_ = engine.fresh_callbacks(self._option("training").callbacks)
        bags = check_bags(self, X, reset=True)
        self.classes_, self.pos_label_, labels = encode_labels(self, y, bags)
        if self._earlier is not None:
            self._take_over(self._earlier, bags)
        if not isinstance(self.prior, str):
            class_probabilities(self.prior, self.classes_)  # raises before training
        self._prior_at_fit = copy.copy(self.prior)
        if isinstance(self.decision_threshold, DecisionThreshold | Real):
            check_threshold(self.decision_threshold, self.classes_, self.pos_label_)
        check_class_weight(self.class_weight, self.classes_)
        check_consistent_length(bags, groups)
        _, group_of_bag = patients_and_groups(bags, bags, groups)
        generators = RandomGenerators(self.random_state, self.device_)
        weights = check_sample_weight(sample_weight, bags)
        cohort = LabelledBags(bags, labels, group_of_bag, weights)
        self._require_weight(cohort)
        return cohort, generators

    def _take_over(self, earlier: EarlierFit, bags: BagSequence) -> None:
        """Check that a warm start fits the earlier fit, and remember its patients."""
        earlier.require_same(self)
        known = self.__dict__
        known["bag_info_"] = earlier.bag_info | known.get("bag_info_", {})
        known["training_patients_"] = earlier.patients_and(bags)
        if known["training_patients_"] is None:
            del known["training_patients_"]  # some of them would be taken for all

    def _require_seed(self) -> None:
        """Raise if there are checkpoints and no seed: each call would be another fit."""
        if self.random_state is None and self._option("training").checkpoint_dir is not None:
            raise ValueError(
                "checkpoint_dir needs a random_state, because with None each call of fit is "
                "another one and none can go on. Set random_state to a number."
            )

    def _require_weight(self, cohort: LabelledBags) -> None:
        """Raise if all bags of a class have the weight 0."""
        lacking = np.setdiff1d(cohort.labels, cohort.labels[cohort.weighed])
        if len(lacking):
            name = self._network_classes[lacking[0]].item()
            raise ValueError(
                f"sample_weight is 0 for all bags of class {name!r}. Give a bag of each class a "
                "weight above 0, or leave the bags out."
            )

    def _split(
        self, cohort: LabelledBags, generators: RandomGenerators
    ) -> tuple[NDArray, NDArray | None]:
        """Positions of the training and the validation part; bags of weight 0 are in neither."""
        weighed = cohort.weighed
        if not self.early_stopping:
            return weighed, None
        from ..model_selection.split import inner_split, positions_within

        splitter, part = self._option("training").validation_split, cohort[weighed]
        training, validation = inner_split(
            part.bags,
            part.labels,
            part.groups,
            fraction=self.validation_fraction,
            splitter=positions_within(splitter, weighed, len(cohort.bags)),
            random_state=np.random.RandomState(generators.seeds["split"]),
            classes=list(self._network_classes),
        )
        return weighed[training], weighed[validation]

    def _weigh(
        self, cohort: LabelledBags, training: NDArray, privileged: PrivilegedOmics | None
    ) -> LossWeights | None:
        """Weights of the training bags in the loss.

        The class shares of the training data and of the loss are stored.
        """
        part, sampler = cohort[training], self.sampler
        weights = loss_weights(
            part.labels,
            part.weights,
            self.class_weight,
            sampler=sampler,
            classes=self._network_classes,
            paired=None if privileged is None else privileged.paired,
        )
        place = np.argsort(network_order(self.classes_, self.pos_label_))
        in_loss, n_classes = None if weights is None else weights.bags, len(place)
        self.class_prior_ = class_shares(cohort.labels, cohort.weights, n_classes)[place]
        self.sampled_prior_ = shares_in_loss(part.labels, in_loss, sampler, n_classes)[place]
        return weights

    @isolated()
    def _train_models(
        self,
        cohort: LabelledBags,
        parts: tuple[NDArray, NDArray | None],
        bags: TrainingBags,
        privileged: tuple[PrivilegedOmics | None, PrivilegedOmics | None],
        generators: RandomGenerators,
        tasks: FitTasks | None,
    ) -> list[tuple[nn.Module, pd.DataFrame]]:
        """Build and train `n_models` networks; each with its history."""
        (training, validation), (for_training, for_validation) = parts, privileged
        weights = self._weigh(cohort, training, for_training)
        validated = None if validation is None else cohort[validation]
        with threads_for(0):
            kept = bags.dataset()
            _add_targets(kept, for_training, weights)
            data = FitData(
                kept,
                None
                if validated is None
                else self._validation_set(validated, for_validation, kept.cache_bytes_left),
                0 if for_training is None else for_training.n_genes,
                generators,
                self.callbacks_,
                tasks,
                start=None if self._earlier is None else self._earlier.weights,
            )
        self.mean_patch_ = data.training.mean_patch
        self._connected = are_connected(data.training)
        strict = self._option("training").strict
        self.largest_feature_ = check_scale(data.training, strict=strict)
        self.feature_summary_ = data.training.summary
        self.pooled_head_ = self._fit_pooled_head(cohort[training], data.training)
        if strict and data.validation is not None:  # its scores are computed after the training
            seen = UnlikeTraining(self.largest_feature_, self.feature_summary_, strict=True)
            seen.look_at_all(data.validation)
        step = (
            min(self.batch_size, len(training))
            * int(np.median(data.training.sizes))
            * self.n_features_in_
        )
        folder, identity = self._option("training").checkpoint_dir, {}
        if folder is not None:
            identity = fit_identity(self, data, cohort, parts, privileged)
        with with_checkpoints(folder, data, identity, cohort.bags) as data, threads_for(step):
            return self._train_each(data)

    def _train_each(self, data: FitData) -> list[tuple[nn.Module, pd.DataFrame]]:
        """Train `n_models` networks on the same data."""
        per_model = [data.for_model(number) for number in range(self.n_models)]
        models: list[tuple[nn.Module, pd.DataFrame]] = []
        for number, one in enumerate(per_model, 1):
            with labelled(f"model {number} of {self.n_models}" if self.n_models > 1 else ""):
                models.append(self._train_model(one))
        self.callbacks_ = [callback for data in per_model for callback in data.callbacks]
        return models

    def _keep(
        self,
        models: Sequence[tuple[nn.Module, pd.DataFrame]],
        cohort: LabelledBags,
        validation: NDArray | None,
    ) -> Self:
        """Store what was learned."""
        modules, histories = zip(*models, strict=True)
        self.__dict__.update(self._with_networks(modules))
        numbered = [table.assign(model=number) for number, table in enumerate(histories)]
        self.history_ = histories[0] if len(models) == 1 else pd.concat(numbered, ignore_index=True)
        self.n_iter_ = max(map(len, histories))
        self._validation = None if validation is None else self._scores(cohort[validation])
        return self

    def _with_networks(self, modules: Sequence[Any]) -> dict[str, Any]:
        """Attributes of a fit; the omics branch stays only where inspection reads it."""
        for module in modules:
            if hasattr(module, "omics_branch") and not self._keeps_omics_branch:
                module.omics_branch = None
        n_genes = 0 if self._earlier is None else self._earlier.n_genes
        return self._networks(modules, n_genes or len(getattr(self, "genes_", ())))

    def _made_with(self) -> dict[str, Any]:
        own = {f.name for f in fields(type(self))} - {f.name for f in fields(BaseMILClassifier)}
        own -= {"n_genes", "omics_transformer", "loss"}
        return {name: getattr(self, name) for name in sorted(own)}

    def _train_model(self, data: FitData) -> tuple[nn.Module, pd.DataFrame]:
        """One trained network and its history."""
        module = self._build(self._make_module, data)
        callbacks = self._make_callbacks(data.generators.generator("model"))
        return module, self._train(module, self._soft_loss(), data, callbacks)

    def _build(self, make: Callable[[int, int, int], nn.Module], data: FitData) -> nn.Module:
        """The network that `make` gives, with weights from the generators of the fit."""
        with own_torch_random_state():
            module = make(self.n_features_in_, data.n_genes, len(self.classes_))
        initialise(module, data.generators.generator("weights"))
        # With a generator of its own, the omics branch leaves the start of histology as it is.
        omics_branch = getattr(module, "omics_branch", None)
        if omics_branch is not None:
            initialise(omics_branch, data.generators.generator("omics_weights"))
        if data.start is not None and self._earlier is not None:
            changed = changed_parameters(self._earlier.made_with, self._made_with())
            begin_with(module, data.start[0], changed)
        return module

    def _train(
        self, module: nn.Module, loss: Objective, data: FitData, callbacks: Sequence[Any] = ()
    ) -> pd.DataFrame:
        return engine.train(
            module,
            loss,
            (data.training, data.validation),
            self._training_config(),
            data.generators.generators(),
            model_callbacks=callbacks,
            user_callbacks=data.callbacks,
            epoch_tasks=data.epoch_tasks(),
            checkpoints=data.checkpoints,
        )

    def _training_config(self) -> TrainingConfig:
        """Settings of the loop; "auto" is what the method's paper trained with."""
        chosen = self._option("training").get_params()
        chosen = {k: self._auto_training.get(k, v) if v == "auto" else v for k, v in chosen.items()}
        settings = self.get_params(deep=False) | chosen | {"device": self.device_}
        return TrainingConfig(**{f.name: settings[f.name] for f in fields(TrainingConfig)})

    def _cache_bytes(self) -> int:
        """Bytes of memory for features that are kept between epochs."""
        asked = self._option("training").cache_bytes
        return bytes_for_features() if asked == "auto" else asked

    def _validation_set(
        self, part: LabelledBags, privileged: PrivilegedOmics | None, cache_bytes: int
    ) -> BagDataset:
        """Dataset of the validation part, weighted by `sample_weight` alone."""
        weights = loss_weights(
            part.labels, part.weights, None, sampler="shuffle", classes=self._network_classes
        )
        found = self._dataset(part, cache_bytes)
        _add_targets(found, privileged, weights)
        return found

    def _unread(self, part: LabelledBags) -> TrainingBags:
        """The bags of the training part, before they are read."""
        return TrainingBags(lambda on_read: self._dataset(part, self._cache_bytes(), on_read))

    def _dataset(
        self,
        part: LabelledBags,
        cache_bytes: int,
        on_read: Callable[[NDArray], None] | None = None,
    ) -> BagDataset:
        with threads_for(0):
            return BagDataset(
                part.bags,
                part.labels,
                self._graph_spec(),
                self.n_features_in_,
                dtype=getattr(torch, self.precision_),
                cache_bytes=cache_bytes,
                sum_contents=self._option("training").checkpoint_dir is not None,
                on_read=on_read,
            )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


def _add_targets(
    dataset: BagDataset, privileged: PrivilegedOmics | None, weights: LossWeights | None
) -> None:
    """What the bags are trained with beside their labels."""
    if privileged is None:
        dataset.add_targets(weights=weights)
        return
    dataset.add_targets(
        omics=privileged.vectors,
        paired=privileged.paired,
        teacher=privileged.teacher,
        weights=weights,
    )
