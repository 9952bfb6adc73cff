"""Maps drawn where the patches lie: geometry at 20x and 40x, over tissue, and fast."""

import sys
import time

import h5py
import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.figure import Figure
from reporting.conftest import tiny_model

from sk_momkd import (
    AttentionMapDisplay,
    Bag,
    BagSequence,
    patch_attention,
    patch_evidence,
    patient_bags,
    read_bags,
)
from sk_momkd.exceptions import BagError
from sk_momkd.reporting.displays.slide_image import open_slide

GRID = np.array([[x, y] for y in range(6) for x in range(8)])


def pixels(figure):
    """The drawn figure, float (height, width, 3), row 0 on top."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(float)


def drawn_at(display, points):
    """Colours of the figure at level-0 points."""
    image = pixels(display.figure_)
    x, y = display.ax_.transData.transform(points).T.round().astype(int)
    return image[len(image) - 1 - y, x]


@pytest.mark.parametrize(("patch_size", "mpp"), [(256, 0.5), (512, 0.25)], ids=["20x", "40x"])
def test_planted_region_is_drawn_where_it_lies(patch_size, mpp):
    planted = (GRID[:, 0] >= 5) & (GRID[:, 1] < 2)
    display = AttentionMapDisplay(
        GRID * patch_size, planted.astype(float), patch_size, mpp=mpp
    ).plot()
    centres = (GRID + 0.5) * patch_size * mpp
    inside = np.abs(GRID - [0.5, 5]).sum(axis=1) > 1  # the scale bar lies at the lower left
    yellow, violet = (np.array(colormaps["viridis"](v)[:3]) * 255 for v in (1.0, 0.0))
    colours = drawn_at(display, centres)
    assert np.abs(colours[planted] - yellow).max() < 8
    assert np.abs(colours[inside & ~planted] - violet).max() < 8
    # 8 x 6 patches of 128 um at both magnifications
    assert display.ax_.get_xlim() == (0, 8 * 128)
    assert display.ax_.get_ylim() == (6 * 128, 0)
    assert display.ax_.get_xlabel() == "µm"


def test_edges_of_patches_are_their_true_size():
    xy = np.array([[0, 0], [1024, 0]])
    display = AttentionMapDisplay(xy, np.array([0.0, 1.0]), 512).plot()
    boxes = [path.get_extents().bounds for path in display.patches_.get_paths()]
    assert boxes == [(0, 0, 512, 512), (1024, 0, 512, 512)]
    assert display.ax_.get_xlabel() == "px"


def write(path, level0_size):
    coords = GRID * level0_size
    with h5py.File(path, "w") as file:
        file["features"] = np.random.default_rng(0).normal(size=(len(coords), 8))
        file["coords"] = coords
        attributes = {"patch_size": 256, "patch_size_level0": level0_size}
        file["coords"].attrs.update(attributes)
    return path


@pytest.mark.parametrize("level0_size", [256, 512])
def test_map_of_an_estimator_takes_the_level0_size_of_the_file(demo, tmp_path, level0_size):
    write(tmp_path / "slide.h5", level0_size)
    bag = read_bags(tmp_path)[0]
    model = demo.result.models[0]
    display = AttentionMapDisplay.from_estimator(model, bag)
    assert display.patch_size == level0_size
    assert display.ax_.get_xlim() == (0, 8 * level0_size)
    attention = patch_attention(model, BagSequence([bag]))["attention"]
    np.testing.assert_allclose(display.values, attention * len(GRID))
    assert display.values.mean() == pytest.approx(1)


def test_map_of_evidence_is_white_at_zero_and_names_its_class(demo):
    bag = Bag(np.random.default_rng(0).normal(size=(48, 8)), GRID * 512, bag_id="S")
    model = demo.result.models[0]
    display = AttentionMapDisplay.from_estimator(model, bag, column="evidence")
    column = patch_evidence(model, [bag]).columns[-1]
    named = AttentionMapDisplay.from_estimator(model, bag, column=column)
    np.testing.assert_array_equal(display.values, named.values)
    np.testing.assert_allclose(display.values, patch_evidence(model, [bag])[column] * 48)
    low, high = display.patches_.get_clim()
    assert low == -high < 0
    assert column.removeprefix("evidence_") in display.label
    orange, violet = display.patches_.cmap(1.0), display.patches_.cmap(0.0)
    assert orange[0] > orange[2]
    assert violet[0] < violet[2]
    with pytest.raises(ValueError, match=r"column must be one of .*got 'evidence_of'"):
        AttentionMapDisplay.from_estimator(model, bag, column="evidence_of")


def test_map_of_a_bag_without_stated_size_draws_the_step(demo):
    bag = Bag(np.random.default_rng(0).normal(size=(48, 8)), GRID * 300)
    assert AttentionMapDisplay.from_estimator(demo.result.models[0], bag).patch_size == 300


@pytest.mark.parametrize(
    ("coords", "said"), [(None, "has no coordinates"), ([[0, 0]], "patch size of bag 'S' is unkno")]
)
def test_bag_that_cannot_be_drawn_says_why(demo, coords, said):
    bag = Bag(np.ones((1, 8)), coords, bag_id="S")
    with pytest.raises(BagError, match=said):
        AttentionMapDisplay.from_estimator(demo.result.models[0], bag)


def test_bag_of_several_slides_is_refused_and_each_slide_is_drawn(demo):
    slides = [
        Bag(b.features, b.coords, bag_id=f"S{i}", patient_id="P")
        for i, b in enumerate(demo.bags[:2])
    ]
    patient = patient_bags(BagSequence(slides))[0]
    model = demo.result.models[0]
    with pytest.raises(BagError, match=r"'P' holds 2 slides.*Draw each of bag\.slides"):
        AttentionMapDisplay.from_estimator(model, patient)
    second = AttentionMapDisplay.from_estimator(model, patient.slides[1])
    np.testing.assert_array_equal(second.xy, slides[1].coords)


@pytest.mark.parametrize("shape", [(40, 10), (10, 40), (1, 30)])
def test_slide_of_any_shape_stays_inside_its_figure(shape):
    grid = np.array([[x, y] for y in range(shape[1]) for x in range(shape[0])]) * 512
    display = AttentionMapDisplay(grid, np.arange(len(grid)) / 1e4, 512, title="S").plot(width=4)
    figure = display.figure_
    figure.canvas.draw()
    left, bottom, right, top = figure.get_tightbbox().extents  # inches
    assert min(left, bottom) > 0.02
    assert (np.array([right, top]) < figure.get_size_inches() - 0.02).all()


def test_resolution_that_is_given_frames_the_picture_of_micrometres_too():
    from PIL import Image

    class Picture:
        dimensions, properties = (4000, 2000), {"openslide.mpp-x": "0.25"}

        def get_thumbnail(self, size):
            return Image.new("RGB", (40, 20))

        def read_region(self, corner, level, size):
            return Image.new("RGBA", size)

    drawn = {"unit": "um", "image": Picture()}
    for mpp, size in ((None, (1000, 500)), (0.5, (2000, 1000))):
        display = AttentionMapDisplay(GRID * 10, np.arange(48.0), 10, mpp=mpp, **drawn).plot()
        assert display.ax_.images[0].get_extent() == [0, *size, 0]
        assert (display.ax_.get_xlim()[1], display.ax_.get_ylim()[0]) == size


def test_resolution_and_column_that_cannot_be_are_refused(demo):
    with pytest.raises(ValueError, match="mpp must be above 0 micrometres per pixel, got -1"):
        AttentionMapDisplay(GRID * 10, np.arange(48.0), 10, mpp=-1).plot()
    with pytest.raises(ValueError, match=r"column must be one of .*got 'attention_1'"):
        AttentionMapDisplay.from_estimator(
            demo.result.models[0], demo.bags[0], column="attention_1"
        )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"values": np.ones(5)}, "5 values and corners of shape"),
        ({"values": np.ones(0), "xy": np.empty((0, 2))}, "at least one"),
        ({"values": np.full(48, np.nan)}, "none that is a number"),
        ({"values": np.full(48, np.inf)}, "infinite"),
        ({"xy": np.full((48, 2), np.nan)}, "corners that are not finite"),
        ({"patch_size": 0}, "patch_size must be above 0, got 0"),
        ({"patch_size": np.nan}, "patch_size must be above 0, got nan"),
    ],
)
def test_values_that_cannot_be_drawn_are_refused(change, said):
    given = {"xy": GRID * 10.0, "values": np.arange(48.0), "patch_size": 10} | change
    with pytest.raises(ValueError, match=said):
        AttentionMapDisplay(**given).plot()


@pytest.mark.parametrize("signed", [False, True])
def test_colours_of_equal_values_do_not_show_rounding(signed):
    values = 1 + 1e-9 * np.arange(48.0)
    display = AttentionMapDisplay(GRID * 10, values, 10, signed=signed).plot()
    low, high = display.patches_.get_clim()
    assert high - low > 0.5
    values = np.zeros(480)
    values[7] = 5.0  # beyond the percentiles
    xy = np.stack([np.arange(480), np.zeros(480)], axis=1) * 10.0
    display = AttentionMapDisplay(xy, values, 10, signed=signed).plot()
    assert display.patches_.get_clim() == (-5 * signed, 5)


def test_axes_of_the_user_are_drawn_into():
    ax = Figure().subplots()
    display = AttentionMapDisplay(GRID * 10, np.arange(48.0), 10).plot(ax)
    assert display.ax_ is ax
    assert display.figure_ is ax.figure


def test_heat_map_of_20_000_patches_takes_less_than_five_seconds(demo, tmp_path):
    side = 142
    place = np.arange(20_000)
    coords = np.stack([place % side, place // side], axis=1) * 512
    features = np.random.default_rng(0).normal(size=(20_000, 8)).astype(np.float32)
    start = time.process_time()
    display = AttentionMapDisplay.from_estimator(demo.result.models[0], Bag(features, coords))
    display.figure_.savefig(tmp_path / "map.png", dpi=150)
    assert time.process_time() - start < 5


@pytest.fixture(scope="module")
def cmu(data_folder):
    return data_folder / "wsi" / "CMU-1-Small-Region.svs"


def darkness(slide, size):
    """Corners of a grid of patches and how dark each is, read at level 0."""
    wide, high = slide.size
    corners = [(x, y) for y in range(0, high - size, size) for x in range(0, wide - size, size)]
    values = [255 - slide.patch(x, y, size, 16).mean() for x, y in corners]
    return np.array(corners), np.array(values)


def test_slide_tells_its_size_and_resolution(cmu):
    slide = open_slide(cmu)
    assert slide.size == (2220, 2967)
    assert slide.mpp == pytest.approx(0.499)
    assert slide.thumbnail(300).shape == (300, 224, 3)
    corner = slide.patch(1024, 1280, 128, 64).mean(axis=(0, 1))
    whole = slide.thumbnail(2967)[1280 : 1280 + 128, 1024 : 1024 + 128].mean(axis=(0, 1))
    assert np.abs(corner - whole).max() < 3


def test_heat_map_lies_on_the_tissue_to_within_a_patch(cmu):
    size = 128
    corners, dark = darkness(open_slide(cmu), size)
    display = AttentionMapDisplay(corners, dark, size, image=cmu).plot(alpha=1.0)
    light = drawn_at(display, (corners + size / 2) * 0.499).mean(axis=1)  # as viridis grows
    display.patches_.set_visible(False)
    tissue = 255 - pixels(display.figure_).mean(axis=2)
    ends = np.array([corners, corners + size]) * 0.499
    (left, top), (right, bottom) = [display.ax_.transData.transform(e).T for e in ends]
    box = np.array([left, right, len(tissue) - top, len(tissue) - bottom]).round().astype(int).T
    patch = box[0, 1] - box[0, 0]  # pixels of the figure per patch
    inner = (corners >= size).all(axis=1) & (corners + 2 * size < [2220, 2967]).all(axis=1)
    inner &= corners[:, 1] < 2967 - 3 * size  # above the scale bar

    def fit(dx, dy):
        moved = box[inner] + [dx, dx, dy, dy]
        below = [tissue[up:down, west:east].mean() for west, east, up, down in moved]
        return np.corrcoef(light[inner], below)[0, 1]

    shifts = [(dx, dy) for dx in range(-patch, patch + 1, 3) for dy in range(-patch, patch + 1, 3)]
    best = max(shifts, key=lambda shift: fit(*shift))
    assert patch > 10
    assert np.abs(best).max() <= 3, f"shifted by {best} of {patch} pixels"
    assert fit(0, 0) > 0.95


def test_file_that_is_no_slide_says_what_each_tool_said(tmp_path):
    path = tmp_path / "slide.svs"
    path.write_bytes(b"no slide")
    with pytest.raises(OSError, match=r"slide\.svs cannot be opened as a slide: .*TiffFileError"):
        open_slide(path)


def test_without_a_reader_of_slides_the_error_says_why_none_can_be_imported(tmp_path, monkeypatch):
    for name in ("openslide", "tiffslide"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"import of openslide halted.*import of tiffslide"):
        open_slide(tmp_path / "slide.svs")


def test_map_from_a_fitted_pipeline_of_another_width_is_refused(demo):
    bags = BagSequence([Bag(np.ones((48, 3)), GRID)])
    with pytest.raises(ValueError, match="3"):
        AttentionMapDisplay.from_estimator(demo.result.models[0], bags[0])


def test_unfitted_pipeline_is_refused():
    with pytest.raises(Exception, match="not fitted"):
        AttentionMapDisplay.from_estimator(tiny_model(), Bag(np.ones((48, 8)), GRID))
