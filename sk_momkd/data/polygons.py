"""Regions drawn on a slide: polygons of a GeoJSON file, and which points they enclose."""

from __future__ import annotations

import json
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..exceptions import BagFileError

Polygon = list[NDArray]


def read_polygons(path: str | PathLike) -> list[Polygon]:
    """Polygons of a GeoJSON file, as TRIDENT's ``contours_geojson`` and QuPath hold them.

    Parameters
    ----------
    path : path
        A FeatureCollection, a feature, a geometry, or a list of these. Points and lines enclose
        nothing and are passed over.

    Returns
    -------
    list of polygons
        Each a list of rings, arrays of shape (n_vertices, 2): the outline, then its holes.

    Raises
    ------
    BagFileError
        If the file is missing or no GeoJSON.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return [[_ring(ring) for ring in rings] for rings in _polygons(content)]
    except FileNotFoundError as error:
        raise BagFileError(f"{path} does not exist.") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BagFileError(f"{path} is not a readable GeoJSON file: {error!r}") from error


def inside(points: NDArray, polygons: list[Polygon]) -> NDArray:
    """Which points lie in one polygon or more, by the even-odd rule in each.

    Parameters
    ----------
    points : ndarray of shape (n_points, 2)
    polygons : list of lists of rings

    Returns
    -------
    ndarray of bool, shape (n_points,)

    Examples
    --------
    >>> square = np.array([[0, 0], [4, 0], [4, 4], [0, 4]])
    >>> hole = np.array([[1, 1], [3, 1], [3, 3], [1, 3]])
    >>> inside(np.array([[0.5, 2], [2, 2], [5, 2]]), [[square, hole]])
    array([ True, False, False])
    """
    points = np.asarray(points, dtype=np.float64)
    found = np.zeros(len(points), dtype=bool)
    order = np.argsort(points[:, 1], kind="stable")
    heights, starts = np.unique(points[order, 1], return_index=True)
    rows = np.split(order, starts[1:])
    for rings in polygons:
        edges = np.concatenate([np.stack([ring, np.roll(ring, -1, axis=0)], 1) for ring in rings])
        first, last = np.searchsorted(heights, [edges[:, :, 1].min(), edges[:, :, 1].max()])
        for height, row in zip(heights[first:last], rows[first:last], strict=True):
            crossings = _crossings(edges, height)
            found[row] |= np.searchsorted(crossings, points[row, 0], side="right") % 2 == 1
    return found


def _crossings(edges: NDArray, height: float) -> NDArray:
    """Where edges (n_edges, 2 ends, 2) meet a horizontal line, ascending x.

    An end exactly on the line counts as below it, so that a vertex is never met by half.
    """
    above = edges[:, :, 1] > height
    a, b = edges[above[:, 0] != above[:, 1]].transpose(1, 2, 0)
    return np.sort(a[0] + (height - a[1]) / (b[1] - a[1]) * (b[0] - a[0]))


def _polygons(content: Any) -> Iterator[list[Any]]:
    if isinstance(content, list):
        for part in content:
            yield from _polygons(part)
    elif content is None:  # a feature without geometry
        return
    elif content["type"] == "FeatureCollection":
        yield from _polygons(content["features"])
    elif content["type"] == "Feature":
        yield from _polygons(content["geometry"])
    elif content["type"] == "GeometryCollection":
        yield from _polygons(content["geometries"])
    elif content["type"] == "MultiPolygon":
        yield from filter(None, content["coordinates"])
    elif content["type"] == "Polygon" and content["coordinates"]:
        yield content["coordinates"]


def _ring(vertices: list[Any]) -> NDArray:
    ring = np.asarray(vertices, dtype=np.float64)
    if ring.ndim != 2 or ring.shape[1] < 2 or not np.isfinite(ring).all():
        raise ValueError(f"a ring has vertices of shape {ring.shape}, expected finite (n, 2)")
    return ring[:, :2]
