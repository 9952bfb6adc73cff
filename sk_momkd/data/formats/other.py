"""Bags in torch files (CLAM, TRIDENT, slideflow, torch-geometric) and in AnnData files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ...exceptions import BagFileError
from ..arrays import BagArrays, to_numpy
from ..info import GEOMETRY, BagInfo, number
from . import DAMAGE


class TorchBag:
    """A ``.pt`` file: a bare tensor, slideflow's tensor with its index, or a saved ``Data``.

    Only tensors and torch-geometric's own classes are unpickled; other code in a file is refused.
    """

    def __init__(self, path: str, format: str = "auto") -> None:
        self.path, self.format = path, format

    def shape(self) -> tuple[int, ...]:
        """(n_instances, n_features)."""
        content = self._load()
        return tuple((content.x if hasattr(content, "edge_index") else content).shape)

    def read(self) -> BagArrays:
        """Features, and coordinates and graph where the format has them."""
        content = self._load()
        if hasattr(content, "edge_index"):
            parts = (content.pos, content.edge_index)
            coords, edges = (None if part is None else to_numpy(part) for part in parts)
            return BagArrays(self._dense(content.x), coords, edges)
        return BagArrays(self._dense(content), self._slideflow_centres(), None)

    def _dense(self, features: Any) -> NDArray:
        try:
            return to_numpy(features)
        except DAMAGE as error:
            raise BagFileError(f"{self.path} holds no dense tensor of numbers: {error}") from error

    def coords(self) -> NDArray | None:
        """Coordinates where the format has them."""
        return self.read().coords

    @property
    def parts(self) -> list[str]:
        """The file, and slideflow's index where there is one."""
        return [self.path, *([str(self._index)] if self._index.exists() else [])]

    def info(self) -> BagInfo:
        """What the file says about itself."""
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
        try:
            with np.load(self._index, allow_pickle=False) as stored:
                return stored["arr_0"]
        except DAMAGE as error:
            raise BagFileError(f"{self._index} is no slideflow index: {error!r}") from error

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
        except DAMAGE as error:
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


class AnnDataBag:
    """A ``.h5ad`` of one slide as LazySlide writes it: X, ``obsm["spatial"]``, tile spec."""

    def __init__(self, path: str, format: str = "auto") -> None:
        self.path, self.format = path, format

    def shape(self) -> tuple[int, ...]:
        """(n_instances, n_features)."""
        return self._load().shape

    def read(self) -> BagArrays:
        """Features, coordinates and, where stored, the spatial graph."""
        slide = self._load()
        features = slide.X.toarray() if sparse.issparse(slide.X) else slide.X
        graph = slide.obsp.get("spatial_connectivities")
        if graph is not None:  # row i lists the neighbours of i: they send to i
            graph = np.stack(sparse.coo_array(graph).coords)[::-1].astype(np.int64)
        coords = slide.obsm.get("spatial")
        return BagArrays(features, None if coords is None else np.asarray(coords), graph)

    def coords(self) -> NDArray | None:
        """Coordinates where the slide has them."""
        return self.read().coords

    @property
    def parts(self) -> list[str]:
        """The file."""
        return [self.path]

    def info(self) -> BagInfo:
        """What the file says about itself."""
        slide = self._load()
        keys = ["X"] + ["spatial"] * ("spatial" in slide.obsm)
        keys += ["spatial_connectivities"] * ("spatial_connectivities" in slide.obsp)
        spec = slide.uns.get("tile_spec", {})
        size = spec.get("base_width") if isinstance(spec, dict) else None
        unit = "level-0 px" if "spatial" in slide.obsm else None
        said = slide.uns.get("bag", {})  # as slide_to_anndata writes it
        known = {k: said[k] for k in GEOMETRY if k in said} if isinstance(said, dict) else {}
        if "patch_size" in known:
            known["patch_size"] = number(known["patch_size"])
        return BagInfo("anndata", tuple(keys), **{"unit": unit, "patch_size": number(size)} | known)

    def _load(self) -> anndata.AnnData:
        try:
            slide = anndata.read_h5ad(self.path)
        except FileNotFoundError as error:
            raise BagFileError(f"{self.path} does not exist.") from error
        except DAMAGE as error:
            raise BagFileError(f"{self.path} is not a readable .h5ad file: {error}") from error
        if slide.X is None:
            raise BagFileError(f"{self.path} has no X; put the patch features there.")
        return slide
