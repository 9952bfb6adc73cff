"""The loop: batches, accumulation, clipping, best epoch, stopping, interruption."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import make_bags, quick_classifier
from skorch.callbacks import Callback, Checkpoint
from torch import nn

from sk_momkd.training.batches import (
    BagDataset,
    BagLoader,
    GraphSpec,
    batches_within,
    draw_batches,
)
from sk_momkd.training.callbacks import BestEpoch, ClipGradients, StopEarly, ValidationScores
from sk_momkd.training.interrupts import EarlyStop


class FakeNet:
    """As much of a net as callbacks touch."""

    def __init__(self, scores=()):
        self.module_ = nn.Linear(1, 1)
        self.history = History()
        self.scores = scores


class History(list):
    def __getitem__(self, key):
        return super().__getitem__(key[0])[key[1]] if isinstance(key, tuple) else list(self)[key]

    def record(self, name, value):
        list.__getitem__(self, -1)[name] = value


def replay(scores, patience, min_epochs, *, tie_break="latest", losses=None, **options):
    """Epochs run, and the weight that is restored when epoch e ends with weight e."""
    net, best = FakeNet(), BestEpoch("valid_auc", 1, tie_break, patience, min_epochs, **options)
    losses = [1.0] * len(scores) if losses is None else losses
    stop = StopEarly(best)
    best.on_train_begin(net)
    for epoch, (score, loss) in enumerate(zip(scores, losses, strict=True)):
        net.history.append({"valid_auc": score, "valid_loss": loss})
        with torch.no_grad():
            net.module_.weight.fill_(epoch)
        best.on_epoch_end(net)
        try:
            stop.on_epoch_end(net)
        except EarlyStop:
            break
    best.on_train_end(net)
    return len(net.history), net.module_.weight.item()


@pytest.mark.parametrize(
    ("scores", "patience", "min_epochs", "n_run", "restored"),
    [
        ([0.6, 0.7, 0.65, 0.9], 1, 3, 3, 1),  # release: first drop from epoch index 2
        ([0.6, 0.5, 0.7, 0.6], 1, 3, 4, 2),  # a drop at index 1 does not stop
        ([0.6, 0.6, 0.6, 0.5, 0.5], 2, 1, 5, 2),  # the latest of a tie
        ([0.9, 0.1, 0.1, 0.1], 2, 4, 4, 0),  # not before min_epochs
    ],
)
def test_stopper_follows_patience_and_restores_best(scores, patience, min_epochs, n_run, restored):
    assert replay(scores, patience, min_epochs) == (n_run, restored)


def test_tie_is_progress_only_if_the_loss_improves():
    saturated = [0.75] * 8
    assert replay(saturated, 3, 1, tie_break="loss") == (4, 0)
    assert replay(saturated, 3, 1, tie_break="latest") == (8, 7)
    losses = [0.9, 0.8, 0.85, 0.7, 0.7, 0.8, 0.9, 0.1]
    assert replay(saturated, 3, 1, tie_break="loss", losses=losses) == (7, 3)
    # a better score is progress whatever its loss, and its loss is the one to improve on
    assert replay([0.7, 0.8, 0.8], 3, 1, tie_break="loss", losses=[0.1, 0.9, 0.5]) == (3, 2)


@pytest.mark.parametrize("auc", [0.75, 1.0])
def test_tie_with_a_loss_that_creeps_is_the_best_but_no_progress(auc):
    creeping = [0.5 * (1 - 1e-4) ** epoch for epoch in range(100)]
    assert replay([auc] * 100, 15, 10, tie_break="loss", losses=creeping) == (16, 15)
    halving = [0.5 + 0.1 * 0.5**epoch for epoch in range(100)]  # as with a falling learning rate
    n_run, restored = replay([auc] * 100, 15, 10, tie_break="loss", losses=halving)
    assert (n_run, restored) == (23, 22)  # epoch 7 is the last that is 1 % below a progress


def test_tie_with_a_loss_that_falls_by_one_percent_of_the_last_progress_is_progress():
    slow = [0.995**epoch for epoch in range(40)]  # 1 % in three epochs
    assert replay([0.75] * 40, 3, 1, tie_break="loss", losses=slow) == (40, 39)
    assert replay([0.75] * 40, 2, 1, tie_break="loss", losses=slow) == (3, 2)
    # by small steps from a lower loss than that of the last progress, not from the best
    losses = [1.0, 0.992, 0.985, 0.98, 0.979]
    assert replay([0.75] * 5, 2, 1, tie_break="loss", losses=losses) == (5, 4)


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_tie_with_a_loss_of_zero_or_less_is_no_endless_progress(scale):
    assert replay([1.0] * 50, 5, 1, tie_break="loss", losses=[scale] * 50) == (6, 0)


def test_epochs_before_the_first_that_may_be_best_are_passed_over():
    assert replay([0.9, 0.9, 0.6, 0.7, 0.5], 2, 1, first_best=3) == (5, 3)
    assert replay([0.9, 0.9, 0.6, 0.5, 0.5], 2, 1, first_best=3) == (5, 2)


def test_release_preset_stops_like_the_published_script():
    release = quick_classifier().preset("release")
    assert (release.patience, release.training.min_epochs) == (1, 3)
    assert release.training.tie_break == "latest"


@pytest.mark.parametrize(
    ("labels", "proba", "auc"),
    [
        ([0, 1, 1], [[0.9, 0.1], [0.6, 0.4], [0.7, 0.3]], 1.0),
        ([0, 1, 0], [[0.9, 0.1], [0.6, 0.4], [0.5, 0.5]], 0.5),
        ([0, 1, 2, 0], [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.8, 0.1, 0.1]], 1.0),
    ],
)
def test_validation_auc_two_and_three_classes(labels, proba, auc):
    net, scores = FakeNet(), ValidationScores()
    net.history.append({})
    scores.on_epoch_begin(net)
    output = SimpleNamespace(logits=torch.tensor(proba).log())
    batch = SimpleNamespace(weight=None), torch.tensor(labels)
    scores.on_batch_end(net, batch=batch, y_pred=output)
    scores.on_epoch_end(net)
    assert net.history[-1, "valid_auc"] == auc


def test_budget_consecutive_bags_share_a_batch_up_to_the_budget():
    assert batches_within(np.array([3, 3, 3, 20, 1]), budget=6) == [[0, 1], [2], [3], [4]]


def test_draw_batches_balanced_draws_classes_equally_and_shuffle_every_bag_once():
    y = np.repeat([0, 1], [3000, 1000])
    random = torch.Generator().manual_seed(0)
    drawn = np.concatenate(list(draw_batches(y, "balanced", 16, random)))
    assert y[drawn].mean() == pytest.approx(0.5, abs=0.05)
    drawn = np.concatenate(list(draw_batches(y, "shuffle", 16, random)))
    assert sorted(drawn) == list(range(4000))


def dataset(paired, n=4):
    bags, y = make_bags(n)
    omics = np.arange(n * 3, dtype=np.float32).reshape(n, 3)
    return BagDataset(bags, y, GraphSpec(), 6, omics=omics, paired=np.array(paired))


def test_batch_semi_paired_adds_rows_only_for_paired_bags():
    data = dataset([True, False, True, False])
    batch, y = next(iter(BagLoader(data, [range(4)])))
    assert batch.paired.tolist() == [True, False, True, False]
    assert batch.omics.tolist() == [[0, 1, 2], [6, 7, 8]]
    assert y.tolist() == [0, 1, 0, 1]
    assert len(batch.x) == data.sizes.sum()


def test_dataset_beyond_cache_reads_again_with_equal_content():
    bags, y = make_bags(4)
    kept = BagDataset(bags, y, GraphSpec(), 6)
    read = BagDataset(bags, y, GraphSpec(), 6, cache_bytes=0)
    for i in range(4):
        assert torch.equal(kept[i].x, read[i].x)
        assert torch.equal(kept[i].edges.sender, read[i].edges.sender)


def gradients(clip, big):
    class Branched(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))

        def branches(self):
            return {"a": [self.a], "b": [self.b]}

    net = FakeNet()
    net.module_ = Branched()
    net.module_.a.grad, net.module_.b.grad = torch.ones(1), torch.full((1,), big)
    named = list(net.module_.named_parameters())
    ClipGradients(2.0, clip).on_grad_computed(net, named_parameters=named)
    return net.module_.a.grad.item(), net.module_.b.grad.item()


def test_clip_by_branch_keeps_a_large_branch_from_shrinking_the_other():
    assert gradients("branch", 100.0) == pytest.approx((1.0, 2.0), rel=1e-4)
    assert gradients("global", 100.0)[0] < 0.03


@pytest.mark.parametrize(
    "shapes", [[(), (3,), (70, 70), (4096,), (2, 2, 4097)], [(3,), (4, 2)], [(65, 64)], []]
)
def test_clipping_of_small_and_large_gradients_is_that_of_torch(shapes):
    random = torch.Generator().manual_seed(0)
    drawn = [torch.randn(shape, generator=random) for shape in shapes]

    def parameters():
        found = [nn.Parameter(torch.zeros(shape)) for shape in [*shapes, (5,)]]
        for parameter, gradient in zip(found, drawn, strict=False):
            parameter.grad = gradient.clone()
        return found  # the last one has no gradient

    ours, theirs = parameters(), parameters()
    named = [(str(i), parameter) for i, parameter in enumerate(ours)]
    ClipGradients(0.5, "global").on_grad_computed(FakeNet(), named_parameters=named)
    nn.utils.clip_grad_norm_(theirs, 0.5)
    assert ours[-1].grad is None
    for a, b in zip(ours[:-1], theirs[:-1], strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def fitted_weights(**overrides):
    bags, y = make_bags()
    clf = quick_classifier(max_epochs=2, early_stopping=False, dropout=0, network__head_dropout=0)
    clf.set_params(**overrides).fit(bags, y)
    return torch.cat([p.detach().flatten() for p in clf.module_.parameters()])


def test_accumulation_two_batches_equals_one_of_twice_the_size():
    # 24 bags in batches of 8: the accumulated group of an epoch's end is flushed, not lost
    big = fitted_weights(batch_size=12, sampler="shuffle")
    accumulated = fitted_weights(batch_size=6, training__accumulation_steps=2, sampler="shuffle")
    torch.testing.assert_close(big, accumulated, atol=2e-4, rtol=1e-3)
    one_step = fitted_weights(batch_size=8, training__accumulation_steps=100, max_epochs=1)
    untrained = fitted_weights(batch_size=8, learning_rate=1e-30, weight_decay=0.0, max_epochs=1)
    assert not torch.equal(one_step, untrained)


class Interrupting(Callback):
    def on_batch_end(self, net, **kwargs):
        raise KeyboardInterrupt


class StopsAtOnce(Callback):
    def on_epoch_end(self, net, **kwargs):
        raise KeyboardInterrupt


class Counter(Callback):
    def __init__(self, seen=()):
        self.seen = seen

    def on_epoch_end(self, net, **kwargs):
        self.n_ = getattr(self, "n_", 0) + 1


@pytest.mark.parametrize("schedule", ["plateau", "cosine", None])
def test_schedule_lowers_the_learning_rate_as_named(schedule):
    bags, y = make_bags()
    clf = quick_classifier(max_epochs=12, early_stopping=False, training__lr_schedule=schedule)
    still = {"learning_rate": 1e-7, "dropout": 0, "network__head_dropout": 0, "sampler": "shuffle"}
    rates = clf.set_params(**still).fit(bags, y).history_["learning_rate"] * 1e8
    if schedule is None:
        assert (rates == 10.0).all()
    elif schedule == "plateau":
        assert rates.iloc[-1] == pytest.approx(2.0)
    else:
        np.testing.assert_allclose(rates, 5 * (1 + np.cos(np.pi * np.arange(12) / 12)), rtol=1e-6)


def test_fit_interrupted_raises_and_leaves_no_half_model(cohort):
    bags, y, _ = cohort
    clf = quick_classifier(training__callbacks=[Interrupting()])
    with pytest.raises(KeyboardInterrupt):
        clf.fit(bags, y)
    assert not hasattr(clf, "module_")


def test_callbacks_of_the_user_may_stop_and_stay_untouched(cohort):
    bags, y, _ = cohort
    counter = Counter()
    clf = quick_classifier(training__callbacks=[("count", counter), StopsAtOnce()]).fit(bags, y)
    assert clf.n_iter_ == 1
    assert not hasattr(counter, "n_")
    assert clf.callbacks_[0][1].n_ == 1


def test_callbacks_skorch_checkpoint_saves_while_training(cohort, tmp_path):
    bags, y, _ = cohort
    saved = Checkpoint(dirname=str(tmp_path), monitor=None, f_history=None)
    clf = quick_classifier(max_epochs=2, early_stopping=False, training__callbacks=[saved]).fit(
        bags, y
    )
    weights = torch.load(tmp_path / "params.pt", weights_only=True)
    assert torch.equal(weights["memory.rows"], clf.module_.memory.rows)
