"""Bags in AnnData files, as LazySlide writes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ..data.arrays import BagArrays
from ..data.bag import BagInfo
from ..exceptions import BagFileError, OmicsError
from .hdf5_checks import check_h5ad
from .named_arrays import number, stated
from .read_errors import errors_that_name, h5ad_errors
from .zarr_stores import (
    files_of_store,
    metadata_of_store,
    one_of_coords,
    require_chunks,
    require_expression_chunks,
    require_store,
)

if TYPE_CHECKING:
    from anndata import AnnData
    from zarr import Group

NUMBERS = ("patch_size", "magnification", "patch_pixels")
GEOMETRY = ("unit", "anchor", "encoder", "feature_type", *NUMBERS)  # of BagInfo in ``uns["bag"]``


class AnnDataBag:
    """An AnnData of one slide as LazySlide writes it: X, ``obsm["spatial"]``, tile spec.

    It is a ``.h5ad`` file, or a store of zarr.
    """

    def __init__(
        self,
        path: str,
        format: str = "auto",
        *,
        allow_external: bool = False,
        allow_constant: bool = False,
    ) -> None:
        self.path, self.format, self.allow_external = path, format, allow_external
        self.allow_constant = allow_constant

    def shape(self) -> tuple[int, ...]:
        """(n_instances, n_features)."""
        with self._header() as slide:
            return slide.shape

    def read(self) -> BagArrays:
        """Features, coordinates and, where stored, the spatial graph."""
        slide = self._load()
        features = slide.X.toarray() if sparse.issparse(slide.X) else slide.X
        graph = slide.obsp.get("spatial_connectivities")
        if graph is not None:  # row i lists the patches that send to i
            graph = np.stack(sparse.coo_array(graph).coords)[::-1].astype(np.int64)
        coords = slide.obsm.get("spatial")
        return BagArrays(features, None if coords is None else np.asarray(coords), graph)

    def coords(self) -> NDArray | None:
        """Coordinates, None where the slide has none."""
        return self.read().coords

    @property
    def parts(self) -> list[str]:
        """The file; of a zarr store, the files in it."""
        return files_of_store(self.path) if self._in_zarr else [self.path]

    @property
    def stated_in(self) -> list[str]:
        """The file; of a zarr store, those with metadata."""
        return metadata_of_store(self.path) if self._in_zarr else [self.path]

    def info(self) -> BagInfo:
        """Keys, unit and patch size, as far as the file holds them."""
        with self._header() as slide:
            return self._stated(slide)

    def _stated(self, slide: AnnData) -> BagInfo:
        keys = ["X"] + ["spatial"] * ("spatial" in slide.obsm)
        keys += ["spatial_connectivities"] * ("spatial_connectivities" in slide.obsp)
        known = stated(slide.uns.get, has_coords="spatial" in slide.obsm) | _of_lazyslide(slide)
        stored = slide.uns.get("bag", {})  # as slide_anndata stores it
        stored = {k: stored[k] for k in GEOMETRY if k in stored} if isinstance(stored, dict) else {}
        numbers = {k: number(v) for k, v in stored.items() if k in NUMBERS}
        return BagInfo("anndata", tuple(keys), **(known | stored | numbers))

    @contextmanager
    def _header(self) -> Iterator[AnnData]:
        """The slide with X on disk."""
        if self._in_zarr:
            with self._store() as store:
                yield _without_x(store)
            return
        slide = self._load(backed="r")
        try:
            yield slide
        finally:
            slide.file.close()

    @property
    def _in_zarr(self) -> bool:
        return self.path.lower().endswith(".zarr")

    @contextmanager
    def _store(self) -> Iterator[Group]:
        require_store(self.path, allow_external=self.allow_external)
        with errors_that_name(self.path, "zarr store of an AnnData", h5ad_errors()):
            import zarr

            store = zarr.open_group(self.path, mode="r")
            if "X" not in store:
                raise BagFileError(f"{self.path} has no X; put the patch features there.")
            yield store

    def _load_store(self) -> AnnData:
        import anndata

        with self._store() as store:
            if not self.allow_constant:
                require_expression_chunks(self.path, store)
            if "obsm/spatial" in store:
                coords: Any = store["obsm/spatial"]
                require_chunks(self.path, "spatial", coords, may_lack=one_of_coords(coords))
            return anndata.read_zarr(self.path)

    def _load(self, backed: Literal["r"] | None = None) -> AnnData:
        import anndata

        if self._in_zarr:
            return self._load_store()
        try:
            check_h5ad(self.path, allow_external=self.allow_external)
        except OmicsError as error:  # a damaged sparse matrix
            raise BagFileError(str(error)) from error
        with errors_that_name(self.path, ".h5ad file", h5ad_errors()):
            slide = anndata.read_h5ad(self.path, backed=backed)
        if slide.X is None if backed is None else "X" not in slide.file:
            slide.file.close()
            raise BagFileError(f"{self.path} has no X; put the patch features there.")
        return slide


def _without_x(store: Group) -> AnnData:
    """All of a slide in zarr that describes its patches."""
    from anndata import AnnData
    from anndata.io import read_elem

    x: Any = store["X"]
    shape = x.shape if hasattr(x, "chunks") else tuple(x.attrs["shape"])
    parts = {name: read_elem(store[name]) for name in ("obsm", "obsp", "uns") if name in store}
    return AnnData(shape=shape, **parts)


def _of_lazyslide(slide: AnnData) -> dict[str, float]:
    """Width and magnification of patches from LazySlide's tile specification."""
    spec = slide.uns.get("tile_spec", {})
    if not isinstance(spec, dict):
        return {}
    known = {
        "patch_size": number(spec.get("base_width")),
        "patch_pixels": number(spec.get("width")),
        "magnification": number(spec.get("magnification")),
    }
    return {name: value for name, value in known.items() if value is not None}
