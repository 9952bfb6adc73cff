"""Losses of the histology-only models against numbers computed by hand."""

import math

import pytest
import torch
from torch import tensor

from sk_momkd.losses.mil import (
    cross_entropy_terms,
    dsmil_terms,
    dtfd_terms,
    soft_labels,
    stream_loss,
)
from sk_momkd.models.dsmil import DSMILOutput
from sk_momkd.models.dtfd import DTFDOutput
from sk_momkd.output import MILOutput

NONE = torch.empty(0)
LOGITS = tensor([[0.0, 0.0], [0.0, math.log(3)]])


def test_cross_entropy_is_one_value_per_bag():
    terms = cross_entropy_terms(MILOutput(LOGITS, NONE, NONE), tensor([1, 0]))
    assert terms["ce"].tolist() == pytest.approx([math.log(2), math.log(4)])


def test_soft_labels_mix_the_smoothed_label_with_the_teacher_of_paired_bags():
    target = soft_labels(
        tensor([1, 0]),
        2,
        smoothing=0.2,
        teacher=tensor([[0.4, 0.6]]),
        paired=tensor([True, False]),
        weight=0.5,
    )
    # t = (.1, .9), half of it and half of (.4, .6); the second bag has no omics
    torch.testing.assert_close(target, tensor([[0.25, 0.75], [0.9, 0.1]]))


def test_cross_entropy_with_a_soft_label_is_the_mean_over_classes():
    target = tensor([[0.5, 0.5], [0.25, 0.75]])
    terms = cross_entropy_terms(MILOutput(LOGITS, NONE, NONE), tensor([1, 0]), target)
    second = 0.25 * math.log(4) + 0.75 * math.log(4 / 3)
    assert terms["ce"].tolist() == pytest.approx([math.log(2), second])


def test_stream_loss_is_the_mean_over_classes():
    loss = stream_loss(tensor([[0.0, math.log(3)]]), tensor([[1, 0]]))
    assert loss.tolist() == pytest.approx([(math.log(2) + math.log(4)) / 2])


def test_dsmil_streams_meet_one_hot_targets():
    output = DSMILOutput(NONE, NONE, NONE, bag_logits=LOGITS, max_logits=-LOGITS, critical=NONE)
    terms = dsmil_terms(output, tensor([0, 1]))
    good = (math.log(2) + math.log(4 / 3)) / 2
    bad = (math.log(2) + math.log(4)) / 2
    assert terms["bag"].tolist() == pytest.approx([math.log(2), good])
    assert terms["max"].tolist() == pytest.approx([math.log(2), bad])


def test_dtfd_tier_1_is_the_mean_over_the_chunks_of_each_bag():
    chunks = tensor([[0.0, math.log(3)], [0.0, 0.0], [0.0, 0.0]])
    output = DTFDOutput(LOGITS, NONE, NONE, tier1_logits=chunks, chunk_bag=tensor([0, 0, 1]))
    terms = dtfd_terms(output, tensor([0, 1]))
    expected = [(math.log(4) + math.log(2)) / 2, math.log(2)]
    assert terms["tier1"].tolist() == pytest.approx(expected)
    assert terms["tier2"].tolist() == pytest.approx([math.log(2), math.log(4 / 3)])
