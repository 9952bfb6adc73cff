import json

import numpy as np
import pandas as pd
import pytest

from sk_momkd import Bag, patch_attention, to_geojson
from sk_momkd.data.arrays import BagArrays
from sk_momkd.data.bag import BagInfo

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


def test_geojson_takes_the_patch_size_of_the_file(momkd, unseen, tmp_path):
    bag = unseen.bags[0]
    table = patch_attention(momkd, unseen.bags[:2])
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
        ({"patch_size": None}, "does not tell its patch size. Pass patch_size="),
        ({"scores": ["attention", "absent"]}, "no column 'absent'"),
        ({"class_column": "absent"}, "no column 'absent'"),
        ({"object_type": "cell"}, "object_type must be one of"),
        ({"bag": Bag(np.ones((1, 3)), bag_id="S9")}, r"no row of bag 'S9'; it has \['S1', 'S2'\]"),
        ({"bag": Bag(np.ones((1, 3)))}, "Give the bag its bag_id"),
        ({"scores": "bag_id"}, "'bag_id' holds no numbers; text goes into class_column="),
        ({"bounds_offset": (100,)}, r"bounds_offset must be two numbers \(x, y\), got \(100,\)"),
        ({"patch_size": -512}, "patch_size must be above 0, got -512"),
        ({"mpp": 0}, "mpp must be above 0, got 0"),
        ({"frame": FRAME.drop(columns="x")}, r"no columns \['x'\]"),
        ({"frame": FRAME.assign(x=np.nan)}, "does not tell where its patches lie"),
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
