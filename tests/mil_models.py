"""The histology-only baselines, small, and the way they are called."""

import torch

from sk_momkd.losses.mil import cross_entropy_terms, dsmil_terms, dtfd_terms
from sk_momkd.models.abmil import ABMIL
from sk_momkd.models.dsmil import DSMIL
from sk_momkd.models.dtfd import DTFD
from sk_momkd.models.transmil import TransMIL
from sk_momkd.models.wikg import WiKG
from sk_momkd.nn.initialization import initialise

BUILD = {
    "abmil": lambda k: ABMIL(5, k, dim=8, attention_dim=6),
    "abmil_plain": lambda k: ABMIL(5, k, dim=8, attention_dim=6, gated=False),
    "abmil_deep": lambda k: ABMIL(5, k, dim=8, hidden_dims=(7, 6), attention_dim=6),
    "dsmil": lambda k: DSMIL(5, k, query_dim=6),
    "dsmil_value": lambda k: DSMIL(5, k, query_dim=6, value_layer=True, dropout=0.2),
    "dsmil_linear": lambda k: DSMIL(5, k, query_dim=6, value_layer=True, nonlinear=False),
    "dsmil_average": lambda k: DSMIL(5, k, query_dim=6, average_streams=True),
    "transmil": lambda k: TransMIL(5, k, dim=8, n_heads=2),
    "dtfd": lambda k: DTFD(5, k, dim=8, attention_dim=6, n_chunks=4),
    "dtfd_max": lambda k: DTFD(5, k, dim=8, attention_dim=6, n_chunks=3, distillation="MaxS"),
    "dtfd_ends": lambda k: DTFD(5, k, dim=8, attention_dim=6, n_chunks=3, distillation="MaxMinS"),
    "wikg": lambda k: WiKG(5, k, dim=8, n_neighbors=3),
    "wikg_dot": lambda k: WiKG(5, k, dim=8, n_neighbors=3, attention="dot", readout="mean"),
}
TERMS = {"dsmil": dsmil_terms, "dtfd": dtfd_terms}


def terms_of(name):
    return TERMS.get(name.split("_")[0], cross_entropy_terms)


def build(name, n_classes=2, seed=0):
    """Initialised float64 model in `eval` mode, of 5 features."""
    model = BUILD[name](n_classes)
    initialise(model, torch.Generator().manual_seed(seed))
    return model.double().eval()


def features(n, d=5, seed=1):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def call(model, *bags, **known):
    """Forward pass over bags given as one feature matrix each."""
    sizes = torch.tensor([len(bag) for bag in bags])
    batch = torch.arange(len(bags)).repeat_interleave(sizes)
    edges = torch.empty(2, 0, dtype=torch.long)
    return model(torch.cat(bags), edges, batch, len(bags), **known)


def close(actual, expected, tol=1e-6):
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(actual.detach().double(), expected, atol=tol, rtol=0)


def n_parameters(model):
    return sum(p.numel() for p in model.parameters())
