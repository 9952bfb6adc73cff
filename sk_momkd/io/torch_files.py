"""Bags in torch files: CLAM, TRIDENT, slideflow, torch-geometric."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.arrays import BagArrays, to_numpy
from ..data.bag import BagInfo
from ..exceptions import BagFileError
from .read_errors import READ_ERRORS, errors_that_name


class TorchBag:
    """A ``.pt`` file: a bare tensor, slideflow's tensor with its index, or a saved ``Data``.

    Only tensors and torch-geometric's own classes are unpickled; a file with other code raises.
    """

    def __init__(self, path: str, format: str = "auto") -> None:
        self.path, self.format = path, format

    def shape(self) -> tuple[int, ...]:
        """(n_instances, n_features)."""
        content = self._load()
        return tuple((content.x if hasattr(content, "edge_index") else content).shape)

    def read(self) -> BagArrays:
        """Read features, and coordinates and graph where the format has them."""
        content = self._load()
        if hasattr(content, "edge_index"):
            parts = (content.pos, content.edge_index)
            coords, edges = (None if part is None else to_numpy(part) for part in parts)
            return BagArrays(self._dense(content.x), coords, edges)
        return BagArrays(self._dense(content), self._slideflow_centres(), None)

    def _dense(self, features: Any) -> NDArray:
        try:
            return to_numpy(features)
        except READ_ERRORS as error:
            raise BagFileError(f"{self.path} holds no dense tensor of numbers: {error}") from error

    def coords(self) -> NDArray | None:
        """Coordinates where the format has them."""
        return self.read().coords

    @property
    def parts(self) -> list[str]:
        """The file, and slideflow's index where there is one."""
        return [self.path, *([str(self._index)] if self._index.exists() else [])]

    def info(self) -> BagInfo:
        """Format, keys and unit, as far as the file holds them."""
        if hasattr(content := self._load(), "edge_index"):
            keys = tuple(k for k in ("x", "pos", "edge_index") if content.get(k) is not None)
            return BagInfo("pyg", keys, unit="level-0 px" if "pos" in keys else None)
        if self._index.exists():
            keys = ("tensor", self._index.name)
            return BagInfo("slideflow", keys, unit="level-0 px", anchor="centre")
        return BagInfo("pt", ("tensor",))

    @property
    def _index(self) -> Path:
        return Path(self.path).with_suffix(".index.npz")

    def _slideflow_centres(self) -> NDArray | None:
        if not self._index.exists():
            return None
        with (
            errors_that_name(self._index, "slideflow index"),
            np.load(self._index, allow_pickle=False) as stored,
        ):
            return stored["arr_0"]

    def _load(self) -> Any:
        import torch
        from torch_geometric.data import Data
        from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
        from torch_geometric.data.storage import GlobalStorage

        trusted = [Data, DataEdgeAttr, DataTensorAttr, GlobalStorage]
        try:
            with torch.serialization.safe_globals(trusted):
                content = torch.load(self.path, map_location="cpu", weights_only=True)
        except FileNotFoundError as error:
            raise BagFileError(f"{self.path} does not exist.") from error
        except READ_ERRORS as error:
            # torch goes on to recommend weights_only=False, which runs any code in the file.
            reason = str(error).splitlines()[0].split(". ")[0] if str(error) else repr(error)
            raise BagFileError(
                f"{self.path} is not a readable torch file of a tensor or Data: {reason}"
            ) from error
        if not isinstance(content, torch.Tensor | Data) or getattr(content, "x", 0) is None:
            raise BagFileError(
                f"{self.path} holds a {type(content).__name__}, expected a tensor of features or "
                "a torch-geometric Data with x."
            )
        return content
