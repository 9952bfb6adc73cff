"""Bags as arrays with names: in dicts of tensors, numpy archives, safetensors and zarr."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from ..data.arrays import BagArrays, to_numpy
from ..data.bag import BagInfo
from ..data.sequence import CENTRES, POSITIONS
from ..exceptions import BagFileError
from ..messages import first_few

FEATURES = ("features", "feats", "feat", "embeddings", "patch_embeddings", "embedding", "x", "X")
EDGES = "edge_index"
_ENCODER = ("encoder", "extractor", "model_name", "patch_encoder", "feature_extractor")
_SIZES = ("patch_size_level0", "patch_size")
_TYPES = ("feat_type", "feature_type")


def text(value: Any) -> str | None:
    """An attribute as text, None where it is absent."""
    if value is None:
        return None
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def number(value: Any) -> float | None:
    """An attribute as a number, None where it is absent or not a number."""
    try:
        if value is None or np.iscomplexobj(value):
            return None
        return None if np.size(value) != 1 else float(np.ravel(value)[0])
    except (TypeError, ValueError):
        return None


def squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """`shape` without the leading 1 of (1, N, D); a bag of one patch, (1, D), is unchanged."""
    return shape[1:] if len(shape) == 3 and shape[0] == 1 else shape


def _one_of(names: tuple[str, ...], present: Collection[str]) -> str | None:
    return next((name for name in names if name in present), None)


def feature_key(path: str, present: Collection[str], kind: str) -> str:
    """Name of the features among the names of a file; a single array needs no known name."""
    found = [name for name in FEATURES if name in present]
    rest = [name for name in present if name not in (*POSITIONS, EDGES)]
    if not found and len(rest) == 1 and kind != "dict":
        return rest[0]
    if len(found) != 1:
        raise BagFileError(
            f"{path} holds a {kind} with {first_few(sorted(map(str, present)), 8) or 'nothing'}; "
            f"expected exactly one of {', '.join(map(repr, FEATURES))}, and with coordinates one "
            f"of {', '.join(map(repr, POSITIONS))}."
        )
    return found[0]


def named_arrays(
    path: str, content: Mapping[str, Any], kind: str, convert: Callable[[Any], Any] = to_numpy
) -> BagArrays:
    """Features, coordinates and graph of a mapping, each without a leading axis of one."""

    def array(key: str | None) -> Any:
        if key is None or key not in content:
            return None
        values = convert(content[key])
        return values.reshape(squeezed(values.shape))

    features = array(feature_key(path, list(content), kind))
    return BagArrays(features, array(_one_of(POSITIONS, content)), array(EDGES))


def stated(get: Callable[[str], Any], *, has_coords: bool) -> dict[str, Any]:
    """What attributes of any tool state of a bag, as fields of `BagInfo`."""
    first = {
        name: next((v for n in names if (v := get(n)) is not None), None)
        for name, names in (
            ("encoder", _ENCODER),
            ("size", _SIZES),
            ("magnification", ("target_magnification", "magnification")),
            ("type", _TYPES),
        )
    }
    unit = text(get("unit"))
    in_um = unit is not None and unit.casefold() in ("um", "\u00b5m", "\u03bcm", "micrometre")
    known = {
        "unit": None if not has_coords else "um" if in_um else "level-0 px",
        "encoder": text(first["encoder"]),
        "patch_size": number(first["size"]),
        "magnification": number(first["magnification"]),
        "patch_pixels": number(get("patch_pixels") or get("patch_size")),
        "feature_type": text(first["type"]),
        "anchor": text(get("anchor")),
    }
    return {name: value for name, value in known.items() if value is not None}


def named_info(
    path: str, format: str, names: Collection[str], kind: str, attributes: Any
) -> BagInfo:
    """What a file with these names and attributes (a mapping) states."""
    coords = _one_of(POSITIONS, names)
    found = [feature_key(path, names, kind), coords, EDGES if EDGES in names else None]
    anchor = {"anchor": "centre"} if coords in CENTRES else {}
    known = stated(attributes.get, has_coords=coords is not None)
    return BagInfo(format, tuple(key for key in found if key), **(anchor | known))
