"""Encoders of the two modalities: the graph of patches and the expression vector."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from .backend import choose_backend
from .blocks import Blocks
from .dropout import Dropout, draw_masks
from .edges import Edges
from .gatv2 import GATv2
from .graph_layers import GraphLayer, LayerWeights, graph_layers
from .row_blocks import BlockLayer, CompiledBlocks
from .workspace import GradientMemory, Workspace


class GraphEncoder(nn.Module):
    """Two GATv2 layers with residuals; the patch embedding F is the maximum of their outputs.

    Parameters
    ----------
    in_features : int
        Width of the patch features.
    dim : int
        Width D of the embedding, of all heads together.
    n_heads : int
    dropout : float
        On the layers' outputs and on the attention weights.
    backend : {"auto", "numba", "torch", "torch_compile"}, default="auto"
        The results differ by rounding alone; the dropout masks are the same. None of them calls
        the modules inside, whose hooks are therefore not called; those of the encoder are.
    identity : bool, default=False
        Whether the first residual is the features themselves, which then are `dim` wide.
    """

    def __init__(
        self,
        in_features: int,
        dim: int,
        n_heads: int,
        dropout: float,
        backend: str = "auto",
        *,
        identity: bool = False,
    ) -> None:
        super().__init__()
        self.gat1 = GATv2(in_features, dim, n_heads, dropout)
        self.gat2 = GATv2(dim, dim, n_heads, dropout)
        self.residual = None if identity else nn.Linear(in_features, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)
        self.backend = backend
        self.workspace = Workspace()

    def forward(self, x: Tensor | Blocks, edge_index: Tensor | Edges) -> Tensor:
        """(n, in_features), (2, n_edges) -> F (n, dim), of the type of `x`."""
        edges = Edges.of(edge_index, len(x))
        first = LayerWeights.from_modules(self.gat1, self.norm1, self.residual)
        second = LayerWeights.from_modules(self.gat2, self.norm2)
        masks = draw_masks((self.gat1.dropout, self.dropout, self.gat2.dropout, self.dropout))
        kind = _loops(choose_backend(self.backend, x))
        return graph_layers(x, edges, masks, self.workspace, kind, first, second)


def _loops(backend: str) -> type[GraphLayer]:
    """The implementation of a layer."""
    if backend == "numba":
        from .compiled import CompiledLayer  # imports numba

        return CompiledLayer
    return CompiledBlocks if backend == "torch_compile" else BlockLayer


class OmicsBranch(nn.Module):
    """Expression encoder, its projection to the memory's space, and the decoder.

    Parameters
    ----------
    n_genes, dim, projection_dim, hidden_dim : int
        ``n_genes -> hidden_dim -> dim``, and back; ``dim -> projection_dim``.
    dropout : float
    """

    def __init__(
        self, n_genes: int, dim: int, projection_dim: int, hidden_dim: int, dropout: float
    ) -> None:
        super().__init__()
        self.encoder = _two_layers(n_genes, hidden_dim, dim, dropout)
        self.decoder = _two_layers(dim, hidden_dim, n_genes, dropout)
        self.projector = nn.Linear(dim, projection_dim)

    def forward(
        self, omics: Tensor, *, gradients: GradientMemory | None = None
    ) -> tuple[Tensor, Tensor]:
        """(n, n_genes) -> F_N-omics (n, projection_dim; Eq. 2), reconstruction (n, n_genes).

        With `gradients`, in compiled loops for few bags.
        """
        if gradients is not None:
            from .few import omics_outputs  # imports numba

            return omics_outputs(omics, self.encoder, self.projector, self.decoder, gradients)
        code = self.encoder(omics)
        return F.normalize(self.projector(code), dim=1), self.decoder(code)


def _two_layers(n_in: int, n_hidden: int, n_out: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(n_in, n_hidden),
        nn.LayerNorm(n_hidden),
        nn.ReLU(),
        Dropout(dropout),
        nn.Linear(n_hidden, n_out),
    )
