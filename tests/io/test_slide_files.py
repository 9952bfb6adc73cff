"""Files of slides: by id first, else by the name without a UUID, and only when there is one."""

import pandas as pd
import pytest

from sk_momkd import read_bags
from sk_momkd.exceptions import BagFileError, CohortError, CohortWarning
from sk_momkd.io.slide_files import BAG_SUFFIXES, files_by_slide, match_files, visible_files

SLIDE = "TCGA-A2-A04P-01Z-00-DX1"
ONE = "9B3EF0C4-1E0B-4A2E-9F5D-6D6C3A2E7A11"
TWO = "0fa23c1b-1e0b-4a2e-9f5d-6d6c3a2e7a11"


@pytest.fixture
def folder(tmp_path):
    def make(*names):
        for name in names:
            (tmp_path / name).touch()
        return files_by_slide(visible_files(tmp_path, BAG_SUFFIXES))

    return make


def matched(slides, files):
    frame = match_files(slides, files)
    return [tuple(None if pd.isna(v) else v for v in row) for row in frame.to_numpy()]


@pytest.mark.parametrize(
    ("slide", "file"),
    [
        (SLIDE, f"{SLIDE}.{ONE}.h5"),
        (f"{SLIDE}.svs", f"{SLIDE}.{TWO}.svs.h5"),
        (f"{SLIDE}.{ONE}", f"{SLIDE}.h5"),
        (f"{SLIDE}.{TWO}.svs", f"{SLIDE}.pt"),
    ],
)
def test_match_name_that_differs_by_a_uuid_is_taken_and_said(folder, slide, file):
    files = folder(file)
    ((stem, path, how),) = matched([slide], files)
    assert (str(files[stem]), how) == (path, "name without UUID")
    assert path.endswith(file)


@pytest.mark.parametrize("slide", [SLIDE, f"{SLIDE}.{ONE}", f"{SLIDE}.{TWO}.svs"])
def test_match_by_id_comes_first(folder, slide):
    files = folder(f"{SLIDE}.h5", f"{SLIDE}.{ONE}.h5", f"{SLIDE}.{TWO}.h5")
    ((stem, _, how),) = matched([slide], files)
    assert (stem, how) == (slide.removesuffix(".svs"), "id")


@pytest.mark.parametrize(
    ("slide", "file"),
    [
        (f"{SLIDE}.{ONE}", f"{SLIDE}.{TWO}.h5"),
        (SLIDE, f"{SLIDE}.9B3EF0C4.h5"),
        (SLIDE, f"{SLIDE}-{ONE}.h5"),
        ("TCGA-A2-A04P-01Z-00-DX2", f"{SLIDE}.{ONE}.h5"),
        ("1", "001.h5"),
    ],
)
def test_match_other_names_are_kept_apart(folder, slide, file):
    assert matched([slide], folder(file)) == [(None, None, None)]


def test_match_several_candidates_raise_naming_them(folder):
    files = folder(f"{SLIDE}.{ONE}.h5", f"{SLIDE}.{TWO}.h5")
    said = rf"Slide '{SLIDE}' has no file.*2 that differ.*{TWO}\.h5'.*Write the UUID"
    with pytest.raises(CohortError, match=said) as error:
        match_files([SLIDE], files)
    assert f"{SLIDE}.{ONE}.h5" in str(error.value)


@pytest.mark.parametrize(
    ("slides", "file"),
    [
        ([f"{SLIDE}.{ONE}", f"{SLIDE}.{TWO}"], f"{SLIDE}.h5"),
        ([SLIDE, f"{SLIDE}.{ONE}"], f"{SLIDE}.{ONE}.h5"),
    ],
)
def test_match_several_slides_of_one_file_raise_naming_both(folder, slides, file):
    with pytest.raises(CohortError, match="Several slide ids belong to the same file") as error:
        match_files(slides, folder(file))
    assert all(repr(slide) in str(error.value) for slide in [*slides, file])


def bags_among(folder, names):
    """Ids of the bags of a folder with these files."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return read_bags(folder).ids.tolist()


@pytest.mark.parametrize(
    ("names", "slides"),
    [
        (["A/features.h5", "B/features.h5"], ["A", "B"]),
        (["A/features.h5"], ["A"]),
        (["P1/A/features.h5", "P1/B/features.h5", "P2/C/Features.pt"], ["A", "B", "C"]),
        (["A/uni/embeddings.h5", "B/uni/embeddings.h5"], ["A", "B"]),
        (["P1/blocks/A.h5", "P2/blocks/B.h5"], ["A", "B"]),
        (["A/features.h5", "A/stats.npz", "A/thumbnail.npy", "B/features.h5"], ["A", "B"]),
        (["mean.pt", "uni/S1.h5", "uni/S2.h5", "thumbnails/S1.npy"], ["S1", "S2"]),
    ],
)
def test_folder_per_slide_names_its_file(tmp_path, names, slides):
    assert bags_among(tmp_path, names) == slides


@pytest.mark.parametrize("kind", ["h5", "pt", "npy", "zarr.h5ad"])
def test_files_beside_bags_are_no_bags(tmp_path, kind):
    beside = ["coords.npy", "stats.npz", "mean.pt", "feature_mean_std.npz"]
    own = ["S1_coords.npy", "S2.mask.npy", "thumbnails/S1.npy", "mean.index.npz"]
    assert bags_among(tmp_path, [f"S1.{kind}", f"S2.{kind}", *beside, *own]) == ["S1", "S2"]


def test_arrays_beside_files_of_a_tool_are_named(tmp_path):
    with pytest.warns(CohortWarning, match=r"not read as slides: 'quality\.npz'.*list of files"):
        assert bags_among(tmp_path, ["S1.h5", "S2.h5", "quality.npz"]) == ["S1", "S2"]


def test_slides_with_words_in_their_names_are_bags(tmp_path):
    names = ["model_A1.h5", "Mask-7.h5", "42_scores_9.h5", "coords.svs.h5"]
    assert bags_among(tmp_path, names) == ["42_scores_9", "Mask-7", "model_A1"]


def test_one_slide_in_two_folders_raises(tmp_path):
    with pytest.raises(BagFileError, match=r"Two files are of slide 'S1'.*call the files features"):
        bags_among(tmp_path, ["uni/S1.h5", "conch/S1.h5"])
