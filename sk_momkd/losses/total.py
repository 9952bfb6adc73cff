"""From named terms to one number."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def weighted_total(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Sum over the terms of weight times mean over bags (the total objective).

    Parameters
    ----------
    terms : mapping of str to Tensor of shape (n_bags_of_the_term,)
    weights : mapping of str to float
        A term of weight 0 stays out of the graph.
    """
    parts = [weights[name] * values.mean() for name, values in terms.items() if weights[name]]
    return torch.stack(parts).sum()
