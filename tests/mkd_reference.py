"""MKD with the weights of the reference values, and how to run it."""

import torch
from reference import fill_role, filled

from sk_momkd.models.mkd import MKD

WEIGHTS = dict.fromkeys(("ce", "ce_omics", "ce_joint", "skd", "clod", "coral"), 1.0)
WEIGHTS["orthogonality"] = 1 / 6
NO_EDGES = torch.empty(2, 0, dtype=torch.long)


def roles(model):
    """(role, parameter) in the order of the original; each network counts from 1."""
    student, omics, joint = model.student, model.omics_branch.omics, model.omics_branch.joint
    yield from numbered(student.pool, student.head, student.fc)
    yield from numbered(omics.tokens.fc, omics.pool, omics.head)
    streams = (joint.path[0], joint.tokens.fc, joint.path_pool, joint.omics_pool)
    yield from numbered(*streams, joint.fusion, joint.head)


def numbered(*parts):
    return enumerate((p for part in parts for p in part.parameters()), 1)


def reference_model(in_features=1024, n_genes=1536, n_tokens=3, **settings):
    model = MKD(in_features, n_genes, 2, n_tokens=n_tokens, dropout=0, **settings).double()
    for role, parameter in roles(model):
        fill_role(parameter, role)
    return model


def run(model, xs, omics, **known):
    sizes = torch.tensor([len(x) for x in xs])
    batch = torch.arange(len(xs)).repeat_interleave(sizes)
    known = {"paired": torch.ones(len(xs), dtype=torch.bool)} | known
    return model(torch.cat(xs), NO_EDGES, batch, len(xs), omics=omics, **known)


def f64(shape, k, scale=1):
    return filled(shape, k, scale, torch.float64)


def close(actual, expected, tol=2e-9):
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(actual.detach(), expected, atol=tol, rtol=0)
