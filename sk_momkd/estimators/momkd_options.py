"""Rarely changed parameters of MoMKD, by what they concern: network, memory, losses."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real

from sklearn.utils._param_validation import Interval, StrOptions

from ..data.graph import EDGE_FLOWS
from ..nn.backend import BACKENDS
from .parameters import (
    AT_LEAST_ONE,
    AT_LEAST_ZERO,
    BELOW_ONE,
    POSITIVE,
    UP_TO_ONE,
    Parameters,
    parameter,
)

_REDUCTIONS = StrOptions({"mean", "sum"})
_MEMORIES = StrOptions({"label", "all"})


@dataclass(kw_only=True, repr=False)
class NetworkOptions(Parameters):
    """Details of MoMKD's network.

    Parameters
    ----------
    n_heads : int, default=2
        Number of attention heads of each graph layer; it must divide `hidden_dim`.
    head : {"mlp", "linear"}, default="mlp"
        Classifier on the slide vector: "linear" is the paper's wording, "mlp" the authors' code.
    head_hidden_dim : int, default=128
        Hidden width of the "mlp" head.
    head_dropout : float, default=0.5
        Dropout in the "mlp" head.
    omics_hidden_dim : int, default=512
        Hidden width of the omics encoder and decoder.
    omics_dropout : float, default=0.25
        Dropout in the omics encoder and decoder.
    edge_flow : {"neighbors", "release", "symmetric"}, default="neighbors"
        Whether a patch receives from its neighbours, sends to them, or both. "release" sends to
        them and finds them as the authors' code does.
    identity_residual : bool, default=False
        Where `hidden_dim` is the number of features, add the features themselves to the first graph
        layer instead of a linear map of them, as the authors' code does.
    learn_tau : bool, default=False
        Learn the temperature of the attention, as the authors' code does.
    backend : {"auto", "numba", "torch", "torch_compile"}, default="auto"
        What computes the graph layers: "auto" is compiled loops (numba) on a CPU, else torch.

    See Also
    --------
    MoMKDClassifier : Takes it as `network`.

    Examples
    --------
    >>> from sk_momkd import MoMKDClassifier, NetworkOptions
    >>> MoMKDClassifier(network=NetworkOptions(head="linear")).get_params()["network__head"]
    'linear'
    """

    n_heads: int = parameter(2, AT_LEAST_ONE)
    head: str = parameter("mlp", StrOptions({"mlp", "linear"}))
    head_hidden_dim: int = parameter(128, AT_LEAST_ONE)
    head_dropout: float = parameter(0.5, BELOW_ONE)
    omics_hidden_dim: int = parameter(512, AT_LEAST_ONE)
    omics_dropout: float = parameter(0.25, BELOW_ONE)
    edge_flow: str = parameter("neighbors", StrOptions(set(EDGE_FLOWS)))
    identity_residual: bool = parameter(False, "boolean")
    learn_tau: bool = parameter(False, "boolean")
    backend: str = parameter("auto", StrOptions(set(BACKENDS)))


@dataclass(kw_only=True, repr=False)
class MemoryOptions(Parameters):
    """How MoMKD's memory starts and moves.

    Parameters
    ----------
    update : {"gradient", "ema", "fixed"}, default="gradient"
        What moves the memory: the losses, an exponential moving average of the patches that are
        assigned to a component, or nothing after the start.
    momentum : float, default=0.99
        Share of the old component in each step of ``update="ema"``.
    kmeans_samples : int, default=10000
        Number of patches per class in the K-means that starts the memory.
    kmeans_init : {"random", "k-means++"}, default="random"
        First centres of the K-means.
    warmup : int, default=0
        Number of epochs after which the K-means start is repeated; 0 does not repeat it.
    reseed_unused : bool, default=False
        Replace components that no patch of their class used during an epoch by random patches.
    renormalize : bool, default=False
        Scale the components to length one after every step.

    See Also
    --------
    MoMKDClassifier : Takes it as `memory`.

    Examples
    --------
    >>> from sk_momkd import MemoryOptions, MoMKDClassifier
    >>> clf = MoMKDClassifier(memory=MemoryOptions(update="ema"))
    >>> clf.set_params(memory__momentum=0.9).memory.momentum
    0.9
    """

    update: str = parameter("gradient", StrOptions({"gradient", "ema", "fixed"}))
    momentum: float = parameter(0.99, UP_TO_ONE)
    kmeans_samples: int = parameter(10_000, AT_LEAST_ONE)
    kmeans_init: str = parameter("random", StrOptions({"random", "k-means++"}))
    warmup: int = parameter(0, AT_LEAST_ZERO)
    reseed_unused: bool = parameter(False, "boolean")
    renormalize: bool = parameter(False, "boolean")


@dataclass(kw_only=True, repr=False)
class LossOptions(Parameters):
    """Constants of MoMKD's losses.

    Parameters
    ----------
    lambda_ce : float, default=0.5
        Weight of the cross-entropy.
    margin : float, default=0.3
        Margin of the alignment with the memory (Eq. 5).
    beta : float, default=20.0
        Slope of the alignment (Eq. 5).
    tau_agg : float, default=5.0
        Sharpness of the aggregation over the components of a class (Eq. 3).
    assignment : {"cosine", "euclidean"}, default="cosine"
        How the commitment finds the component of a patch; "euclidean", as in Eq. 10, uses
        components of any length.
    commit_reduction : {"mean", "sum"}, default="mean"
        Reduction over dimensions in the commitment; "sum" is that of Eq. 10 as printed.
    commit_memories : {"label", "all"}, default="label"
        Whether a patch is committed to the nearest component in the memory of the slide's label or
        in the memories of all classes; "all" is Eq. 10 as printed.
    ortho_reduction : {"mean", "sum"}, default="mean"
        Reduction over pairs of components in the orthogonality; "sum" is that of Eq. 10 as
        printed.
    ortho_memories : {"label", "all"}, default="label"
        Whether the orthogonality is that of the memory of the slide's label or of all classes.
    label_smoothing : float, default=0.0
        Share of the target that is spread evenly over the classes; ours.
    teacher_temperature : float, default=0.5
        Temperature of the omics teacher's logits, in units of their standard deviation over the
        patients.
    teacher_alignment : bool, default=False
        Whether the alignment of slides with the memory aims at the soft labels, too.

    See Also
    --------
    MoMKDClassifier : Takes it as `loss`.

    Examples
    --------
    >>> from sk_momkd import LossOptions, MoMKDClassifier
    >>> printed = LossOptions(commit_reduction="sum", ortho_reduction="sum")
    >>> MoMKDClassifier(loss=printed).get_params()["loss__margin"]
    0.3
    """

    lambda_ce: float = parameter(0.5, POSITIVE)
    margin: float = parameter(0.3, Interval(Real, None, None, closed="neither"))
    beta: float = parameter(20.0, POSITIVE)
    tau_agg: float = parameter(5.0, POSITIVE)
    assignment: str = parameter("cosine", StrOptions({"cosine", "euclidean"}))
    commit_reduction: str = parameter("mean", _REDUCTIONS)
    commit_memories: str = parameter("label", _MEMORIES)
    ortho_reduction: str = parameter("mean", _REDUCTIONS)
    ortho_memories: str = parameter("label", _MEMORIES)
    label_smoothing: float = parameter(0.0, BELOW_ONE)
    teacher_temperature: float = parameter(0.5, POSITIVE)
    teacher_alignment: bool = parameter(False, "boolean")
