"""From the networks of a fitted classifier to probabilities and decisions."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from ..bag_warnings import warns_together
from ..data.bag_order import labels_in_bag_order
from ..data.sequence import as_bags
from ..data.validation import check_bags, check_sample_weight, network_order
from ..exceptions import BagError
from ..nn.blocks import Blocks, materialize
from ..nn.isolation import isolated
from ..nn.thread_budget import SMALL, threads_for
from ..nn.workspace import clear_workspaces
from ..output import mean_output
from ..training.batches import FlatBatch, GraphSpec, forward, open_graph, single_bag_batch
from ..training.config import resolve_device
from ..training.feature_scale import UnlikeTraining
from .decision_threshold import DecisionThreshold, MovedThreshold, at_prior, check_threshold
from .parameters import TrainingOptions
from .pooled_head import PooledHead
from .prior import class_probabilities
from .slides_without_graph import UnlikeGraphs

_BLOCK_SIZE = 8192  # instances of a large slide that are in memory at once
_MOST_TOGETHER = 64  # small bags that are read before the networks have their turn


class PredictionMixin:
    """What a fitted classifier of bags does with slides; `fit` sets what it reads."""

    training: TrainingOptions | None
    prior: Any
    decision_threshold: Any
    device: str
    precision_: str
    classes_: NDArray
    class_prior_: NDArray
    sampled_prior_: NDArray
    pos_label_: Any
    n_features_in_: int
    modules_: list[Any]
    _prior_at_fit: Any

    def decision_function(self, X: Any) -> NDArray:
        """Logits of the classes, corrected to the class shares of `prior`.

        Parameters
        ----------
        X : bags in any form that `fit` accepts

        Returns
        -------
        ndarray of shape (n_bags, n_classes), or (n_bags,) for two classes
            Of two classes, the logit of the second minus that of the first: the log odds of
            `predict_proba`.
        """
        logits = self._in_class_order(self._logits(X))
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict_proba(self, X: Any) -> NDArray:
        """Class probabilities, from histology alone.

        Parameters
        ----------
        X : bags in any form that `fit` accepts

        Returns
        -------
        ndarray of shape (n_bags, n_classes)
            Columns are in the order of ``classes_``. The row of a bag does not depend on the other
            bags.

        Notes
        -----
        A network that is trained on slides drawn in shares :math:`s_c` gives probabilities for a
        population with these shares, 1:1 for the balanced sampler. With the shares :math:`q_c` of
        `prior` the probability is :math:`p_c q_c / s_c`, divided by its sum over the classes
        (Saerens et al. 2002). This is exact where the network's probabilities are right for the
        slides that were drawn, and where classes look the same in both populations; labels
        that are softened, by an omics teacher or otherwise, and further loss terms are assumed to
        leave that unchanged. Of two classes the ranking of slides stays the same, whatever `prior`
        is. Without a `decision_threshold`, `predict` takes the most probable class, which for a
        rare one is seldom its own; for balanced decisions use a threshold.
        """
        return self._in_class_order(self._logits(X).softmax(dim=1))

    def predict(self, X: Any) -> NDArray:
        """Class of each bag: by `decision_threshold`, or by default the most probable one.

        Parameters
        ----------
        X : bags in any form that `fit` accepts

        Returns
        -------
        ndarray of shape (n_bags,)
        """
        check_is_fitted(self)
        return self._decide(self.predict_proba(X))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy of `predict`, bag by bag.

        Parameters
        ----------
        X : bags in any form that `fit` accepts
        y : array-like of shape (n_bags,)
            Labels, joined by id as in `fit` where they have ids.
        sample_weight : array-like of shape (n_bags,), optional

        Returns
        -------
        float
        """
        from sklearn.metrics import accuracy_score  # a model that predicts loads without it

        bags = as_bags(X)
        weights = check_sample_weight(sample_weight, bags)
        predicted = self.predict(X)
        return float(accuracy_score(labels_in_bag_order(y, bags), predicted, sample_weight=weights))

    def _decide(self, proba: NDArray) -> NDArray:
        """Labels for rows of `predict_proba`."""
        if (threshold := self.decision_threshold_) is None:
            return self.classes_[proba.argmax(axis=1)]
        positive = self.classes_.tolist().index(self.pos_label_)
        reached = proba[:, positive] >= threshold
        return self.classes_[np.where(reached, positive, 1 - positive)]

    @property
    def decision_threshold_(self) -> float | None:
        """Threshold of `predict` at the current `prior`; None for the most probable class."""
        moved = self._moved_threshold()
        return None if moved is None else moved.value

    @property
    def threshold_source_(self) -> str:
        """Whose choice the threshold of `predict` is, in a line."""
        given = self.decision_threshold
        named = isinstance(given, DecisionThreshold) and given.criterion
        return str(given).splitlines()[0] if named else f"decision_threshold={given!r}"

    def _moved_threshold(self) -> MovedThreshold | None:
        check_is_fitted(self)
        given = self.decision_threshold
        if given is None:
            return None
        threshold = given if isinstance(given, DecisionThreshold) else DecisionThreshold(given)
        check_threshold(threshold, self.classes_, self.pos_label_)
        now = self._shares_at(self.prior)
        before = self._shares_at(self._prior_of(threshold))
        if threshold.prior is None and not np.allclose(before, now):
            raise ValueError(
                f"decision_threshold={threshold.value:g} is a number, which refers to the prior at "
                f"fit, {self._prior_at_fit!r}; now prior={self.prior!r}. Pass "
                f"DecisionThreshold({threshold.value:g}, prior={self._prior_at_fit!r}) for the "
                f"decisions as at fit, or DecisionThreshold({threshold.value:g}, "
                f"prior={self.prior!r}) for a threshold on the probabilities as they are now."
            )
        positive = self.classes_.tolist().index(self.pos_label_)
        return at_prior(float(threshold.value), before, now, positive)

    def _prior_of(self, threshold: DecisionThreshold) -> Any:
        """The `prior` that a threshold refers to: its own, or that at `fit`."""
        at_fit = vars(self).get("_prior_at_fit", self.prior)
        return at_fit if threshold.prior is None else threshold.prior

    def _shares_at(self, prior: Any) -> NDArray:
        """Class shares that probabilities refer to at a `prior`, in the order of ``classes_``."""
        as_trained = isinstance(prior, str) and prior == "sampler"
        return self.sampled_prior_ if as_trained else self._target_prior(prior)

    @property
    def _network_classes(self) -> NDArray:
        """Label of each class number of the network; of two, number 1 is the positive class.

        Everything that a network returns by class is in this order.
        """
        return self.classes_[network_order(self.classes_, self.pos_label_)]

    def _logits(self, X: Any) -> torch.Tensor:
        """Logits by class number of the network, corrected to `prior`: float64."""
        return self._at_prior(self._trained_logits(X))

    def _trained_logits(self, X: Any) -> torch.Tensor:
        return torch.cat([out.logits for out in self._forward(X)]).double()

    def _at_prior(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits (..., n_classes) by class number of the network, corrected to `prior`."""
        if isinstance(self.prior, str) and self.prior == "sampler":
            return logits
        target = self._target_prior(self.prior)
        if np.array_equal(target, self.sampled_prior_):
            return logits
        shift = np.log(target / self.sampled_prior_)
        return logits + torch.from_numpy(shift[network_order(self.classes_, self.pos_label_)])

    def _target_prior(self, prior: Any) -> NDArray:
        """Class shares of `prior`, in the order of ``classes_``."""
        if not isinstance(prior, str):
            return class_probabilities(prior, self.classes_)
        if prior != "training":  # it may be set after fit, which checks parameters
            raise ValueError(
                'prior must be "training", "sampler", or one probability per class, by label or in '
                f"the order of classes_, got {prior!r}."
            )
        if not hasattr(self, "class_prior_"):
            raise ValueError(
                f"prior={prior!r} needs the class shares of the training data, which this "
                'model does not know. Use prior="sampler", or give the class probabilities.'
            )
        return self.class_prior_

    def _prior_of_probabilities(self) -> NDArray | None:
        """Class shares that probabilities refer to; None for those of the sampler."""
        as_trained = isinstance(self.prior, str) and self.prior == "sampler"
        return None if as_trained else self._target_prior(self.prior)

    def _in_class_order(self, values: torch.Tensor) -> NDArray:
        """Columns by class number of the network, put into the order of ``classes_``."""
        return values.numpy()[:, np.argsort(network_order(self.classes_, self.pos_label_))]

    def _forward(self, X: Any) -> Iterator[Any]:
        """`MILOutput` of each bag; logits and attention are means over the models."""
        return map(mean_output, self._forward_models(X))

    @warns_together
    def _forward_models(self, X: Any) -> Generator[list[Any]]:
        """Output of each model for each bag, which is alone in its batch."""
        for bags, modules in self._read_together(X):
            with isolated(), torch.no_grad(), threads_for(sum(_n_values(b) for _, b in bags)):
                outputs = [self._outputs(batch, modules) for _, batch in bags]
            _require_finite(bags, outputs)
            yield from outputs

    @property
    def _pooled_head(self) -> PooledHead | None:
        """The regression beside the networks; None also in models from before there was one."""
        return vars(self).get("pooled_head_")

    def _outputs(self, batch: FlatBatch, modules: list[Any]) -> list[Any]:
        """Output of each model for a bag, with the logits of the regression on pooled bags."""
        outputs = [forward(module, batch, training=False).to("cpu") for module in modules]
        if (head := self._pooled_head) is None:
            return outputs
        pooled = head.logits(batch.x)
        return [
            replace(output, logits=head.joined(output.logits, pooled), pooled_logits=pooled)
            for output in outputs
        ]

    def _read_together(self, X: Any) -> Iterator[tuple[list[tuple[str, FlatBatch]], list[Any]]]:
        """Names and batches of consecutive small bags, or of one large bag; and the networks.

        Reading and networks take turns less often than with one bag at a time, which leaves more of
        what they need in the caches of the processor.
        """
        together: list[tuple[str, FlatBatch]] = []
        room = SMALL  # so that all of them take one thread, as each one would by itself
        for name, batch, modules in self._single_bag_batches(X):
            n_values = _n_values(batch)
            if together and n_values > room:
                yield together, modules
                together, room = [], SMALL
            together.append((name, batch))
            room -= n_values
            # A bag that is read block by block is open only now.
            if room <= 0 or len(together) == _MOST_TOGETHER or isinstance(batch.x, Blocks):
                yield together, modules
                together, room = [], SMALL
        if together:
            yield together, modules

    def _single_bag_batches(self, X: Any) -> Iterator[tuple[str, FlatBatch, list[Any]]]:
        """Name and batch of each bag, and the networks in eval mode on the device of the batch."""
        check_is_fitted(self)
        bags, spec = check_bags(self, X, reset=False), self._graph_spec()
        device, dtype = resolve_device(self.device), getattr(torch, self.precision_)
        modules = [module.to(device).eval() for module in self.modules_]
        known = (getattr(self, f"{name}_", None) for name in ("largest_feature", "feature_summary"))
        strict = self.training is not None and self.training.strict
        unlike = UnlikeTraining(*known, strict=strict)
        graphs = UnlikeGraphs(spec, vars(self).get("_connected"))
        try:
            for i, bag in enumerate(bags):
                name, width = bags.name(i), self.n_features_in_
                with ExitStack() as opened:
                    with isolated():
                        graph = opened.enter_context(
                            open_graph(bag, name, spec, width, dtype, block_size=_BLOCK_SIZE)
                        )
                        batch = single_bag_batch(*graph).to(device)
                        unlike.look_at(batch.x, name)
                        graphs.look_at(name, len(batch.x), len(batch.edges.sender))
                    yield name, batch, modules
            unlike.warn()
        finally:
            for module in modules:
                clear_workspaces(module)
                module.to("cpu")  # so that the estimator can be unpickled where there is no GPU

    def _graph_spec(self) -> GraphSpec:
        return GraphSpec("none")


def _n_values(batch: FlatBatch) -> int:
    return batch.x.shape[0] * batch.x.shape[1]


def _require_finite(bags: list[tuple[str, FlatBatch]], outputs: list[list[Any]]) -> None:
    logits = torch.stack([torch.cat([output.logits for output in of_bag]) for of_bag in outputs])
    finite = logits.isfinite().flatten(1).all(dim=1)
    if not finite.all():
        name, batch = bags[int(finite.byte().argmin())]
        largest = float(materialize(batch.x).abs().max())
        raise BagError(
            f"{name}: the prediction is not finite; its features reach {largest:.3g}. Scale them "
            "as in training."
        )
