"""Polygons of GeoJSON files, and which points lie inside."""

import json

import numpy as np
import pytest

from sk_momkd.exceptions import BagFileError
from sk_momkd.io.geojson import inside, read_polygons

SQUARE = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]
HOLE = [[4, 4], [6, 4], [6, 6], [4, 6], [4, 4]]
FAR = [[20, 0], [30, 0], [25, 10], [20, 0]]
POLYGON = {"type": "Polygon", "coordinates": [SQUARE, HOLE]}
MULTI = {"type": "MultiPolygon", "coordinates": [[SQUARE, HOLE], [FAR]]}
PROBES = np.array([[2, 2], [5, 5], [25, 1], [15, 5]])


def feature(geometry):
    return {"type": "Feature", "properties": {"tissue_id": 0}, "geometry": geometry}


def write(path, content):
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (POLYGON, [True, False, False, False]),
        (MULTI, [True, False, True, False]),
        (feature(MULTI), [True, False, True, False]),
        (
            {"type": "FeatureCollection", "features": [feature(POLYGON)]},
            [True, False, False, False],
        ),
        ([feature(POLYGON), feature(None)], [True, False, False, False]),
        ({"type": "GeometryCollection", "geometries": [MULTI]}, [True, False, True, False]),
        ({"type": "Point", "coordinates": [2, 2]}, [False] * 4),
        ({"type": "FeatureCollection", "features": []}, [False] * 4),
        ({"type": "Polygon", "coordinates": []}, [False] * 4),
    ],
)
def test_every_form_of_geojson_encloses_its_points(tmp_path, content, expected):
    polygons = read_polygons(write(tmp_path / "S.geojson", content))
    assert inside(PROBES, polygons).tolist() == expected


def test_overlapping_polygons_are_united(tmp_path):
    shifted = [[x + 5, y] for x, y in SQUARE]
    content = [POLYGON, {"type": "Polygon", "coordinates": [shifted]}]
    polygons = read_polygons(write(tmp_path / "S.geojson", content))
    assert inside(np.array([[8, 2], [5.5, 5.5], [14, 2]]), polygons).all()


def test_vertices_with_height_lose_it(tmp_path):
    ring = [[x, y, 7] for x, y in SQUARE]
    path = write(tmp_path / "S.geojson", {"type": "Polygon", "coordinates": [ring]})
    assert read_polygons(path)[0][0].shape == (5, 2)


@pytest.mark.parametrize(
    "content",
    [
        "no json",
        '{"features": []}',
        '"text"',
        "7",
        '{"type": "Polygon", "coordinates": [[1, 2, 3]]}',
        '{"type": "Polygon", "coordinates": [[[0, 0], [NaN, 1], [1, 1]]]}',
        '{"type": "Polygon", "coordinates": [[[0, 0], ["a", 1]]]}',
    ],
)
def test_unreadable_file_raises_naming_it(tmp_path, content):
    path = tmp_path / "S1.geojson"
    path.write_text(content)
    with pytest.raises(BagFileError, match=r"S1\.geojson is not a readable GeoJSON"):
        read_polygons(path)


def test_missing_file_raises_naming_it(tmp_path):
    with pytest.raises(BagFileError, match=r"S1\.geojson does not exist"):
        read_polygons(tmp_path / "S1.geojson")


def test_cells_of_a_tiling_share_no_point():
    """Points on borders and corners belong to exactly one of the squares that meet there."""
    cells = [
        np.array([[x, y], [x + 1, y], [x + 1, y + 1], [x, y + 1]]) for x in (0, 1) for y in (0, 1)
    ]
    points = np.array([[x, y] for x in (0, 0.5, 1, 1.5) for y in (0, 0.5, 1, 1.5)])
    hits = sum(inside(points, [[cell]]).astype(int) for cell in cells)
    np.testing.assert_array_equal(hits, 1)


def test_ring_may_be_open_or_closed():
    ring = np.array(FAR, dtype=float)
    points = np.random.default_rng(0).uniform(18, 32, size=(500, 2))
    np.testing.assert_array_equal(inside(points, [[ring]]), inside(points, [[ring[:-1]]]))


def test_random_star_agrees_with_its_radius():
    """A point is inside a star where it is nearer than the edge in its direction."""
    random = np.random.default_rng(0)
    angle = np.sort(random.uniform(0, 2 * np.pi, 60))
    star = random.uniform(2, 6, 60)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points = random.uniform(-6, 6, size=(2000, 2))
    direction = np.arctan2(points[:, 1], points[:, 0]) % (2 * np.pi)
    sector = np.searchsorted(angle, direction) % 60
    a, b = star[sector - 1], star[sector]
    cross = (b - a)[:, 0] * (points - a)[:, 1] - (b - a)[:, 1] * (points - a)[:, 0]
    np.testing.assert_array_equal(inside(points, [[star]]), cross > 0)


def test_no_points_or_no_polygons_is_nothing():
    assert inside(np.empty((0, 2)), [[np.array(SQUARE)]]).shape == (0,)
    assert not inside(PROBES, []).any()
