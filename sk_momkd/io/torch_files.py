"""Bags in torch files: CLAM, TRIDENT, slideflow, torch-geometric, and dicts of tensors."""

from __future__ import annotations

import json
import os
import pickletools
import re
from os import PathLike
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from ..data.arrays import BagArrays, to_numpy
from ..data.bag import BagInfo
from ..data.sequence import CENTRES, is_graph, positions_of
from ..exceptions import BagFileError
from .local_files import check_zip, describe_content, require_plausible_size, require_regular
from .named_arrays import feature_key, named_arrays, named_info, number, squeezed, stated, text
from .read_errors import OR_MEMORY, PARSER_ERRORS, READ_ERRORS, errors_that_name, is_out_of_memory

_SMALL = 2**26  # integers in a pickle that are no danger, whatever they count


class TorchBag:
    """A ``.pt`` file: a bare tensor, slideflow's tensor with its index, a saved ``Data`` or a dict.

    Only tensors and torch-geometric's own classes are unpickled; a file with other code raises.
    """

    def __init__(self, path: str, format: str = "auto", *, allow_external: bool = False) -> None:
        self.path, self.format, self.allow_external = path, format, allow_external

    def shape(self) -> tuple[int, ...]:
        """(n_instances, n_features)."""
        return squeezed(tuple(self._features(self._load(header=True)).shape))

    def read(self) -> BagArrays:
        """Read features, and coordinates and graph where the format has them."""
        content = self._load()
        if isinstance(content, dict):
            return named_arrays(self.path, content, "dict", self._dense)
        features = self._dense(self._features(content))
        features = features.reshape(squeezed(features.shape))
        if not is_graph(content):
            return BagArrays(features, self._slideflow_centres(), None)
        parts = (positions_of(content)[1], content.edge_index)
        return BagArrays(features, *(None if p is None else self._dense(p) for p in parts))

    def _features(self, content: Any) -> Any:
        if isinstance(content, dict):
            return content[feature_key(self.path, list(content), "dict")]
        return content.x if is_graph(content) else content

    def _dense(self, values: Any) -> NDArray:
        try:
            n_bytes = values.numel() * values.element_size()
            require_plausible_size(
                f"{self.path}: a tensor", n_bytes, Path(self.path).stat().st_size
            )
            return to_numpy(values)
        except PARSER_ERRORS as error:
            if isinstance(error, BagFileError):
                raise
            raise BagFileError(f"{self.path} holds no dense tensor of numbers: {error}") from error

    def coords(self) -> NDArray | None:
        """Coordinates where the format has them."""
        return self.read().coords

    @property
    def parts(self) -> list[str]:
        """The file, and slideflow's index where there is one."""
        return [self.path, *([str(self._index)] if self._index.exists() else [])]

    @property
    def stated_in(self) -> list[str]:
        """Files from which `info` reads."""
        return [self.path, str(self._index), str(Path(self.path).with_name("bags_config.json"))]

    def info(self) -> BagInfo:
        """Format, keys, unit and what else the file states."""
        content = self._load(header=True)
        if isinstance(content, dict):
            return named_info(self.path, "pt", list(content), "dict", content)
        if is_graph(content):
            position, _ = positions_of(content)
            keys = [k for k in ("x", position, "edge_index") if k and k in content]
            known = stated(content.get, has_coords=position is not None)
            anchor = {"anchor": "centre"} if position in CENTRES else {}
            return BagInfo("pyg", tuple(keys), **(anchor | known))
        if self._index.exists():
            keys = ["tensor", self._index.name]
            known = {"unit": "level-0 px", "anchor": "centre"} | self._slideflow_stated()
            return BagInfo("slideflow", tuple(keys), **known)
        return BagInfo("pt", ("tensor",))

    @property
    def _index(self) -> Path:
        return Path(self.path).with_suffix(".index.npz")

    def _slideflow_centres(self) -> NDArray | None:
        if not self._index.exists():
            return None
        require_regular(self._index, allow_external=self.allow_external)
        check_zip(str(self._index))
        with (
            errors_that_name(self._index, "slideflow index", PARSER_ERRORS),
            np.load(self._index, allow_pickle=False) as stored,
        ):
            return stored["arr_0"]

    def _slideflow_stated(self) -> dict[str, Any]:
        """Encoder and patches from ``bags_config.json`` beside the bags."""
        path = Path(self.path).with_name("bags_config.json")
        if not path.is_file():
            return {}
        require_regular(path, allow_external=self.allow_external)
        with errors_that_name(path, "slideflow configuration"):
            stored = json.loads(path.read_text(encoding="utf-8"))
            extractor, width = stored.get("extractor"), str(stored.get("tile_um", ""))
            encoder = extractor.get("class") if isinstance(extractor, dict) else extractor
            return {
                "encoder": text(encoder),
                "patch_pixels": number(stored.get("tile_px")),
                "magnification": number(width.rstrip("xX")) if width[-1:] in "xX" else None,
            }

    def _load(self, *, header: bool = False) -> Any:
        """The content; of the `header` alone, tensors stay in the file."""
        in_zip = require_torch_file(self.path, allow_external=self.allow_external)
        content = self._unpickled(mmap=header and in_zip)
        from torch import Tensor

        if is_graph(content) and content.x is not None:
            return content
        if not isinstance(content, Tensor | dict):
            raise BagFileError(
                f"{self.path} holds a {type(content).__name__}, expected a tensor of features, a "
                "dict of tensors or a torch-geometric Data with x."
            )
        return content

    def _unpickled(self, *, mmap: bool) -> Any:
        import torch
        from torch_geometric.data import Data
        from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
        from torch_geometric.data.storage import GlobalStorage

        trusted = [Data, DataEdgeAttr, DataTensorAttr, GlobalStorage]
        try:
            with torch.serialization.safe_globals(trusted):
                return torch.load(self.path, map_location="cpu", weights_only=True, mmap=mmap)
        except OR_MEMORY as error:
            if is_out_of_memory(error):
                raise MemoryError(f"{self.path}: there is not enough memory to read it.") from error
            # torch goes on to recommend weights_only=False, which runs any code in the file.
            reason = str(error).splitlines()[0].split(". ")[0] if str(error) else repr(error)
            if kind := re.search(r"GLOBAL ([\w.]+)", str(error)):
                reason = f"it holds {kind[1]}, not tensors alone"
            raise BagFileError(
                f"{self.path} is not a readable torch file of a tensor or Data: {reason}."
                + describe_content(self.path, "torch")
            ) from error


def require_torch_file(path: str | PathLike, *, allow_external: bool) -> bool:
    """Whether a file is a zip archive, as torch writes; checked before torch opens it.

    Raises
    ------
    BagFileError
        If it is no regular file, or declares more than it can hold.
    """
    require_regular(path, allow_external=allow_external)
    in_zip = check_zip(path)
    if not in_zip:
        _check_declared(os.fspath(path))
    return in_zip


class _WithinFile:
    """A file of which nobody reads more bytes than it has, whatever length a pickle declares."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self.readline, self.tell = file.readline, file.tell

    def read(self, n: int) -> bytes:
        return self._file.read(min(n, self._size))


def _check_declared(path: str) -> None:
    """Check the sizes in the pickles of an old torch file, which torch reserves before it reads."""
    size = Path(path).stat().st_size
    with open(path, "rb") as file:
        content = cast("IO[bytes]", _WithinFile(file, size))
        for _ in range(4):  # magic number, protocol, system, content
            try:
                found = [arg for _, arg, _ in pickletools.genops(content) if type(arg) is int]
            except READ_ERRORS:  # not a pickle: torch says what is wrong
                return
            large = [arg for arg in found if _SMALL < arg < 2**63]
            if large and max(large) > size:
                require_plausible_size(f"{path}: a tensor", max(large), size, compressed=False)
