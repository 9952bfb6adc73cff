"""What a step on a GPU must not do, checked without one: on torch's device "meta".

It has no values, so that whatever reads one raises an error, as on a GPU it would wait. The
operands of each operation must be on one device.
"""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sk_momkd.exceptions import TrainingError
from sk_momkd.losses.momkd import momkd_terms
from sk_momkd.models.momkd import MoMKD
from sk_momkd.nn.edges import Edges
from sk_momkd.nn.initialization import initialise
from sk_momkd.nn.segment import keep_sizes, segment_sizes, true_positions
from sk_momkd.training.batches import FlatBatch, _copied_ahead, forward
from sk_momkd.training.callbacks import ClipGradients
from sk_momkd.training.config import Objective, weighted_total
from sk_momkd.training.loop import MILNet

WEIGHTS = {"ce": 0.5, "mse": 0.01, "memory": 0.1, "align_omics": 0.05, "align_wsi": 0.2}
COPIES = ("_to_copy", "copy_")


class OneDevice(TorchDispatchMode):
    """Raises for an operation on tensors of several devices; numbers may be anywhere."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        flat = torch.utils._pytree.tree_leaves((args, kwargs))
        devices = {t.device.type for t in flat if isinstance(t, torch.Tensor) and t.dim()}
        if len(devices) > 1 and not any(name in str(function) for name in COPIES):
            raise AssertionError(f"{function} of tensors on {devices}")
        return function(*args, **(kwargs or {}))


def batch_of_three():
    sizes, random = [5, 3, 4], torch.Generator().manual_seed(0)
    graphs = [Edges.of(torch.randint(0, n, (2, 9), generator=random), n) for n in sizes]
    return FlatBatch(
        x=torch.randn(12, 6, generator=random),
        edges=Edges.join(graphs),
        batch=torch.from_numpy(np.repeat(np.arange(3), sizes)),
        n_bags=3,
        index=torch.arange(3),
        y=torch.tensor([0, 1, 1]),
        paired=torch.tensor([True, False, True]),
        omics=torch.randn(2, 10, generator=random),
        teacher=torch.full((2, 2), 0.5),
    )


def total(module, batch):
    terms = momkd_terms(forward(module, batch, training=True), batch.y)
    return weighted_total(terms, WEIGHTS)


def small_model():
    module = MoMKD(6, 10, 2, dim=8, projection_dim=4, n_components=3)
    initialise(module, torch.Generator().manual_seed(0))
    return module.train()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_step_reads_no_value_back_and_keeps_to_one_device(dtype):
    batch, module = batch_of_three().to("meta"), small_model().to("meta")
    batch = batch.map(lambda t: t.to(dtype) if t is batch.x else t)
    with OneDevice():
        total(module, batch).backward()
    assert all(p.grad.is_meta for p in module.parameters() if p.requires_grad)


def test_this_check_notices_what_waits_for_a_value():
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.ones(3, device="meta").sum().item()
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.ones(3, device="meta")[torch.ones(3, dtype=torch.bool, device="meta")]
    with OneDevice(), pytest.raises(AssertionError, match="of tensors on"):
        torch.ones(3, device="meta") + torch.ones(3)


def test_batch_keeps_the_sizes_of_its_bags_wherever_it_moves():
    batch = batch_of_three()
    moved = batch.to("meta")
    assert segment_sizes(moved.batch, 3) == [5, 3, 4]
    assert moved.to("meta") is moved
    assert moved.edges.in_degrees.runs == batch.edges.in_degrees.runs


def test_segment_sizes_of_an_index_without_kept_ones_are_counted():
    index = torch.tensor([0, 0, 2])
    assert segment_sizes(index, 3) == [2, 0, 1]
    assert segment_sizes(keep_sizes(index, [1, 1, 1]), 3) == [1, 1, 1]


@pytest.mark.parametrize("mask", [[True, False, True], [False] * 3, [True] * 3])
def test_true_positions_are_those_of_nonzero(mask):
    mask = torch.tensor(mask)
    expected = mask.nonzero().squeeze(1)
    assert torch.equal(true_positions(mask, len(expected)), expected)


def net_with(objective, device):
    net = MILNet(torch.nn.Linear, criterion=objective, device=device).initialize_criterion()
    net.history_, net.terms_ = [{}], {}
    return net


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("training", [True, False])
def test_loss_of_a_step_reads_no_value_back(training, weighted):
    batch, module = batch_of_three(), small_model().to("meta")
    if weighted:
        batch = replace(batch, weight=torch.ones(3), paired_weight=torch.ones(2))
    batch = batch.to("meta")
    objective = Objective(
        momkd_terms, WEIGHTS, paired=frozenset({"mse", "align_omics"}), teacher_weight=0.5
    )
    net = net_with(objective, "meta")
    with OneDevice():
        output = forward(module, batch, training=training)
        loss = net.get_loss(output, batch.y, batch, training=training)
    assert loss.is_meta


def test_loss_that_is_not_finite_still_raises_at_once_on_a_cpu():
    batch = batch_of_three()
    output = forward(small_model(), replace(batch, x=batch.x * torch.nan), training=True)
    net = net_with(Objective(momkd_terms, WEIGHTS), "cpu")
    net.data = (SimpleNamespace(bags=SimpleNamespace(name=str)), None)
    vars(net)["_learnable"] = []
    with pytest.raises(TrainingError, match="is nan"):
        net.get_loss(output, batch.y, batch, training=True)


def test_clipping_reads_no_value_back_and_its_norms_are_tested_after_the_epoch(monkeypatch):
    net, clip = SimpleNamespace(module_=None, history=[{}]), ClipGradients(1.0, "global")
    weight = torch.nn.Parameter(torch.empty(3, device="meta"))
    weight.grad = torch.empty(3, device="meta")
    clip.on_epoch_begin(net)
    for _ in range(2):
        clip.on_grad_computed(net, named_parameters=[("weight", weight)])
    assert [norm.is_meta for norm in clip.norms_] == [True, True]
    clip.norms_ = [torch.tensor(1.0), torch.tensor(torch.inf), torch.tensor(torch.nan)]
    with pytest.raises(TrainingError, match="epoch 1: 2 of 3 norms of gradients in it are not fin"):
        clip.on_epoch_end(net)
    clip.norms_ = [torch.tensor(1.0)]
    clip.on_epoch_end(net)
    assert clip.norms_ == []


class FakeStream:
    """Notes what a stream copies and waits for; an event is the number of copies before it."""

    def __init__(self, *_):
        self.n_copied, self.waited = 0, []

    def record_event(self):
        return self.n_copied

    def wait_event(self, event):
        self.waited.append(event)


def test_computation_waits_for_the_copy_of_its_own_batch_alone(monkeypatch):
    copying, computing = FakeStream(), FakeStream()
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: copying)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: computing)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())

    class Batch:
        def to(self, device):
            copying.n_copied += 1
            return self

        def map(self, function):
            return self

    copied = [copying.n_copied for _ in _copied_ahead(((Batch(), i) for i in range(3)), "cuda")]
    assert copied == [2, 3, 3]  # one batch ahead
    assert computing.waited == [1, 2, 3]


def test_losses_of_an_epoch_on_a_gpu_become_numbers_and_must_be_finite():
    net = MILNet(torch.nn.Linear, criterion=None)
    net.history_ = []
    rows = [
        {"train_loss": torch.tensor(1.5)},
        {"valid_loss": 0.5},
        {"train_loss": torch.tensor(2.0)},
    ]
    net._read_losses(rows, "train")
    assert [row.get("train_loss") for row in rows] == [1.5, None, 2.0]
    rows[2]["train_loss"] = torch.tensor(torch.nan)
    with pytest.raises(TrainingError, match="train loss is nan from batch 1 on"):
        net._read_losses(rows, "train")
