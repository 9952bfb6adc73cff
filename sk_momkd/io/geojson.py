"""GeoJSON files: reads polygons drawn on a slide, writes scores of patches for QuPath."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_numeric_dtype

from ..data.bag import Bag
from ..exceptions import BagError, BagFileError
from ..messages import first_few
from .atomic import atomic_write
from .local_files import require_regular
from .read_errors import errors_that_name

if TYPE_CHECKING:
    from shapely import Polygon

_IDS = ("bag_id", "patient_id", "patch", "x", "y")
_LARGEST_FILE = 2**30  # bytes
_OBJECT_TYPES = ("tile", "detection", "annotation")


class Outlines(NamedTuple):
    """Polygons of a file: of what is wanted, and of what is marked to be ignored."""

    wanted: list[Polygon]
    ignored: list[Polygon]


def _class_name(feature: dict[str, Any]) -> str:
    """Name of a feature's class in QuPath, "" without one."""
    classified = (feature.get("properties") or {}).get("classification") or {}
    name = classified.get("name") if isinstance(classified, dict) else classified
    names = classified.get("names") if isinstance(classified, dict) else None
    return str(name or (": ".join(map(str, names)) if names else ""))


def _is_ignored(name: str) -> bool:
    """Whether QuPath ignores objects of a class: its name ends with "*", except "Region*"."""
    return name.strip().endswith("*") and not name.strip().casefold().startswith("region")


def _coordinates(content: Any, *, ignored: bool = False) -> Iterator[tuple[bool, list[Any]]]:
    """Whether a polygon is to be ignored, and its coordinates: its outline, then its holes."""
    if isinstance(content, list):
        for part in content:
            yield from _coordinates(part, ignored=ignored)
    elif content is None:  # a feature without geometry
        return
    elif content["type"] == "FeatureCollection":
        yield from _coordinates(content["features"])
    elif content["type"] == "Feature":
        yield from _coordinates(content["geometry"], ignored=_is_ignored(_class_name(content)))
    elif content["type"] == "GeometryCollection":
        yield from _coordinates(content["geometries"], ignored=ignored)
    elif content["type"] == "MultiPolygon":
        yield from ((ignored, coordinates) for coordinates in content["coordinates"])
    elif content["type"] == "Polygon":
        yield ignored, content["coordinates"]


def _json(path: str | PathLike) -> Any:
    """Content of a JSON file, which may be compressed by gzip and begin with a byte order mark."""
    with open(path, "rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    with gzip.open(path) if compressed else open(path, "rb") as file:
        content = file.read(_LARGEST_FILE + 1)
    if len(content) > _LARGEST_FILE:
        raise BagFileError(f"{path} has more than {_LARGEST_FILE:,} bytes, which are not read.")
    return json.loads(content.decode("utf-8-sig"))


def _ring(vertices: list[Any]) -> NDArray:
    ring = np.asarray(vertices, dtype=np.float64)
    if ring.ndim != 2 or ring.shape[1] < 2 or not np.isfinite(ring).all():
        raise ValueError(f"a ring has vertices of shape {ring.shape}, expected finite (n, 2)")
    return ring[:, :2]


def _polygon(coordinates: list[Any]) -> Polygon:
    """A polygon without its height; rings of fewer than three vertices enclose nothing."""
    from shapely import Polygon

    rings = [_ring(vertices) for vertices in coordinates]
    outline, *holes = rings or [np.empty((0, 2))]
    if len(np.unique(outline, axis=0)) < 3:
        return Polygon()
    return Polygon(outline, [hole for hole in holes if len(np.unique(hole, axis=0)) > 2])


def read_outlines(path: str | PathLike, *, allow_external: bool = False) -> Outlines:
    """Polygons of a GeoJSON file, as TRIDENT's ``contours_geojson`` and QuPath store them.

    Parameters
    ----------
    path : path
        A FeatureCollection, a feature, a geometry, or a list of these, compressed by gzip or not.
        Points and lines enclose nothing and are left out.
    allow_external : bool, default=False
        Whether the file may be a link to a file outside its folder.

    Returns
    -------
    Outlines
        In the units of the file, level-0 pixels as a rule. Outlines may cross themselves. Ignored
        are those of QuPath's classes whose name ends with "*", such as "Ignore*".

    Raises
    ------
    BagFileError
        If the file is missing or not GeoJSON.
    """
    require_regular(path, allow_external=allow_external)
    outlines = Outlines([], [])
    with errors_that_name(path, "GeoJSON file"):
        for ignored, coordinates in _coordinates(_json(path)):
            (outlines.ignored if ignored else outlines.wanted).append(_polygon(coordinates))
    return outlines


def read_polygons(path: str | PathLike) -> list[Polygon]:
    """The wanted polygons of a file, as `read_outlines` reads them."""
    return read_outlines(path).wanted


def inside(points: NDArray, polygons: Sequence[Polygon]) -> NDArray:
    """Which points are in at least one of the polygons, or on its border.

    A point in a hole is outside. Where an outline crosses itself, the even-odd rule holds: what
    it encloses an even number of times is outside.

    Parameters
    ----------
    points : ndarray of shape (n_points, 2)
    polygons : sequence of shapely.Polygon

    Returns
    -------
    ndarray of bool, shape (n_points,)

    Examples
    --------
    >>> from shapely import Polygon, box
    >>> square = Polygon([[0, 0], [4, 0], [4, 4], [0, 4]], [[[1, 1], [3, 1], [3, 3], [1, 3]]])
    >>> inside(np.array([[0.5, 2], [2, 2], [4, 4], [5, 2]]), [square])
    array([ True, False,  True, False])
    """
    import shapely

    # The query prepares each polygon and tests the points in its bounding box alone.
    tree = shapely.STRtree(shapely.points(points))
    found = np.zeros(len(points), dtype=bool)
    found[tree.query(np.asarray(polygons, dtype=object), predicate="intersects")[1]] = True
    return found


def _pair(bounds_offset: Any) -> NDArray:
    offset = np.asarray(bounds_offset, dtype=float)
    if offset.shape != (2,) or not np.isfinite(offset).all():
        raise ValueError(f"bounds_offset must be two numbers (x, y), got {bounds_offset!r}.")
    return offset


def _rows_of(frame: pd.DataFrame, bag: Bag) -> pd.DataFrame:
    missing = {"x", "y"} - set(frame.columns)
    if missing:
        raise ValueError(
            f"The frame has no columns {sorted(missing)}; pass one that patch_attention returned."
        )
    if "bag_id" not in frame:
        return frame
    if "slide_id" in frame and (frame["slide_id"] == bag.bag_id).any():
        return frame[frame["slide_id"] == bag.bag_id]
    of_one = bag.bag_id is None and frame["bag_id"].nunique() == 1
    rows = frame if of_one else frame[frame["bag_id"] == bag.bag_id]
    if rows.empty:
        raise BagError(
            f"The frame has no row of {bag.name}; it has {first_few(frame['bag_id'].unique())}."
            + (" Give the bag its bag_id, or only its own rows." if bag.bag_id is None else "")
        )
    if len(bag.slides) > 1:
        raise BagError(
            f"{bag.name} has {len(bag.slides)} slides, whose coordinates overlap. Write a file "
            "for each: bag=bag.slides[0], and so on."
        )
    return rows


def _score_columns(rows: pd.DataFrame, scores: str | Sequence[str] | None) -> list[str]:
    if scores is None:
        numbers = rows.select_dtypes("number").columns
        return [str(c) for c in numbers if c not in _IDS]
    columns = [scores] if isinstance(scores, str) else list(scores)
    absent = [c for c in columns if c not in rows]
    if absent:
        raise ValueError(f"The frame has no column {absent[0]!r}; it has {list(rows.columns)}.")
    for column in columns:
        if not is_numeric_dtype(rows[column]):
            raise ValueError(
                f"Column {column!r} holds no numbers. Pass a column of text as class_column=."
            )
    return columns


def _level0(
    rows: pd.DataFrame, bag: Bag, patch_size: float | None, mpp: float | None
) -> tuple[NDArray, float]:
    """Corners and patch width in level-0 pixels."""
    info = bag.info
    corners = rows[["x", "y"]].to_numpy(dtype=float)
    if not np.isfinite(corners).all():
        raise BagError(
            f"{bag.name} has no coordinates of its patches. Give Bag(features, coords=...) their "
            "top-left corners in level-0 pixels."
        )
    per_pixel = 1.0
    if info.unit == "um":
        if mpp is None:
            raise BagError(
                f"{bag.name} has coordinates in micrometres, QuPath expects level-0 pixels. Pass "
                "mpp=, the slide's micrometres per level-0 pixel."
            )
        per_pixel = mpp
    if patch_size is None and info.patch_size is None:
        raise BagError(
            f"{bag.name} has no patch size. Pass patch_size=, in level-0 pixels (at "
            "40x, twice the 20x patch's pixels)."
        )
    size = info.patch_size / per_pixel if patch_size is None else patch_size  # type: ignore[operator]
    return corners / per_pixel, float(size)


def _features(
    corners: NDArray,
    size: float,
    scores: pd.DataFrame,
    classes: list[str] | None,
    object_type: str,
) -> Iterator[dict[str, Any]]:
    names, values = list(scores.columns), scores.to_numpy()
    known = np.isfinite(values)
    for i, (x, y) in enumerate(corners.round(3).tolist()):
        right, bottom = round(x + size, 3), round(y + size, 3)
        ring = [[x, y], [right, y], [right, bottom], [x, bottom], [x, y]]
        measured = {n: float(v) for n, v, k in zip(names, values[i], known[i], strict=True) if k}
        properties: dict[str, Any] = {"objectType": object_type, "measurements": measured}
        if classes is not None:
            properties["classification"] = {"name": classes[i]}
        yield {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": properties,
        }


def to_geojson(
    frame: pd.DataFrame,
    path: str | PathLike,
    *,
    bag: Bag,
    scores: str | Sequence[str] | None = None,
    bounds_offset: tuple[float, float] = (0, 0),
    patch_size: float | None = None,
    mpp: float | None = None,
    object_type: str = "tile",
    class_column: str | None = None,
) -> Path:
    """Write the patches of one slide as GeoJSON squares, with scores as measurements.

    In QuPath: *File > Import objects from file*, then *Measure > Show measurement maps*.

    Parameters
    ----------
    frame : DataFrame
        From :func:`patch_attention`, :func:`patch_evidence` or :func:`top_patches`, or any with
        ``x, y`` and scores. If it holds several slides, only the rows of `bag` are written.
    path : path
        The file is replaced only when it is complete.
    bag : Bag
        The slide, whose ``bag.info`` gives unit and patch size; for a patient, one of
        ``bag.slides``.
    scores : str or sequence of str, optional
        Columns to write; by default every numeric column except ids and coordinates. Values that
        are not finite are left out.
    bounds_offset : (x, y), default=(0, 0)
        Level-0 pixels that are subtracted from the coordinates: ``openslide.bounds-x`` and
        ``openslide.bounds-y`` of a slide that QuPath crops to its bounds (such as mrxs).
    patch_size : float, optional
        Width of a patch in level-0 pixels, by default that of ``bag.info``.
    mpp : float, optional
        Micrometres per level-0 pixel; needed if the bag has its coordinates in micrometres.
    object_type : {"tile", "detection", "annotation"}, default="tile"
        Kind of QuPath object that each square becomes.
    class_column : str, optional
        Column whose text is the patch's classification in QuPath.

    Returns
    -------
    Path
        The file: a ``FeatureCollection`` in level-0 pixels, as QuPath expects it.

    Raises
    ------
    BagError
        If the frame has no row of the bag, or coordinates or patch size are unknown.
    ValueError
        If a column is absent or not numeric, `object_type` is unknown, `patch_size` or `mpp` is
        not above 0, or `bounds_offset` is not two numbers.

    Examples
    --------
    >>> import json, tempfile
    >>> import numpy as np, pandas as pd
    >>> from sk_momkd import Bag, to_geojson
    >>> bag = Bag(np.ones((2, 3)), [[0, 0], [512, 0]], bag_id="S1")
    >>> frame = pd.DataFrame({"bag_id": "S1", "x": [0, 512], "y": 0, "attention": [0.2, 0.8]})
    >>> path = to_geojson(frame, tempfile.mkdtemp() + "/S1.geojson", bag=bag, patch_size=512)
    >>> json.loads(path.read_text())["features"][1]["properties"]["measurements"]
    {'attention': 0.8}
    """
    if object_type not in _OBJECT_TYPES:
        raise ValueError(f"object_type must be one of {_OBJECT_TYPES}, got {object_type!r}.")
    offset = _pair(bounds_offset)
    for name, length in (("patch_size", patch_size), ("mpp", mpp)):
        if length is not None and not 0 < length < np.inf:
            raise ValueError(f"{name} must be above 0, got {length!r}.")
    rows = _rows_of(frame, bag)
    columns = _score_columns(rows, scores)
    if class_column is not None and class_column not in rows:
        raise ValueError(f"The frame has no column {class_column!r}; it has {list(rows.columns)}.")
    corners, size = _level0(rows, bag, patch_size, mpp)
    features = _features(
        corners - offset,
        size,
        rows[columns].astype(float),
        None if class_column is None else rows[class_column].astype(str).to_list(),
        object_type,
    )
    target = Path(path)
    with atomic_write(target) as part, open(part, "w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for i, feature in enumerate(features):
            file.write((",\n" if i else "\n") + json.dumps(feature, allow_nan=False))
        file.write("\n]}\n")
    return target
