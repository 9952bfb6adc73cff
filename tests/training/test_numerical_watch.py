"""Training that goes wrong with finite numbers: the warning, its bag, and when there is none."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from sk_momkd import TrainingError
from sk_momkd.training.callbacks import ClipGradients
from sk_momkd.training.numerical_watch import NumericalWatch, raise_diverged, report_findings


class History:
    def __init__(self, losses):
        self.losses = losses

    def __getitem__(self, key):
        return [{"train_loss": loss} for loss in self.losses]

    def __len__(self):
        return 3


class Bags:
    def name(self, i):
        return f"bag 'S{i}'"


def net_of(losses=(0.1, 0.3), **module):
    layer = nn.Linear(2, 1)
    return SimpleNamespace(
        history=History(losses),
        data=(SimpleNamespace(bags=Bags()), None),
        criterion=SimpleNamespace(weights={"ce": 0.5, "memory": 0.1}),
        lr=0.02,
        module_=SimpleNamespace(**module),
        terms_={"ce": torch.tensor([2.0])},
        get_all_learnable_params=lambda: iter(layer.named_parameters()),
        layer=layer,
    )


def findings(net, logits=((0.0, 1.0), (0.0, 2.0)), **columns):
    watch = NumericalWatch()
    watch.on_train_begin(net)
    for i, row in enumerate(logits):
        batch = (SimpleNamespace(index=torch.tensor([i + 4])), None)
        output = SimpleNamespace(logits=torch.tensor([row]))
        watch.on_batch_end(net, batch=batch, training=True, y_pred=output)
        watch.on_batch_end(net, batch=batch, training=False, y_pred=output)
    history = {"train_loss": [0.7, 0.6, 0.5], "train_ce": [0.7, 0.6, 0.5], **columns}
    return watch.findings(net, pd.DataFrame(history))


@pytest.mark.parametrize(
    ("columns", "logits"),
    [
        ({}, ((0, 1), (0, 2))),
        ({"train_loss": [0.7, 500.0, 0.9]}, ((0, 1), (0, 2))),  # it has recovered
        ({}, ((0, 99), (0, 1))),  # half of the slides
        ({"memory_perplexity_0": [9, 4, 1.6], "memory_perplexity_1": [9, 9, 9]}, ((0, 1), (0, 2))),
    ],
)
def test_sound_training_is_not_reported(columns, logits):
    net = net_of(memory=SimpleNamespace(rows=torch.zeros(2, 16, 3)))
    assert findings(net, logits, **columns) == []


def test_loss_that_runs_away_is_reported_with_epoch_term_bag_and_remedy():
    loss = {"train_loss": [0.7, 60.0, 90.0], "train_memory": [1.0, 500.0, 895.0]}
    (message,) = findings(net_of(losses=(12.0, 170.0)), **loss)
    assert "loss is 90 in the last epoch and was 0.7 in the first" in message
    assert "above 10 since epoch 2 of 3" in message
    assert "largest term is 'memory' (89.5), and the largest loss is that of bag 'S5'" in message
    assert "Lower the learning rate (0.02)" in message
    (message,) = findings(net_of(), train_loss=[2e3, 3e3, 4e3])
    assert "since epoch 1 of 3" in message


def test_entropy_far_above_that_of_a_guess_is_reported_with_the_bag():
    (message,) = findings(net_of(), train_ce=[0.7, 1.0, 2.2])
    assert "cross-entropy of the training slides is 2.2" in message
    assert "guessing gives 0.693; the largest loss is that of bag 'S5'" in message


def test_saturated_probabilities_are_reported_with_the_bag():
    (message,) = findings(net_of(), [(0.0, 31.0, -5.0), (44.0, 2.0, 1.0), (0.0, 3.0, 1.0)])
    assert "0 or 1 to 13 digits for 2 of 3 slides" in message
    assert "e.g. bag 'S5', whose logits differ by 42" in message


def test_dead_memory_is_reported_with_its_class_and_remedy():
    usage = {"memory_perplexity_0": [9.0, 4.0, 1.02], "memory_perplexity_1": [9.0, 4.0, 8.0]}
    net = net_of(memory=SimpleNamespace(rows=torch.zeros(2, 16, 3)))
    (message,) = findings(net, **usage)
    assert "of the 16 components of a class" in message
    assert "class '0' 1.02 in epoch 3" in message
    assert "class '1'" not in message
    assert "memory__reseed_unused=True" in message
    assert findings(net_of(memory=SimpleNamespace(rows=torch.zeros(2, 3, 3))), **usage) == []


def test_findings_are_warnings_or_errors():
    with pytest.warns(ConvergenceWarning, match="first"):
        report_findings(["first"], strict=False)
    with pytest.raises(TrainingError, match="first"):
        report_findings(["first", "second"], strict=True)


@pytest.mark.parametrize("size", [1e25, np.inf, np.nan])
def test_gradient_whose_norm_overflows_is_refused_with_bag_epoch_and_term(size):
    net = net_of()
    net.layer.weight.grad = torch.tensor([[1.0, size]])
    net.layer.bias.grad = torch.tensor([2.0])
    batch = (SimpleNamespace(index=torch.tensor([7]), x=torch.full((2, 2), 3e9)), None)
    named = list(net.layer.named_parameters())
    message = (
        r"epoch 3: the gradient of bag 'S7' overflows; it reaches .* in 'weight', and its norm is "
        r"(inf|nan), its terms \{'ce': 2.0\}; features reach 3e\+09"
    )
    with pytest.raises(TrainingError, match=message):
        ClipGradients(1.0, "global").on_grad_computed(net, named_parameters=named, batch=batch)
    with pytest.raises(TrainingError, match="gradient of the last bags of it overflows"):
        ClipGradients(1.0, "global").on_grad_computed(net, named_parameters=named, batch=None)


def test_loss_after_weights_that_are_not_finite_says_so():
    net = net_of()
    batch = SimpleNamespace(index=torch.tensor([2]), x=torch.ones(2, 2))
    loss = torch.tensor(torch.nan)
    with pytest.raises(TrainingError, match=re.escape("the loss of bag 'S2' is nan, its terms")):
        raise_diverged(net, loss, batch, training=True)
    with torch.no_grad():
        net.layer.weight[0, 0] = torch.nan
    with pytest.raises(TrainingError, match="nan, after weights that the step before left not"):
        raise_diverged(net, loss, batch, training=True)


def test_validation_loss_that_is_not_finite_has_no_terms_of_the_training():
    net = net_of()
    net.data = (None, SimpleNamespace(bags=Bags()))
    batch = SimpleNamespace(index=torch.tensor([2]), x=torch.ones(2, 2))
    with pytest.raises(TrainingError, match=r"loss of bag 'S2' is inf; features reach 1\. Scale"):
        raise_diverged(net, torch.tensor(torch.inf), batch, training=False)


def test_term_of_weight_zero_is_not_the_largest():
    net = net_of(losses=(12.0, 170.0))
    net.criterion.weights = {"off": 0.0, "ce": 0.5, "memory": 0.1}
    loss = {"train_loss": [0.7, 60.0, 90.0], "train_memory": [1.0, 5e2, 895.0]}
    (message,) = findings(net, **loss, train_off=[np.nan] * 3)
    assert "largest term is 'memory' (89.5)" in message
