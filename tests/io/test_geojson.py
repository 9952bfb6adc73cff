"""GeoJSON: polygons that are read, and squares of patches that are written."""

import gzip
import json

import numpy as np
import pandas as pd
import pytest
from shapely import Polygon, box

from sk_momkd import Bag, read_bags, simulate_cohort, to_geojson
from sk_momkd.data.arrays import BagArrays
from sk_momkd.data.bag import BagInfo
from sk_momkd.exceptions import BagFileError
from sk_momkd.io.geojson import inside, read_outlines, read_polygons

FRAME = pd.DataFrame(
    {
        "bag_id": ["S1", "S1", "S2"],
        "patient_id": "P",
        "patch": [0, 1, 0],
        "x": [1000.0, 1512.0, 0.0],
        "y": [2000.0, 2000.0, 0.0],
        "attention": [0.25, 0.75, 1.0],
        "score": [0.5, -np.inf, 0.0],
        "kind": ["tumour", '<b>"quoted"</b>', "x"],
    }
)
S1 = Bag(np.ones((2, 3)), [[1000, 2000], [1512, 2000]], bag_id="S1")

SQUARE = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]
HOLE = [[4, 4], [6, 4], [6, 6], [4, 6], [4, 4]]
FAR = [[20, 0], [30, 0], [25, 10], [20, 0]]
POLYGON = {"type": "Polygon", "coordinates": [SQUARE, HOLE]}
MULTI = {"type": "MultiPolygon", "coordinates": [[SQUARE, HOLE], [FAR]]}
PROBES = np.array([[2, 2], [5, 5], [25, 1], [15, 5]])


def features(path):
    collection = json.loads(path.read_text(encoding="utf-8"))
    assert collection["type"] == "FeatureCollection"
    return collection["features"]


class Source:
    shape = (1, 3)

    def __init__(self, **info):
        self.described = BagInfo("custom", **info)

    def read(self):
        return BagArrays(np.ones((1, 3)), np.array([[100.0, 200.0]]), None)

    def info(self):
        return self.described


def test_geojson_has_a_closed_square_and_the_scores_of_each_patch(tmp_path):
    found = features(to_geojson(FRAME, tmp_path / "S1.geojson", bag=S1, patch_size=512))
    assert len(found) == 2
    assert found[1]["type"] == "Feature"
    assert found[1]["geometry"]["type"] == "Polygon"
    (ring,) = found[1]["geometry"]["coordinates"]
    assert ring == [[1512, 2000], [2024, 2000], [2024, 2512], [1512, 2512], [1512, 2000]]
    assert found[0]["properties"] == {
        "objectType": "tile",
        "measurements": {"attention": 0.25, "score": 0.5},
    }
    # What is not finite is no number in JSON: it is left out.
    assert found[1]["properties"]["measurements"] == {"attention": 0.75}


def test_geojson_subtracts_the_bounds_of_the_slide(tmp_path):
    path = to_geojson(
        FRAME, tmp_path / "S1.geojson", bag=S1, patch_size=512, bounds_offset=(1000, 1900)
    )
    (ring,) = features(path)[0]["geometry"]["coordinates"]
    assert ring[0] == [0, 100]


def test_geojson_takes_the_asked_columns_and_classes(tmp_path):
    path = to_geojson(
        FRAME,
        tmp_path / "S1.geojson",
        bag=S1,
        patch_size=512,
        scores="score",
        class_column="kind",
        object_type="detection",
    )
    properties = [feature["properties"] for feature in features(path)]
    assert properties[0]["measurements"] == {"score": 0.5}
    assert properties[1]["classification"] == {"name": '<b>"quoted"</b>'}
    assert properties[0]["objectType"] == "detection"


def test_geojson_takes_the_patch_size_of_the_file(tmp_path):
    bag = read_bags(simulate_cohort(tmp_path, n_patients=1, random_state=0).features)[0]
    table = pd.DataFrame(bag.coords, columns=["x", "y"]).assign(attention=1.0)
    found = features(to_geojson(table, tmp_path / "bag.geojson", bag=bag))
    assert len(found) == bag.n_instances
    rings = np.array([feature["geometry"]["coordinates"][0] for feature in found])
    np.testing.assert_array_equal(rings[:, 0], bag.coords)
    np.testing.assert_array_equal(np.ptp(rings, axis=1), 512)


def test_geojson_of_micrometres_wants_and_uses_the_resolution(tmp_path):
    bag = Bag(Source(unit="um", patch_size=256.0), bag_id="S1")
    frame = pd.DataFrame({"x": [100.0], "y": [200.0], "attention": [1.0]})
    with pytest.raises(ValueError, match=r"coordinates in micrometres.*mpp="):
        to_geojson(frame, tmp_path / "S1.geojson", bag=bag)
    found = features(to_geojson(frame, tmp_path / "S1.geojson", bag=bag, mpp=0.25))
    (ring,) = found[0]["geometry"]["coordinates"]
    assert ring[:2] == [[400, 800], [1424, 800]]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"patch_size": None}, "has no patch size. Pass patch_size="),
        ({"scores": ["attention", "absent"]}, "no column 'absent'"),
        ({"class_column": "absent"}, "no column 'absent'"),
        ({"object_type": "cell"}, "object_type must be one of"),
        ({"bag": Bag(np.ones((1, 3)), bag_id="S9")}, "no row of bag 'S9'; it has 'S1', 'S2'"),
        ({"bag": Bag(np.ones((1, 3)))}, "Give the bag its bag_id"),
        ({"scores": "bag_id"}, "'bag_id' holds no numbers. Pass a column of text as class_column="),
        ({"bounds_offset": (100,)}, r"bounds_offset must be two numbers \(x, y\), got \(100,\)"),
        ({"patch_size": -512}, "patch_size must be above 0, got -512"),
        ({"mpp": 0}, "mpp must be above 0, got 0"),
        ({"frame": FRAME.drop(columns="x")}, r"no columns \['x'\]"),
        ({"frame": FRAME.assign(x=np.nan)}, "has no coordinates of its patches"),
    ],
)
def test_geojson_that_cannot_be_written_says_why_and_leaves_no_file(tmp_path, arguments, said):
    given = {"frame": FRAME, "bag": S1, "patch_size": 512} | arguments
    with pytest.raises(ValueError, match=said):
        to_geojson(given.pop("frame"), tmp_path / "S1.geojson", **given)
    assert list(tmp_path.iterdir()) == []


def test_geojson_into_a_folder_that_is_not_there_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*absent to write S1\.geojson"):
        to_geojson(FRAME, tmp_path / "absent" / "S1.geojson", bag=S1, patch_size=512)


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
    assert not read_polygons(path)[0].has_z


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


def test_centre_on_the_border_is_inside_and_of_both_neighbours():
    left, right = box(0, 0, 1, 1), box(1, 0, 2, 1)
    points = np.array([[0, 0], [0.5, 1], [1, 0.5], [2, 1], [2.001, 1]])
    assert inside(points, [left]).tolist() == [True, True, True, False, False]
    assert inside(points, [right]).tolist() == [False, False, True, True, False]
    assert inside(points, [left, right]).tolist() == [True, True, True, True, False]


def test_border_of_a_hole_is_inside():
    polygon = Polygon(SQUARE, [HOLE])
    assert inside(np.array([[4, 5], [4.001, 5]]), [polygon]).tolist() == [True, False]


def test_outline_that_crosses_itself_follows_the_even_odd_rule():
    angle = np.pi / 2 + np.arange(0, 10, 2) * 2 * np.pi / 5
    pentagram = Polygon(np.stack([np.cos(angle), np.sin(angle)], axis=1))
    points = np.array([[0, 0], [0, 0.6], [0, -0.6]])  # the middle, a tip, between two tips
    assert inside(points, [pentagram]).tolist() == [False, True, False]


def test_hole_that_reaches_beyond_its_outline_encloses_nothing_there():
    polygon = Polygon(SQUARE, [[[8, 4], [14, 4], [14, 6], [8, 6]]])
    assert inside(np.array([[9, 5], [12, 5], [2, 2]]), [polygon]).tolist() == [False, False, True]


@pytest.mark.parametrize("ring", [[], [[1, 1]], [[1, 1], [2, 2]], [[1, 1], [2, 2], [1, 1]]])
def test_ring_of_fewer_than_three_vertices_encloses_nothing(tmp_path, ring):
    rings = [[SQUARE, ring], [ring]] if ring else [[SQUARE]]
    path = write(tmp_path / "S.geojson", {"type": "MultiPolygon", "coordinates": rings})
    assert inside(PROBES, read_polygons(path)).tolist() == [True, True, False, False]


def test_ring_may_be_open_or_closed(tmp_path):
    points = np.random.default_rng(0).uniform(18, 32, size=(500, 2))
    found = [
        inside(points, read_polygons(write(tmp_path / "S.geojson", polygon)))
        for polygon in ({"type": "Polygon", "coordinates": [ring]} for ring in (FAR, FAR[:-1]))
    ]
    np.testing.assert_array_equal(*found)


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
    np.testing.assert_array_equal(inside(points, [Polygon(star)]), cross > 0)


def test_no_points_or_no_polygons_is_nothing():
    assert inside(np.empty((0, 2)), [Polygon(SQUARE)]).shape == (0,)
    assert not inside(PROBES, []).any()


def feature(ring, name=None):
    classified = {} if name is None else {"classification": {"name": name}}
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "geometry": geometry, "properties": classified}


SQUARE = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]
HALF = [[0, 0], [5, 0], [5, 10], [0, 10], [0, 0]]


@pytest.mark.parametrize(
    ("name", "ignored"),
    [("Ignore*", 1), ("ignore*", 1), ("Artefact*", 1), ("Region*", 0), ("Tumor", 0), (None, 0)],
)
def test_classes_that_qupath_ignores_are_set_apart(tmp_path, name, ignored):
    content = {"type": "FeatureCollection", "features": [feature(SQUARE), feature(HALF, name)]}
    (tmp_path / "S1.geojson").write_text(json.dumps(content))
    outlines = read_outlines(tmp_path / "S1.geojson")
    assert (len(outlines.wanted), len(outlines.ignored)) == (2 - ignored, ignored)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_compressed_files_and_byte_order_marks_are_read(tmp_path, compressed, encoding):
    content = json.dumps(feature(SQUARE)).encode(encoding)
    path = tmp_path / f"S1.geojson{'.gz' if compressed else ''}"
    path.write_bytes(gzip.compress(content) if compressed else content)
    assert read_outlines(path).wanted[0].area == 100


def test_damaged_compressed_file_is_named(tmp_path):
    (tmp_path / "S1.geojson.gz").write_bytes(gzip.compress(b"[]")[:-4])
    with pytest.raises(BagFileError, match=r"S1\.geojson\.gz is not a readable GeoJSON"):
        read_outlines(tmp_path / "S1.geojson.gz")
