"""Bags as arrays with names: in dicts of tensors, numpy archives, safetensors and zarr."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np

from ..data.arrays import BagArrays, to_numpy
from ..data.bag import BagInfo
from ..data.sequence import CENTRES, POSITIONS
from ..exceptions import BagFileError
from ..messages import first_few

FEATURES = (
    *("features", "feature", "feats", "feat", "embeddings", "embedding", "embs"),
    *("patch_embeddings", "patch_features", "tile_embeddings", "tile_features", "x"),
)
EDGES = "edge_index"
_PAIRS = (  # coordinates in two arrays or columns
    *(("x", "y"), ("coord_x", "coord_y"), ("coords_x", "coords_y"), ("x_coord", "y_coord")),
    *(("pos_x", "pos_y"), ("x_coords", "y_coords")),
)
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


def _named(names: Iterable[str], present: Collection[str]) -> list[str]:
    """Those of `present` that are among `names`, in the order of these, in any letter case."""
    return [own for name in names for own in present if str(own).casefold() == name]


def x_and_y(present: Collection[str]) -> tuple[str, ...]:
    """Names of the two arrays or columns that hold the coordinates; () without such."""
    pairs = (tuple(_named(pair, present)) for pair in _PAIRS)
    return next((pair for pair in pairs if len(pair) == 2), ())


def coords_key(present: Collection[str]) -> str | None:
    """Name of the array of coordinates among the names of a file."""
    return next(iter(_named(POSITIONS, present)), None)


def is_of_a_bag(name: str) -> bool:
    """Whether an array of this name is features, coordinates or a graph."""
    return name.casefold() in (*FEATURES, *POSITIONS, EDGES)


def _pair_beside_features(present: Collection[str]) -> tuple[str, ...]:
    """`x_and_y` if the features have another name: x and y alone are features and a label."""
    pair = x_and_y(present)
    return pair if set(_named(FEATURES, present)) - set(pair) else ()


def feature_key(path: str, present: Collection[str], kind: str) -> str:
    """Name of the features among the names of a file; a single array needs no known name."""
    pair = _pair_beside_features(present)
    found = [name for name in _named(FEATURES, present) if name not in pair]
    others = (*pair, *_named(POSITIONS, present), EDGES)
    rest = [name for name in present if name not in others]
    if not found and len(rest) == 1 and kind != "dict":
        return rest[0]
    if len(found) != 1:
        raise BagFileError(
            f"{path} holds a {kind} with {first_few(sorted(map(str, present)), 8) or 'nothing'}; "
            f"expected exactly one of {', '.join(map(repr, FEATURES))}, and with coordinates one "
            f"of {', '.join(map(repr, POSITIONS))}, or x and y."
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

    names = list(content)
    features, coords = array(feature_key(path, names, kind)), array(coords_key(names))
    if coords is None and (pair := _pair_beside_features(names)):
        x, y = (np.ravel(convert(content[name])) for name in pair)
        if len(x) != len(y):
            raise BagFileError(f"{path} has {len(x)} {pair[0]!r} and {len(y)} {pair[1]!r}.")
        coords = np.stack([x, y], axis=1)
    return BagArrays(features, coords, array(EDGES))


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
    one = coords_key(names)
    coords = (one,) if one else _pair_beside_features(names)
    found = (feature_key(path, names, kind), *coords, *((EDGES,) if EDGES in names else ()))
    anchor = {"anchor": "centre"} if one is not None and one.casefold() in CENTRES else {}
    known = stated(attributes.get, has_coords=bool(coords))
    return BagInfo(format, found, **(anchor | known))
