"""Memory during training: fixed, moving average, warm start, re-seeding, unit length."""

import numpy as np
import pytest
import torch
from conftest import make_bags, make_omics, quick_classifier
from skorch.callbacks import Callback

STARTS = {}


class KeepStart(Callback):
    """Remember the memory when the first batch begins."""

    def on_batch_begin(self, net, **kwargs):
        STARTS.setdefault(id(net.module_), net.module_.memory.rows.detach().clone())


def start_and_end(**overrides):
    STARTS.clear()
    bags, y = make_bags()
    clf = quick_classifier(max_epochs=3, early_stopping=False, training__callbacks=[KeepStart()])
    clf.set_params(**overrides).fit(bags, y, omics=make_omics(y))
    return next(iter(STARTS.values())), clf.module_.memory.rows.detach()


def test_fixed_memory_is_bit_identical_after_training():
    start, end = start_and_end(memory__update="fixed")
    assert torch.equal(start, end)


@pytest.mark.parametrize("update", ["gradient", "ema"])
def test_moving_memory_differs_after_training(update):
    start, end = start_and_end(memory__update=update, memory__momentum=0.9)
    assert not torch.equal(start, end)


def test_ema_memory_is_of_unit_length_and_gets_no_gradient():
    _, end = start_and_end(memory__update="ema")
    torch.testing.assert_close(end.norm(dim=2), torch.ones(end.shape[:2]))


def test_start_is_unit_rows_from_kmeans():
    start, _ = start_and_end()
    torch.testing.assert_close(start.norm(dim=2), torch.ones(start.shape[:2]))


def test_renormalize_keeps_rows_of_unit_length():
    _, free = start_and_end(learning_rate=0.05)
    _, kept = start_and_end(learning_rate=0.05, memory__renormalize=True)
    assert (free.norm(dim=2) - 1).abs().max() > 1e-3
    torch.testing.assert_close(kept.norm(dim=2), torch.ones(kept.shape[:2]))


def test_warmup_repeats_the_start_on_learned_projections():
    start, end = start_and_end(memory__update="fixed", memory__warmup=2)
    assert not torch.equal(start, end)


def test_reseed_replaces_components_that_no_patch_uses():
    class DeadRow(Callback):
        def on_epoch_begin(self, net, **kwargs):
            with torch.no_grad():  # a copy of row 0 can never win against it
                net.module_.memory.rows[:, 1] = net.module_.memory.rows[:, 0]

    still = {
        "memory__update": "ema",
        "memory__momentum": 1.0,
        "training__callbacks": [KeepStart(), DeadRow()],
    }
    _, dead = start_and_end(**still)
    _, alive = start_and_end(**still, memory__reseed_unused=True)
    assert torch.equal(dead[:, 1], dead[:, 0])
    assert not torch.isclose(alive[:, 1], alive[:, 0]).all(dim=1).any()


def test_history_has_every_term_and_usage(cohort):
    bags, y, omics = cohort
    history = quick_classifier(max_epochs=3).fit(bags, y, omics=omics).history_
    for term in ("loss", "ce", "align_wsi", "memory", "align_omics", "mse"):
        assert history[f"train_{term}"].between(0, np.inf).all()
    for column in ("valid_auc", "memory_active_ratio", "valid_memory_active_ratio"):
        assert history[column].between(0, 1).all()
    for column in ("memory_perplexity_0", "valid_memory_perplexity_1"):
        assert history[column].between(1, 4).all()
    assert list(history["epoch"]) == [1, 2, 3]
    assert history["memory_effective_components"].between(2, 8).all()
    assert (history["memory_drift"].diff().dropna() > 0).all()


def test_history_loss_is_the_weighted_sum_of_its_terms(cohort):
    bags, y, omics = cohort
    clf = quick_classifier(max_epochs=2, early_stopping=False).fit(bags, y, omics=omics)
    row = clf.history_.iloc[-1]
    total = 0.5 * row.train_ce + 0.01 * row.train_mse + 0.1 * row.train_memory
    total += 0.05 * row.train_align_omics + 0.2 * row.train_align_wsi
    assert row.train_loss == pytest.approx(total, rel=1e-4)
