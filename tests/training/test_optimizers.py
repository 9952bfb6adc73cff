"""Optimisers and schedules against their definitions."""

from functools import partial

import numpy as np
import pytest
import torch
from conftest import make_bags, mean_auc, quick_classifier
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from sk_momkd.training.config import TrainingConfig
from sk_momkd.training.optimizers import FusedAdam, LookaheadRAdam, optimizer_settings


def config(**settings):
    given = {
        "max_epochs": 1,
        "batch_size": 1,
        "accumulation_steps": 1,
        "optimizer": "adamw",
        "learning_rate": 0.1,
        "weight_decay": 0.5,
        "lr_schedule": None,
        "sampler": "shuffle",
        "max_grad_norm": None,
        "monitor": "auc",
        "patience": 1,
        "tie_break": "loss",
        "min_epochs": 1,
        "device": "cpu",
        "verbose": 0,
    }
    return TrainingConfig(**(given | settings))


def first_step(name):
    """Where a weight of 1 with gradient 1e-3 goes in one step."""
    settings = optimizer_settings(config(optimizer=name))
    kind, rate = settings.pop("optimizer"), settings.pop("lr")
    weight = torch.nn.Parameter(torch.ones(1))
    given = {key.removeprefix("optimizer__"): value for key, value in settings.items()}
    optimizer = kind([weight], lr=rate, **given)
    weight.grad = torch.full((1,), 1e-3)
    optimizer.step()
    return weight.item()


def test_weight_decay_is_coupled_in_adam_alone():
    # A first step of Adam is the learning rate, whatever the gradient's size.
    assert first_step("adam") == pytest.approx(0.9, abs=1e-4)
    assert first_step("adamw") == pytest.approx(1 - 0.1 * 0.5 - 0.1, abs=1e-4)
    # The first steps of RAdam are plain: no division by the second moment.
    assert first_step("lookahead_radam") == pytest.approx(1 - 0.1 * 0.5 - 0.1 * 1e-3, abs=1e-6)


@pytest.mark.parametrize("decoupled", [False, True])
def test_fused_adam_equals_torch_to_the_bit_also_where_gradients_are_missing(decoupled):
    def run(kind, **settings):
        random = torch.Generator().manual_seed(0)
        weights = [torch.nn.Parameter(torch.randn(n, generator=random)) for n in (3, 40, 17)]
        optimizer = kind(weights, lr=0.1, weight_decay=0.3, **settings)
        for step in range(6):
            for i, weight in enumerate(weights):
                has = (step + i) % 3 > 0
                weight.grad = torch.randn(len(weight), generator=random) if has else None
            optimizer.step()
            if step == 3:  # as a checkpoint does it
                saved, optimizer = optimizer.state_dict(), kind(weights, **settings)
                optimizer.load_state_dict(saved)
        return torch.cat(weights).detach()

    theirs = torch.optim.AdamW if decoupled else torch.optim.Adam
    ours = run(FusedAdam, decoupled_weight_decay=decoupled)
    assert torch.equal(ours, run(theirs, fused=True))


def test_hooks_of_fused_adam_are_called_with_the_weights_before_and_after():
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer, seen = FusedAdam([weight], lr=0.1), []

    def note(*_):
        seen.append(weight.item())

    handles = [
        optimizer.register_step_pre_hook(note),
        optimizer.register_step_post_hook(note),
        register_optimizer_step_pre_hook(note),
        register_optimizer_step_post_hook(note),
    ]
    for left in range(4, -1, -1):
        weight.grad = torch.ones(1)
        optimizer.step()
        assert len(seen) == left
        seen.clear()
        if handles:
            handles.pop().remove()


def test_sgd_has_momentum_and_coupled_weight_decay():
    assert first_step("sgd") == pytest.approx(1 - 0.1 * (1e-3 + 0.5), abs=1e-6)
    settings = optimizer_settings(config(optimizer="sgd", weight_decay=0.0, momentum=0.5))
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=settings["optimizer__momentum"])
    for _ in range(2):
        weight.grad = torch.ones(1)
        optimizer.step()
    assert weight.item() == pytest.approx(1 - 0.1 - 0.1 * 1.5)


def test_lookahead_goes_half_of_the_way_every_sixth_step():
    def run(kind, n_steps, **settings):
        weight = torch.nn.Parameter(torch.ones(3))
        optimizer = kind([weight], lr=0.1, **settings)
        for _ in range(n_steps):
            weight.grad = weight.detach().clone()
            optimizer.step()
        return weight.detach()

    plain = run(torch.optim.RAdam, 6, decoupled_weight_decay=True)
    torch.testing.assert_close(
        run(LookaheadRAdam, 5), run(torch.optim.RAdam, 5, decoupled_weight_decay=True)
    )
    torch.testing.assert_close(run(LookaheadRAdam, 6), (1 + plain) / 2)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", 10 * (1 - (np.arange(10) + 1) / 11)),
        ("step", np.repeat([10, 2], 5)),
        ("cosine", 5 * (1 + np.cos(np.pi * np.arange(10) / 10))),
    ],
)
def test_schedule_follows_its_formula(schedule, expected):
    clf = quick_classifier(max_epochs=10, early_stopping=False, training__lr_schedule=schedule)
    rates = clf.set_params(learning_rate=1e-7).fit(*make_bags()).history_["learning_rate"]
    np.testing.assert_allclose(rates * 1e8, expected, rtol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("optimizer", ["adam", "lookahead_radam"])
def test_every_optimizer_learns(optimizer):
    bags, y = make_bags(40)
    settings = {"max_epochs": 8, "training__lr_schedule": None, "batch_size": 4}
    make = partial(quick_classifier, training__optimizer=optimizer, **settings)
    assert mean_auc(make, bags, y) >= 0.8


def test_best_after_counts_epochs_from_a_share_of_them():
    assert config(max_epochs=200, best_after=0.8).first_best == 161
    assert config(max_epochs=10).first_best == 1
