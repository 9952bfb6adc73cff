"""WiKG as a scikit-learn classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from sklearn.utils._param_validation import StrOptions
from torch import nn

from ..losses.mil import cross_entropy_terms
from ..models.wikg import ATTENTIONS, READOUTS, WiKG
from ..training.config import Objective
from .base import HistologyClassifier
from .parameters import TRAINING, positive_int, share


@dataclass(kw_only=True, eq=False, repr=False)
class WiKGClassifier(HistologyClassifier):
    """Slide classifier on a graph that the patches choose for themselves (WiKG).

    The defaults are ``preset("original")``, the published training; ``preset("unified")`` trains
    as every other method does there.

    Parameters
    ----------
    dim : int, default=512
        Width of the embeddings.
    n_neighbors : int, default=6
        Patches that each patch receives from, by their embeddings and not by coordinates; it may
        choose itself.
    attention : {"sum_product", "dot"}, default="sum_product"
        Score of a neighbour: what the authors' program computes, or what the paper describes.
    readout : {"attention", "mean"}, default="attention"
        The paper's; the authors' training script takes the mean.
    dropout : float, default=0.3
        On the updated patches.
    {training}

    Attributes
    ----------
    {fitted}

    See Also
    --------
    MoMKDClassifier : A graph by coordinates.

    Notes
    -----
    Time grows with the square of the number of patches, memory does not. Differs from the
    original in that three linear layers that nothing reads are left out. How the original chooses
    among its 100 epochs is not documented; here it is the best on the validation part.

    References
    ----------
    Li et al. Dynamic Graph Representation with Knowledge-aware Attention for Histopathology
    Whole Slide Image Analysis. CVPR 2024. arXiv:2403.07719.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import WiKGClassifier
    >>> random = np.random.default_rng(0)
    >>> y = np.arange(20) % 2
    >>> bags = [random.normal(2 * label, size=(5 + i, 4)) for i, label in enumerate(y)]
    >>> clf = WiKGClassifier(dim=16, max_epochs=5, random_state=0).fit(bags, y)
    >>> clf.predict_proba(bags).shape
    (20, 2)
    """

    dim: int = 512
    n_neighbors: int = 6
    attention: str = "sum_product"
    readout: str = "attention"
    dropout: float = 0.3
    optimizer: str = "adam"
    learning_rate: float = 1e-4
    weight_decay: float = 1e-5
    lr_schedule: str | None = None
    sampler: str = "shuffle"
    max_grad_norm: float | None = None
    patience: int = 100

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **TRAINING,
        "dim": positive_int,
        "n_neighbors": positive_int,
        "attention": [StrOptions(set(ATTENTIONS))],
        "readout": [StrOptions(set(READOUTS))],
        "dropout": share,
    }

    def _make_module(self, n_features: int, n_genes: int, n_classes: int) -> nn.Module:
        return WiKG(
            n_features,
            n_classes,
            dim=self.dim,
            n_neighbors=self.n_neighbors,
            attention=self.attention,
            readout=self.readout,
            dropout=self.dropout,
        )

    def _make_objective(self) -> Objective:
        return Objective(cross_entropy_terms, {"ce": 1.0})
