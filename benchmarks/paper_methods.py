"""What the paper's tables compare: methods, ablations, and the two logistic regressions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import h5py
import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from torch import Tensor, nn

from sk_momkd import (
    ABMILClassifier,
    Bag,
    BagPooling,
    BagSequence,
    DSMILClassifier,
    DTFDMILClassifier,
    GHANetClassifier,
    InstanceTransformer,
    MKDClassifier,
    MoMKDClassifier,
    OmicsTable,
    TDCClassifier,
    TransMILClassifier,
    WiKGClassifier,
)
from sk_momkd.evaluation.routing import accepts
from sk_momkd.losses.mil import cross_entropy_terms
from sk_momkd.nn.attention import AttentionPool
from sk_momkd.nn.edges import Edges
from sk_momkd.output import MILOutput
from sk_momkd.preprocessing.omics import default_omics_transformer
from sk_momkd.training.config import Objective

_ATTENTION_DIM = 128  # as ABMIL's


class GatedPooling(nn.Module):
    """MoMKD's encoder and head with gated attention between them: no memory, no omics."""

    def __init__(self, encoder: nn.Module, head: nn.Module, dim: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        self.pool = AttentionPool(dim, _ATTENTION_DIM)

    def forward(
        self, x: Tensor, edge_index: Tensor | Edges, batch: Tensor, n_bags: int, **_: Any
    ) -> MILOutput:
        pooled, attention = self.pool(self.encoder(x, edge_index), batch, n_bags)  # (B, D), (n, 1)
        return MILOutput(self.head(pooled), attention, batch)


class WSISolely(MoMKDClassifier):
    """The baseline of Table 3, whose pooling the paper leaves open: here gated attention."""

    def _make_module(self, n_features: int, n_genes: int, n_classes: int) -> nn.Module:
        momkd = super()._make_module(n_features, 0, n_classes)
        return GatedPooling(momkd.encoder, momkd.head, self.hidden_dim)

    def _make_loss(self) -> Objective:
        return Objective(cross_entropy_terms, {"ce": self._option("loss").lambda_ce})

    def _make_callbacks(self, generator: Any) -> list[Any]:
        return []


class OmicsRegression(ClassifierMixin, BaseEstimator):
    """Logistic regression on the omics of the bags' patients, in prediction too.

    What a method that sees the slide alone cannot have: the privileged upper reference. Patients
    without omics are left out of training, and are predicted at the mean expression.
    """

    def __init__(self, omics: OmicsTable | None = None, n_genes: int = 768) -> None:
        self.omics = omics
        self.n_genes = n_genes

    def fit(self, X: BagSequence, y: NDArray) -> Self:
        rows = self.omics.match(X)
        known = rows >= 0
        genes, self.regression_ = default_omics_transformer(self.n_genes), regression()
        self.genes_ = genes.fit(self.omics.rows(rows[known]), y[known])
        self.regression_.fit(self.genes_.transform(self.omics.rows(rows[known])), y[known])
        self.classes_ = self.regression_.classes_
        return self

    def predict_proba(self, X: BagSequence) -> NDArray:
        rows = self.omics.match(X)
        known = rows >= 0
        z = np.zeros((len(rows), self.regression_.n_features_in_))
        if known.any():
            z[known] = self.genes_.transform(self.omics.rows(rows[known]))
        return self.regression_.predict_proba(z)


def regression() -> LogisticRegression:
    return LogisticRegression(C=0.01, max_iter=5000, class_weight="balanced")


def join_instances(bags: BagSequence) -> NDArray:
    """The instances of each bag side by side, for bags that hold the same ones in order."""
    return np.stack([bag.features.ravel() for bag in bags])


def slide_features(bags: BagSequence) -> NDArray:
    """Measurements of the whole slide, stored beside its instances as ``slide_features``."""
    rows = []
    for bag in bags:
        with h5py.File(bag.source.path) as file:
            rows.append(file["slide_features"][:])
    return np.stack(rows)


def has_slide_features(bag: Bag) -> bool:
    path = getattr(bag.source, "path", None)
    if path is None or not h5py.is_hdf5(path):
        return False
    with h5py.File(path) as file:
        return "slide_features" in file


def obstacle(method: str, bags: BagSequence) -> str:
    """Why a cohort cannot have this row of a table; empty where it can."""
    if method == JOINED and len(sizes := {bag.n_instances for bag in bags}) > 1:
        return f"bags have {min(sizes)} to {max(sizes)} instances; only equal ones can be joined"
    if method == SLIDE and any(bag.source is None for bag in bags):
        return "they are read from the files of the bags, which --in-memory does not keep"
    if method == SLIDE and (without := [bag for bag in bags if not has_slide_features(bag)]):
        return (
            f"{len(without)} of {len(bags)} bags have no HDF5 file with 'slide_features', the "
            f"first is {without[0].bag_id!r}"
        )
    return ""


def scale_rows() -> list[Any]:
    clip = FunctionTransformer(np.clip, kw_args={"a_min": -6, "a_max": 6})
    return [StandardScaler(), clip]


class Method(NamedTuple):
    """A row of a table: a classifier, and what is its own.

    With a `preset` it starts from that instead of the one of all. `omics`: with the patients' own,
    without, or with those of other patients of the same label (``"permuted"``).
    """

    estimator: type
    own: dict[str, Any] = {}  # noqa: RUF012 - never changed
    omics: bool | str = True
    preset: str | None = None


POOLED, PRIVILEGED, MOMKD = "LR on pooled bags", "LR on omics (privileged)", "MoMKD"
PRINTED = "MoMKD as printed"
SMALL, JOINED, SLIDE = "small", "LR on joined instances", "LR on slide features"
METHODS: dict[str, Method] = {
    MOMKD: Method(MoMKDClassifier),
    "ABMIL": Method(ABMILClassifier),
    "DSMIL": Method(DSMILClassifier),
    "TransMIL": Method(TransMILClassifier),
    "DTFD-MIL": Method(DTFDMILClassifier),
    "WiKG": Method(WiKGClassifier),
    "G-HANet": Method(GHANetClassifier),
    "MKD": Method(MKDClassifier),
    "TDC": Method(TDCClassifier),
    POOLED: Method(LogisticRegression),
    PRIVILEGED: Method(OmicsRegression),
    PRINTED: Method(MoMKDClassifier, preset="paper"),
    "WSI solely": Method(WSISolely, omics=False),
    "alpha_omics = 0": Method(MoMKDClassifier, {"alpha_omics": 0.0}),
    "alpha_wsi = 0": Method(MoMKDClassifier, {"alpha_wsi": 0.0}),
    "without reconstruction": Method(MoMKDClassifier, {"lambda_mse": 0.0}),
    "fixed memory": Method(MoMKDClassifier, {"memory__update": "fixed"}),
    "EMA memory": Method(MoMKDClassifier, {"memory__update": "ema"}),
    **{
        f"{n} components": Method(MoMKDClassifier, {"n_components": n})
        for n in (4, 8, 32, 64)  # 16 is MoMKD itself
    },
    "default": Method(MoMKDClassifier, preset="default"),
    "default, batches of 16": Method(MoMKDClassifier, {"batch_size": 16}, preset="default"),
    SMALL: Method(MoMKDClassifier, preset="small"),
    "small, no omics": Method(MoMKDClassifier, omics=False, preset="small"),
    "small, omics of others": Method(MoMKDClassifier, omics="permuted", preset="small"),
    "five of small": Method(MoMKDClassifier, {"n_models": 5}, preset="small"),
    JOINED: Method(LogisticRegression),
    SLIDE: Method(LogisticRegression),
}

_NINE = list(METHODS)[:9]
# Of each table the rows in order; the first is what the others are compared with.
TABLES: dict[str, list[str]] = {
    "1": [*_NINE, PRINTED, POOLED, PRIVILEGED],
    "2": [*_NINE, PRINTED, POOLED],
    "3": ["WSI solely", "alpha_omics = 0", "alpha_wsi = 0", "without reconstruction", MOMKD],
    "4": ["fixed memory", MOMKD, "EMA memory"],
    "s1": [MOMKD, "4 components", "8 components", "32 components", "64 components"],
    "fig3": [MOMKD, PRINTED],
    "s3": [MOMKD, POOLED, PRIVILEGED],
    "small": [
        SMALL,
        "small, no omics",
        "small, omics of others",
        "five of small",
        "default",
        "default, batches of 16",
        POOLED,
        JOINED,
        SLIDE,
    ],
}
TITLES = {
    "1": "Table 1. Methods",
    "2": "Table 2. The fold models on another cohort",
    "3": "Table 3. What MoMKD is made of",
    "4": "Table 4. What moves the memory (MoMKD: the gradient)",
    "s1": "Fig. S1. Memory components per class (MoMKD: 16)",
    "fig3": "Fig. 3. How much of the memory is used",
    "s3": "S3. Misclassified patients",
    "small": "The preset for small cohorts",
}


@dataclass(frozen=True)
class Protocol:
    """What all methods of a table share; None leaves a method its own value."""

    preset: str = "unified"
    batch_size: int | None = None
    max_epochs: int | None = None
    patience: int | None = None
    n_genes: int = 768
    sizes: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        values = {**vars(self), **self.sizes}
        del values["sizes"]
        return " ".join(f"{k}={v}" for k, v in values.items() if v is not None)

    def model(self, name: str, omics: OmicsTable | None) -> Pipeline:
        """Pipeline of a method; patches are z-scores of the fold, clipped at six."""
        method, clip = METHODS[name], {"a_min": -6, "a_max": 6}
        if name == PRIVILEGED:
            return make_pipeline(OmicsRegression(omics, self.n_genes))
        scale = make_pipeline(StandardScaler(), FunctionTransformer(np.clip, kw_args=clip))
        scale = InstanceTransformer(scale)
        if name in (JOINED, SLIDE):
            read = join_instances if name == JOINED else slide_features
            return make_pipeline(FunctionTransformer(read), *scale_rows(), regression())
        if name == POOLED:
            return make_pipeline(scale, BagPooling(), StandardScaler(), regression())
        return make_pipeline(scale, self._classifier(method))

    def _classifier(self, method: Method) -> Any:
        cls = method.estimator
        chosen = {k: getattr(self, k) for k in ("batch_size", "max_epochs", "patience")}
        chosen = {k: v for k, v in chosen.items() if v is not None}
        chosen |= {"n_genes": self.n_genes, **self.sizes}
        known = cls().get_params()
        chosen = {k: v for k, v in chosen.items() if k in known} | method.own
        if method.preset:
            return cls.preset(method.preset, device="cpu", **chosen)
        ours = self.preset == "original" and issubclass(cls, MoMKDClassifier)
        return cls.preset("paper" if ours else self.preset, device="cpu", **chosen)

    def refuse_unusable(self, methods: list[str]) -> None:
        """Raise if a size belongs to no method, or to what a method is about."""
        classes = {method.estimator for method in METHODS.values()} - {
            LogisticRegression,
            OmicsRegression,
        }
        known = {name for cls in classes for name in cls().get_params()}
        fixed = {name for row in methods for name in METHODS[row].own}
        for name in self.sizes:
            if name not in known or name in fixed:
                why = "a row of the tables varies it" if name in fixed else "no method has it"
                raise ValueError(f"--set {name}: {why}.")


def learns_from_omics(name: str, model: Pipeline) -> bool:
    """Whether `fit` gets omics; the privileged regression has its own."""
    return bool(METHODS[name].omics) and accepts(model, "omics")
