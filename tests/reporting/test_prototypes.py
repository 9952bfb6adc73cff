"""Pictures of top patches: cut from slides, or marked on a map."""

import numpy as np
import pytest

from sk_momkd import (
    Bag,
    BagSequence,
    PrototypeDisplay,
    top_patches,
)
from sk_momkd.data.arrays import BagArrays
from sk_momkd.data.bag import BagInfo
from sk_momkd.exceptions import BagError
from sk_momkd.reporting.displays.prototypes import image_of


def test_prototype_pictures_mark_the_patch_in_its_slide(demo):
    model, bags = demo.result.models[0], demo.bags[:4]
    display = PrototypeDisplay.from_estimator(model, bags, n=2)
    best = top_patches(model, bags, n=2)
    assert len(display.pictures) == len(best) == 16
    place = {bag.bag_id: bag for bag in bags}
    for row, picture in zip(best.to_dict("records"), display.pictures, strict=True):
        coords = place[row["bag_id"]].coords
        low, width = coords.min(axis=0), np.ptp(coords, axis=0).max() + 512
        marked = np.argwhere((picture == (213, 94, 0)).all(axis=2)).mean(axis=0)[::-1] + 0.5
        expected = (np.array([row["x"], row["y"]]) - low + 256) * len(picture) / width
        assert np.abs(marked - expected).max() < 1.5


def test_prototype_pictures_are_cut_from_the_slide(data_folder, demo):
    image = data_folder / "wsi" / "CMU-1-Small-Region.svs"
    features = np.random.default_rng(0).normal(size=(12, 8))
    coords = np.array([[x, y] for y in range(3) for x in range(4)]) * 512
    bags = BagSequence([Bag(features, coords, bag_id="CMU")])
    display = PrototypeDisplay.from_estimator(
        demo.result.models[0], bags, n=1, images={"CMU": image}
    )
    from sk_momkd.reporting.displays.slide_image import open_slide

    first = display.patches.iloc[0]
    expected = open_slide(image).patch(first["x"], first["y"], 512, len(display.pictures[0]))
    np.testing.assert_array_equal(display.pictures[0], expected)


def test_prototypes_in_micrometres_are_cut_with_the_resolution_that_is_given(demo):
    from PIL import Image

    cut = []

    class Picture:
        dimensions, properties, level_downsamples = (4096, 4096), {}, (1.0,)

        def get_best_level_for_downsample(self, downsample):
            return 0

        def read_region(self, corner, level, size):
            cut.append((corner, size))
            return Image.new("RGBA", size)

    class Source:
        shape = (1, 8)

        def read(self):
            return BagArrays(np.ones((1, 8)), np.array([[256.0, 128.0]]), None)

        def info(self):
            return BagInfo("custom", unit="um", patch_size=128.0)

    bags = BagSequence([Bag(Source(), bag_id="S")])
    given = {"n": 1, "images": {"S": Picture()}}
    PrototypeDisplay.from_estimator(demo.result.models[0], bags, mpp=0.25, **given)
    assert set(cut) == {((1024, 512), (512, 512))}
    with pytest.raises(BagError, match=r"resolution of its image is unknown.*Pass mpp="):
        PrototypeDisplay.from_estimator(demo.result.models[0], bags, **given)


def test_picture_of_an_id_too_long_for_a_file_is_none(tmp_path):
    (tmp_path / "S.svs").touch()
    assert image_of("S", tmp_path) == tmp_path / "S.svs"
    assert image_of("S" * 400, tmp_path) is None


def test_picture_of_an_id_that_leads_out_of_the_folder_is_none(tmp_path):
    images, private = tmp_path / "images", tmp_path / "private"
    for folder in (images, private):
        folder.mkdir()
    (private / "secret.svs").touch()
    (images / "S1.SVS").touch()
    for name in ("../private/secret", str(private / "secret"), "..\\private\\secret"):
        assert image_of(name, images) is None
    assert image_of("slides/S1.svs", images) == images / "S1.SVS"
    assert image_of("S1", {"S1.svs": 7}) == 7


def test_prototypes_without_coordinates_say_so(demo):
    bags = BagSequence([Bag(np.ones((3, 8)), bag_id="S")])
    with pytest.raises(BagError, match="'S' has no coordinates"):
        PrototypeDisplay.from_estimator(demo.result.models[0], bags)
