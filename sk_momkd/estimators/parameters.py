"""Parameters of estimators: default and range in one place, and small objects of rare ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import Field, dataclass, field
from numbers import Integral, Real
from os import PathLike
from typing import Any, ClassVar, Self

from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval, StrOptions

from ..training.optimizers import OPTIMIZERS, SCHEDULES

AT_LEAST_ONE = Interval(Integral, 1, None, closed="left")
AT_LEAST_ZERO = Interval(Integral, 0, None, closed="left")
POSITIVE = Interval(Real, 0, None, closed="neither")
NON_NEGATIVE = Interval(Real, 0, None, closed="left")
BELOW_ONE = Interval(Real, 0, 1, closed="left")
SHARE = Interval(Real, 0, 1, closed="right")
UP_TO_ONE = Interval(Real, 0, 1, closed="both")
AUTO = StrOptions({"auto"})


def parameter(default: Any, *allowed: Any) -> Any:
    """Dataclass field of a constructor parameter.

    Parameters
    ----------
    default : object
    *allowed
        What the parameter may be, in the notation of scikit-learn's ``_parameter_constraints``.
    """
    return field(default=default, metadata={"allowed": list(allowed)})


class Parameters(BaseEstimator):
    """Base of dataclasses whose fields are scikit-learn parameters.

    A field made by :func:`parameter` gives the default and the allowed values; a subclass that
    repeats a field with a plain value changes the default and keeps the allowed values.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {}
    _without_effect: ClassVar[tuple[str, ...]] = ()  # neither networks nor predictions depend on it

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = {k: v.metadata["allowed"] for k, v in vars(cls).items() if isinstance(v, Field)}
        cls._parameter_constraints = {**cls._parameter_constraints, **own}

    @contextmanager
    def _restored_if_interrupted(self) -> Iterator[None]:
        """Leave what an earlier fit has learned if the user interrupts this one."""
        before = dict(self.__dict__)
        try:
            yield
        except KeyboardInterrupt:
            self.__dict__ = before
            raise


class WithOptions(Parameters):
    """Estimator of which some parameters are option objects; None stands for their defaults.

    The parameters of an option object can be read, set and searched as ``<name>__<parameter>``,
    also where it is None.
    """

    _options: ClassVar[dict[str, type[Parameters]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        idle = [
            f"{name}__{key}" for name, kind in cls._options.items() for key in kind._without_effect
        ]
        # None and an object with the defaults are the same: its parameters alone count.
        cls._without_effect = tuple({*cls._without_effect, *cls._options, *idle})

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by name, with `deep` also those of the option objects."""
        params = super().get_params(deep=deep)
        for name, kind in self._options.items() if deep else ():
            if params[name] is None:
                params |= {f"{name}__{key}": value for key, value in kind().get_params().items()}
        return params

    def set_params(self, **params: Any) -> Self:
        """Set parameters; an option object that is None is made where one of its own is set."""
        for name, kind in self._options.items():
            nested = any(key.startswith(f"{name}__") for key in params)
            if nested and params.get(name, getattr(self, name)) is None:
                params = {**params, name: kind()}
        return super().set_params(**params)

    def _validate_params(self) -> None:
        super()._validate_params()
        for name in self._options:
            self._option(name)

    def _option(self, name: str) -> Any:
        """The option object of this name, checked; its defaults where it is None."""
        given = getattr(self, name)
        options = self._options[name]() if given is None else given
        options._validate_params()
        return options


@dataclass(kw_only=True, repr=False)
class TrainingOptions(Parameters):
    """Settings of the training loop that few users change.

    ``"auto"`` is what the classifier's own paper trained with; the classifier's documentation
    names it under `training`.

    Parameters
    ----------
    optimizer : {"auto", "adamw", "adam", "lookahead_radam", "sgd"}, default="auto"
        The weight decay of "adam" and "sgd" is part of the gradient, that of the others is not.
    betas : (float, float) or "auto", default="auto"
        Decay of the moving averages of Adam and AdamW.
    momentum : float, default=0.9
        Momentum of "sgd"; the others do not use it.
    lr_schedule : {"auto", "plateau", "cosine", "linear", "step", None}, default="auto"
        "plateau" multiplies the learning rate by 0.2 after 5 epochs without progress, "cosine" and
        "linear" lower it to 0 over `max_epochs`, "step" multiplies it by 0.2 at half of
        `max_epochs`, None keeps it.
    accumulation_steps : int or "auto", default="auto"
        Number of batches whose gradients are averaged, with equal weights, before each update.
    max_grad_norm : float, None or "auto", default="auto"
        Largest norm of the gradient; larger gradients are scaled down. None does not clip.
    clip : {"auto", "global", "branch"}, default="auto"
        Whether the norm is that of all parameters together or of each branch of the network
        (histology, memory, omics; the two tiers of DTFD-MIL).
    validation_split : splitter, iterable or None, default=None
        The first split of it is used as training and validation part, in place of
        `validation_fraction`.
    monitor : {"auto", "auc", "loss"}, default="auto"
        Score of the validation part by which the best epoch is chosen.
    tie_break : {"auto", "loss", "latest"}, default="auto"
        Which of two epochs with the same score is better: "loss" is the one with the lower loss on
        the validation part, the earlier one if that is the same too; `patience` counts anew only
        if the loss has fallen by 1 % since it last did. "latest" is the later one, as in the
        authors' code of MoMKD, and `patience` counts anew each time.
    min_epochs : int or "auto", default="auto"
        Number of epochs before which training does not stop early.
    best_after : float or "auto", default="auto"
        Share of `max_epochs` before which no epoch can be the best.
    average_after : float or None, default=None
        Predict with the mean of the weights after each epoch that follows this share of
        `max_epochs`, in place of the last or the best weights. If training stops earlier, the best
        weights are kept.
    cache_bytes : int or "auto", default="auto"
        Memory for the features of the training and validation bags; bags beyond it are read from
        their files in every epoch. "auto" is half of the free memory of the machine, container or
        cluster job; in a worker process, its part among all processors. Results do not depend on
        it.
    strict : bool, default=False
        Whether an unstable training raises `TrainingError`, and slides whose features are far from
        those of training raise `BagError`, in place of the warnings. Slides of the validation part
        are looked at before training. It may be set after `fit`.
    callbacks : list of skorch callbacks or (name, callback) pairs, or None, default=None
        They are cloned, and the clones are in ``callbacks_`` after `fit`. They see ``net.history``
        with the columns of ``history_``. Scorers of skorch, which predict on arrays, do not apply.
    checkpoint_dir : path or None, default=None
        Folder in which `fit` keeps its state after every epoch. The same call of `fit` with the
        same folder goes on from there, also in another process, and gives the same model, bit for
        bit; where the fit has ended, it does not train again. It needs a `random_state`. Another
        fit in the folder is refused by name of what differs, unless the path has ``{fit}`` in it,
        which each fit replaces by a name of its own. See ``docs/resuming.md``.
    pickle_validation : bool, default=False
        Whether pickles hold ``validation_``: ids, labels and probabilities of patients. It may be
        set after `fit`. Without, a pickle keeps the thresholds that were chosen by them.

    See Also
    --------
    MoMKDClassifier : Takes it as `training`, as every classifier of this package does.

    Examples
    --------
    >>> from sk_momkd import ABMILClassifier, TrainingOptions
    >>> clf = ABMILClassifier(training=TrainingOptions(monitor="loss"))
    >>> clf.set_params(training__lr_schedule="cosine").training.monitor
    'loss'
    """

    optimizer: str = parameter("auto", StrOptions({"auto", *OPTIMIZERS}))
    betas: Any = parameter("auto", AUTO, tuple, list)
    momentum: float = parameter(0.9, BELOW_ONE)
    lr_schedule: str | None = parameter("auto", StrOptions({"auto", *SCHEDULES}), None)
    accumulation_steps: Any = parameter("auto", AUTO, AT_LEAST_ONE)
    max_grad_norm: Any = parameter("auto", AUTO, POSITIVE, None)
    clip: str = parameter("auto", StrOptions({"auto", "global", "branch"}))
    validation_split: Any = parameter(None, "cv_object", None)
    monitor: str = parameter("auto", StrOptions({"auto", "auc", "loss"}))
    tie_break: str = parameter("auto", StrOptions({"auto", "loss", "latest"}))
    min_epochs: Any = parameter("auto", AUTO, AT_LEAST_ONE)
    best_after: Any = parameter("auto", AUTO, BELOW_ONE)
    average_after: float | None = parameter(None, BELOW_ONE, None)
    cache_bytes: Any = parameter("auto", AUTO, AT_LEAST_ZERO)
    strict: bool = parameter(False, "boolean")
    callbacks: list[Any] | None = parameter(None, list, None)
    checkpoint_dir: str | PathLike | None = parameter(None, str, PathLike, None)
    pickle_validation: bool = parameter(False, "boolean")

    _parameters_of_machine: ClassVar[tuple[str, ...]] = ("checkpoint_dir",)  # no saved model has it
    _without_effect: ClassVar[tuple[str, ...]] = (
        *("cache_bytes", "checkpoint_dir", "pickle_validation"),
    )

    def _validate_params(self) -> None:
        super()._validate_params()
        if isinstance(self.validation_split, Iterator):
            raise ValueError(
                f"validation_split is a {type(self.validation_split).__name__}, which the first "
                "fit uses up. Pass a list of splits: list(...)."
            )
        if self.betas != "auto":
            numbers = [isinstance(beta, Real) and 0 <= float(beta) < 1 for beta in self.betas]
            if numbers != [True, True]:
                raise ValueError(f"betas must be two numbers in [0, 1), got {self.betas!r}.")


# What "auto" is where a method's paper does not differ.
AUTO_TRAINING: dict[str, Any] = {
    "optimizer": "adamw",
    "betas": (0.9, 0.999),
    "lr_schedule": "plateau",
    "accumulation_steps": 1,
    "max_grad_norm": 16.0,
    "clip": "global",
    "monitor": "auc",
    "tie_break": "loss",
    "min_epochs": 10,
    "best_after": 0.0,
}

# Probabilities as a paper's program gives them.
AS_TRAINED: dict[str, Any] = {"prior": "sampler"}

# One training for all methods, under which they are compared; see `BaseMILClassifier.preset`.
UNIFIED: dict[str, Any] = {
    "max_epochs": 100,
    "batch_size": 1,
    "learning_rate": 2e-4,
    "weight_decay": 1e-4,
    "sampler": "balanced",
    "early_stopping": True,
    "validation_fraction": 0.125,
    "patience": 15,
    **{f"training__{name}": value for name, value in AUTO_TRAINING.items()},
}
