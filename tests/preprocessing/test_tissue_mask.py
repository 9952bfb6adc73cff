"""Patches inside polygons of GeoJSON files, slide by slide."""

import gzip
import json
import pickle

import h5py
import numpy as np
import pytest
from conftest import make_omics, quick_classifier
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from sk_momkd import Bag, BagSequence, InstanceFilter, TissueMaskFilter, patient_bags, read_bags
from sk_momkd.exceptions import BagError, BagFileError, CohortError

SIZE = 512
GRID = np.array([[x, y] for y in range(4) for x in range(4)]) * SIZE


def rectangle(x0, y0, x1, y1):
    corners = [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]
    return [[x * SIZE, y * SIZE] for x, y in corners]


LEFT = {"type": "Polygon", "coordinates": [rectangle(0, 0, 2, 4)]}
WITH_HOLE = {"type": "Polygon", "coordinates": [rectangle(0, 0, 4, 4), rectangle(1, 1, 3, 3)]}
TWO_PARTS = {
    "type": "MultiPolygon",
    "coordinates": [[rectangle(0, 0, 1, 1)], [rectangle(3, 3, 4, 4)]],
}


def write_mask(folder, slide, *geometries):
    """As geopandas writes TRIDENT's contours."""
    features = [
        {"type": "Feature", "properties": {"tissue_id": i}, "geometry": geometry}
        for i, geometry in enumerate(geometries)
    ]
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::3857"}}
    content = {"type": "FeatureCollection", "name": slide, "crs": crs, "features": features}
    (folder / f"{slide}.geojson").write_text(json.dumps(content))


def slide_bag(slide="S1", patient="P1", **kwargs):
    features = np.arange(32.0).reshape(16, 2) + 100 * int(slide[1:])
    return Bag(features, kwargs.pop("coords", GRID), bag_id=slide, patient_id=patient, **kwargs)


def kept_cells(bag):
    return (bag.coords // SIZE).tolist()


@pytest.mark.parametrize(
    ("geometries", "expected"),
    [
        ([LEFT], [c for c in (GRID // SIZE).tolist() if c[0] < 2]),
        (
            [WITH_HOLE],
            [c for c in (GRID // SIZE).tolist() if not (0 < c[0] < 3 and 0 < c[1] < 3)],
        ),
        ([TWO_PARTS], [[0, 0], [3, 3]]),
        (
            [LEFT, TWO_PARTS],
            [[0, 0], [1, 0], [0, 1], [1, 1], [0, 2], [1, 2], [0, 3], [1, 3], [3, 3]],
        ),
    ],
)
def test_patches_with_their_centre_in_a_polygon_are_kept(tmp_path, geometries, expected):
    write_mask(tmp_path, "S1", *geometries)
    kept = TissueMaskFilter(tmp_path, patch_size=SIZE).fit_transform([slide_bag()])[0]
    assert kept_cells(kept) == expected
    assert (kept.bag_id, kept.patient_id) == ("S1", "P1")
    rows = [GRID.tolist().index(c) for c in kept.coords.tolist()]
    np.testing.assert_array_equal(kept.features, slide_bag().features[rows])


def test_centre_decides_not_the_corner(tmp_path):
    write_mask(tmp_path, "S1", {"type": "Polygon", "coordinates": [rectangle(0.4, 0.4, 1.4, 1.4)]})
    kept = TissueMaskFilter(tmp_path, patch_size=SIZE).transform([slide_bag()])[0]
    assert kept_cells(kept) == [[0, 0]]


def write_trident_file(path, patch_size=SIZE):
    with h5py.File(path, "w") as file:
        file["features"] = slide_bag().features
        file["coords"] = GRID
        file["coords"].attrs["patch_size_level0"] = patch_size


def test_patch_size_comes_from_the_file_and_files_stay_files(tmp_path):
    features, masks = tmp_path / "features", tmp_path / "contours_geojson"
    features.mkdir()
    masks.mkdir()
    write_trident_file(features / "S1.h5")
    write_mask(masks, "S1", LEFT)
    bags = read_bags(features)
    kept = pickle.loads(pickle.dumps(TissueMaskFilter(masks).fit_transform(bags)))
    assert kept[0].n_instances == 8
    shifted = TissueMaskFilter(masks, patch_size=2 * SIZE + 2).transform(bags)[0]
    assert {x for x, _ in kept_cells(shifted)} == {0}


def test_transform_opens_no_file(tmp_path, monkeypatch):
    write_mask(tmp_path, "S1", LEFT)
    monkeypatch.setattr(Bag, "load", lambda *args: pytest.fail("a bag was read"))
    monkeypatch.setattr(
        "sk_momkd.preprocessing.tissue_mask.read_outlines",
        lambda *args: pytest.fail("mask was read"),
    )
    assert len(TissueMaskFilter(tmp_path).transform([slide_bag()])) == 1


def test_slide_centres_need_no_patch_size(tmp_path):
    class Slideflow:
        shape = (16, 2)

        def read(self):
            return slide_bag(coords=GRID + SIZE / 2).load()

        def info(self):
            from sk_momkd.data.bag import BagInfo

            return BagInfo("slideflow", unit="level-0 px", anchor="centre")

    write_mask(tmp_path, "S1", LEFT)
    kept = TissueMaskFilter(tmp_path).transform([Bag(Slideflow(), bag_id="S1")])
    assert kept[0].n_instances == 8


def test_patient_takes_the_mask_of_each_slide(tmp_path):
    write_mask(tmp_path, "S1", LEFT)
    write_mask(tmp_path, "S2", TWO_PARTS)
    patient = patient_bags([slide_bag("S1"), slide_bag("S2")])
    kept = TissueMaskFilter(tmp_path, patch_size=SIZE).transform(patient)[0].load()
    np.testing.assert_array_equal(kept.slide_index, [0] * 8 + [1] * 2)
    np.testing.assert_array_equal(kept.features[8:], slide_bag("S2").features[[0, 15]])


def test_patient_may_lose_a_slide_and_be_filtered_before(tmp_path):
    write_mask(tmp_path, "S1")
    write_mask(tmp_path, "S2", LEFT)
    patient = patient_bags([slide_bag("S1"), slide_bag("S2")])
    upper = patient.filter(lambda bag: bag.coords[:, 1] == 0)
    kept = TissueMaskFilter(tmp_path, patch_size=SIZE).transform(upper)[0].load()
    np.testing.assert_array_equal(kept.slide_index, [1, 1])


@pytest.mark.parametrize(("file", "bag"), [("S1.svs", "S1"), ("S1", "S1.svs")])
def test_suffix_of_a_slide_file_does_not_matter(tmp_path, file, bag):
    write_mask(tmp_path, file, LEFT)
    bags = [Bag(np.ones((16, 2)), GRID, bag_id=bag)]
    assert TissueMaskFilter(tmp_path, patch_size=SIZE).transform(bags)[0].n_instances == 8


def test_slides_without_mask_raise_naming_them_or_are_kept_whole(tmp_path, caplog):
    write_mask(tmp_path, "S1", LEFT)
    bags = [slide_bag("S1"), slide_bag("S2"), Bag(np.ones((1, 2)))]
    with pytest.raises(CohortError, match=r"2 slides have no mask in .*: 'S2', 'bag 2'\..*'keep'"):
        TissueMaskFilter(tmp_path, patch_size=SIZE).transform(bags)
    caplog.set_level("INFO")
    kept = TissueMaskFilter(tmp_path, patch_size=SIZE, missing="keep").transform(bags)
    assert [bag.n_instances for bag in kept] == [8, 16, 1]
    assert "2 slides have no mask" in caplog.text


@pytest.mark.parametrize(
    ("bag", "said"),
    [
        (slide_bag(coords=GRID + 10_000), r"no patch centre lies inside.*S1\.geojson.*level-0"),
        (slide_bag(coords=None), "'S1' has no coordinates"),
    ],
)
def test_bag_without_patches_in_tissue_raises_naming_it_when_read(tmp_path, bag, said):
    write_mask(tmp_path, "S1", LEFT)
    kept = TissueMaskFilter(tmp_path, patch_size=SIZE).transform([bag])
    with pytest.raises(BagError, match=f"^bag 'S1' does not suit its filter: .*{said}"):
        kept[0].load()


def test_unknown_patch_size_raises_naming_the_bag(tmp_path):
    write_mask(tmp_path, "S1", LEFT)
    with pytest.raises(BagError, match=r"patch size of bag 'S1' is unknown\. Pass"):
        TissueMaskFilter(tmp_path).transform([slide_bag()])[0].load()


def test_micrometres_raise_naming_the_bag(tmp_path):
    with h5py.File(tmp_path / "S1.h5", "w") as file:
        file["feats"], file["coords"] = slide_bag().features, GRID
        file.attrs.update(unit="um", tile_size_um=256)
    write_mask(tmp_path, "S1", LEFT)
    with pytest.raises(BagError, match="'S1' has coordinates in micrometres"):
        TissueMaskFilter(tmp_path).transform(read_bags(tmp_path / "S1.h5"))[0].load()


def test_broken_mask_raises_naming_bag_and_file(tmp_path):
    (tmp_path / "S1.geojson").write_text("{")
    with pytest.raises(BagError, match=r"bag 'S1'.*S1\.geojson is not a readable") as raised:
        TissueMaskFilter(tmp_path, patch_size=SIZE).transform([slide_bag()])[0].load()
    assert isinstance(raised.value.__cause__, BagFileError)


def test_two_masks_of_a_slide_and_no_folder_raise(tmp_path):
    with pytest.raises(CohortError, match="no folder of masks"):
        TissueMaskFilter(tmp_path / "absent").transform([slide_bag()])
    write_mask(tmp_path, "S1", LEFT)
    write_mask(tmp_path, "S1.svs", LEFT)
    with pytest.raises(CohortError, match="Two files are of slide 'S1'"):
        TissueMaskFilter(tmp_path).transform([slide_bag()])


@pytest.mark.parametrize("parameters", [{"patch_size": 0}, {"missing": "drop"}, {"folder": 3}])
def test_wrong_parameter_raises(tmp_path, parameters):
    mask = TissueMaskFilter(**({"folder": tmp_path} | parameters))
    with pytest.raises(ValueError, match=next(iter(parameters))):
        mask.fit([slide_bag()])


def test_pipeline_with_omics_cross_validates(tmp_path):
    for i in range(12):
        write_mask(tmp_path, f"S{i}", LEFT)
    y = np.arange(12) % 2
    bags = BagSequence(slide_bag(f"S{i}", f"P{i:02d}") for i in range(12)).map(lambda x: x / 1000)
    pipe = make_pipeline(
        TissueMaskFilter(tmp_path, patch_size=SIZE),
        quick_classifier(max_epochs=1, early_stopping=False),
    )
    params = {"momkdclassifier__omics": make_omics(y)}
    scores = cross_val_score(clone(pipe), bags, y, params=params, cv=2, error_score="raise")
    assert np.isfinite(scores).all()
    assert pipe.fit(bags, y).predict(bags[[0, 0]]).shape == (2,)


def test_filter_by_features_after_the_mask(tmp_path):
    write_mask(tmp_path, "S1", LEFT)

    class Even(BaseEstimator):
        def fit(self, X, y=None):
            return self

        def predict(self, X):
            return (X[:, 0] % 4 == 0).astype(int)

    masked = TissueMaskFilter(tmp_path, patch_size=SIZE)
    pipe = make_pipeline(masked, InstanceFilter(Even()))
    assert kept_cells(pipe.fit_transform([slide_bag()])[0]) == [[0, 0], [0, 1], [0, 2], [0, 3]]


@pytest.mark.parametrize(("with_tissue", "kept"), [(True, [1]), (False, [1, 2])])
def test_patches_in_ignored_polygons_are_left_out(tmp_path, with_tissue, kept):
    def square(x, width, name):
        ring = [[x, 0], [x + width, 0], [x + width, 9], [x, 9], [x, 0]]
        shape = {"type": "Polygon", "coordinates": [ring]}
        named = {"classification": {"name": name}}
        return {"type": "Feature", "geometry": shape, "properties": named}

    shapes = [square(0, 10, "Ignore*")] + [square(0, 20, "Tissue")] * with_tissue
    content = json.dumps({"type": "FeatureCollection", "features": shapes}).encode()
    (tmp_path / "S1.geojson.gz").write_bytes(gzip.compress(content))
    bag = Bag(np.ones((3, 2)) * [[0], [1], [2]] + 1, [[0, 0], [11, 0], [30, 0]], bag_id="S1")
    (cut,) = TissueMaskFilter(tmp_path, patch_size=2).fit_transform([bag])
    assert (cut.features[:, 0] - 1).tolist() == kept


def test_mask_that_is_a_link_to_elsewhere_is_refused_unless_allowed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "masks").mkdir()
    write_mask(tmp_path / "elsewhere", "S1", LEFT)
    (tmp_path / "masks" / "S1.geojson").symlink_to(tmp_path / "elsewhere" / "S1.geojson")
    bag = slide_bag()
    own = TissueMaskFilter(tmp_path / "masks", patch_size=SIZE)
    with pytest.raises(BagError, match=r"S1\.geojson is a link to .*allow_external=True"):
        own.fit_transform([bag])[0].load()
    allowed = own.set_params(allow_external=True).fit_transform([bag])[0]
    there = TissueMaskFilter(tmp_path / "elsewhere", patch_size=SIZE).fit_transform([bag])[0]
    np.testing.assert_array_equal(allowed.coords, there.coords)
