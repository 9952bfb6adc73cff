"""The stacked networks of the search for small cohorts against the library's own."""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from sk_momkd.losses.mil import soft_labels
from sk_momkd.losses.momkd import momkd_terms
from sk_momkd.nn.edges import Edges
from sk_momkd.training.config import weighted_total

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from small_search import GRID, Folds, Settings, fit
from small_stack import Stack

N_FITS, N_BAGS, N_INSTANCES = 3, 10, 4
SMALL = Settings(
    hidden_dim=8,
    projection_dim=4,
    n_components=3,
    head_hidden_dim=5,
    omics_hidden_dim=6,
    batch_size=4,
    max_epochs=2,
    dropout=0.0,
    head_dropout=0.0,
    input_dropout=0.0,
    lambda_teacher=0.5,
    teacher_c=1e-4,
)


@pytest.fixture
def folds():
    random = torch.Generator().manual_seed(0)
    y = torch.randint(0, 2, (N_FITS, N_BAGS), generator=random)
    y[:, :2] = torch.tensor([0, 1])
    x = torch.randn(N_FITS, N_BAGS, N_INSTANCES, 7, generator=random)
    genes = torch.randn(N_FITS, N_BAGS, 9, generator=random)
    teacher = {1e-4: torch.rand(N_FITS, N_BAGS, generator=random)}
    sizes = torch.full((N_FITS,), N_BAGS)
    return Folds(x, y, genes, teacher, sizes, x, [part.numpy() for part in y])


def library_output(stack, folds, i, **known):
    pairs = [(a, b) for a in range(N_INSTANCES) for b in range(N_INSTANCES) if a != b]
    index = torch.tensor(pairs).T
    graph = torch.cat([index + N_INSTANCES * b for b in range(N_BAGS)], dim=1)
    batch = torch.arange(N_BAGS).repeat_interleave(N_INSTANCES)
    edges = Edges.of(graph, len(batch))
    return stack.momkd_of(i)(folds.x[i].flatten(0, 1), edges, batch, N_BAGS, **known)


@pytest.mark.parametrize("teacher_alignment", [False, True])
def test_logits_and_losses_are_those_of_the_library(folds, teacher_alignment):
    settings = replace(SMALL, teacher_alignment=teacher_alignment, alpha_omics=0.0)
    stack = Stack(folds, settings, torch.Generator().manual_seed(1))
    losses = stack.loss(torch.arange(N_BAGS).expand(N_FITS, -1), progress=0.0)
    terms = partial(momkd_terms, teacher_alignment=teacher_alignment)
    weights = {"ce": 0.5, "align_wsi": 0.2, "memory": 0.1}
    for i in range(N_FITS):
        odds = torch.logit(folds.teacher[1e-4][i]) / settings.teacher_temperature
        soft = torch.stack([torch.sigmoid(-odds), torch.sigmoid(odds)], dim=1)
        known = {"paired": torch.ones(N_BAGS, dtype=torch.bool)}
        target = soft_labels(folds.y[i], 2, teacher=soft, weight=0.5, **known)
        output = library_output(stack, folds, i, y=folds.y[i], **known)
        torch.testing.assert_close(output.logits, stack.logits(folds.x)[i], rtol=1e-4, atol=1e-6)
        expected = weighted_total(terms(output, folds.y[i], target), weights)
        assert losses[i].item() == pytest.approx(expected.item(), rel=1e-4)


def test_every_kind_of_setting_trains(folds):
    kinds = {"match": 0.1, "contrast": 0.1, "regress": 0.1, "margin_growth": 0.5}
    everything = replace(
        SMALL, omics_noise=0.2, instance_dropout=0.2, input_dropout=0.3, permuted=True, **kinds
    )
    found = fit(folds, everything)
    assert np.isfinite(found["auc"]).all()
    assert np.isfinite(found["align_omics_last"])
    assert len(set(GRID.values())) == len(GRID)  # no setting stands there twice


def test_fits_do_not_depend_on_their_neighbours(folds):
    both = Stack(folds, SMALL, torch.Generator().manual_seed(1))
    rows = torch.arange(N_BAGS).expand(N_FITS, -1)
    both.loss(rows, progress=0.0)[0].backward()
    for name, weight in both.weights.items():
        if weight.grad is not None:
            assert not weight.grad[1:].any(), name
