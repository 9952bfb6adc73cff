"""Checkpoints of the authors' program: names and shapes of their weights, mapped to ours."""

from __future__ import annotations

import pickle
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..exceptions import BagFileError, CheckpointError
from ..io.torch_files import require_torch_file

# Prefix of the authors' names: prefix of ours. Both memories are handled apart.
_PREFIXES = {
    "rna_tower.encoder.": "omics_branch.encoder.",
    "rna_decoder.decoder.": "omics_branch.decoder.",
    "rna_projector.": "omics_branch.projector.",
    "wsi_encoder.gat1.": "encoder.gat1.",
    "wsi_encoder.gat2.": "encoder.gat2.",
    "wsi_encoder.res_proj1.": "encoder.residual.",
    "wsi_encoder.ln1.": "encoder.norm1.",
    "wsi_encoder.ln2.": "encoder.norm2.",
    "wsi_patch_projector.": "patch_projector.",
    "wsi_pool_projector.": "slide_projector.",
    "wsi_classifier_proto.": "head.",
    "attn_log_tau": "log_tau",
}
_MEMORIES = ("mem_neg._codebook.embed", "mem_pos._codebook.embed")  # class 0, class 1
_UNUSED = ("initted", "cluster_size", "embed_avg", "batch_mean", "batch_variance", "zero")
_NEEDED = ("wsi_encoder.gat1.att", "wsi_encoder.gat1.lin_l.weight", "attn_log_tau", *_MEMORIES)


class OfficialCheckpoint(NamedTuple):
    """Weights under our names, and the sizes that follow from their shapes."""

    weights: dict[str, Tensor]
    in_features: int
    n_genes: int
    dim: int
    projection_dim: int
    n_components: int
    n_heads: int
    omics_hidden_dim: int
    head_hidden_dim: int

    def parameters(self) -> dict[str, Any]:
        """Sizes as parameters of the estimator."""
        return {
            "hidden_dim": self.dim,
            "projection_dim": self.projection_dim,
            "n_components": self.n_components,
            "network__n_heads": self.n_heads,
            "network__omics_hidden_dim": self.omics_hidden_dim,
            "network__head_hidden_dim": self.head_hidden_dim,
        }

    def load_into(self, module: nn.Module, path: Any) -> None:
        """Load the weights into a network of these sizes.

        Raises
        ------
        CheckpointError
            If a weight is missing, too many, or of another shape.
        """
        try:
            module.load_state_dict(self.weights)
        except RuntimeError as error:
            raise CheckpointError(f"{path} does not fit the release's network: {error}") from error
        module.eval()


def read_official_checkpoint(path: str | PathLike) -> OfficialCheckpoint:
    """Read a ``state_dict`` that the authors' program saved (``s_<fold>_mkd_checkpoint.pt``).

    Only tensors are unpickled; a file with other content is refused.

    Raises
    ------
    CheckpointError
        If the file is missing, unreadable, or holds other weights.
    """
    state = _load(Path(path))
    missing = [name for name in _NEEDED if name not in state]
    if missing:
        raise CheckpointError(
            f"{path} is no checkpoint of the MoMKD release: it lacks {missing[0]!r}. It holds "
            f"{', '.join(map(repr, list(state)[:3]))} and {max(len(state) - 3, 0)} more."
        )
    weights = {ours: tensor for name, tensor in state.items() if (ours := _our_name(name, path))}
    weights["memory.rows"] = torch.stack([_components(state[name], path) for name in _MEMORIES])
    dim, in_features = state["wsi_encoder.gat1.lin_l.weight"].shape
    omics = state.get("rna_tower.encoder.0.weight")
    return OfficialCheckpoint(
        weights=weights,
        in_features=in_features,
        n_genes=0 if omics is None else omics.shape[1],
        dim=dim,
        projection_dim=weights["memory.rows"].shape[2],
        n_components=weights["memory.rows"].shape[1],
        n_heads=state["wsi_encoder.gat1.att"].shape[1],
        omics_hidden_dim=1 if omics is None else omics.shape[0],
        head_hidden_dim=weights["head.1.weight"].shape[0],
    )


def _load(path: Path) -> dict[str, Tensor]:
    try:
        require_torch_file(path, allow_external=True)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except BagFileError as error:
        raise CheckpointError(str(error)) from error
    except (OSError, RuntimeError, ValueError, EOFError, LookupError, TypeError) as error:
        raise CheckpointError(f"{path} is not a readable file of weights: {error}") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than weights, and code in a file is never run. Save its "
            "state_dict() where the file comes from."
        ) from error
    tensors = isinstance(state, dict) and all(isinstance(v, Tensor) for v in state.values())
    if not tensors:
        raise CheckpointError(
            f"{path} holds a {type(state).__name__}, expected the state_dict of a network."
        )
    return state


def _our_name(name: str, path: Any) -> str | None:
    """Our name of a weight; None for the memories and for buffers that nothing reads."""
    for theirs, ours in _PREFIXES.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    if name in _MEMORIES or name.rpartition(".")[2] in _UNUSED:
        return None
    raise CheckpointError(f"{path} has a weight {name!r} that no version of the release has.")


def _components(memory: Tensor, path: Any) -> Tensor:
    """Components of a class, (n_components, projection_dim)."""
    if memory.ndim != 3 or len(memory) != 1:
        raise CheckpointError(
            f"{path} has a memory of shape {tuple(memory.shape)}, expected (1, n_components, dim)."
        )
    return memory[0]
