"""What the writers make of bags that are not slides with corners in level-0 pixels."""

import os
from pathlib import Path
from stat import S_IMODE

import anndata
import h5py
import numpy as np
import pytest
import torch

from sk_momkd import (
    Bag,
    patient_bags,
    read_bags,
    read_splits,
    slide_anndata,
    write_splits,
    write_trident,
)
from sk_momkd.exceptions import BagError, CohortError
from sk_momkd.io.atomic import atomic_set

X = np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32)
GRID = np.stack(np.divmod(np.arange(12), 4)[::-1], axis=1)


@pytest.fixture
def stamp(tmp_path):
    with h5py.File(tmp_path / "S1.h5", "w") as file:
        file["feats"], file["coords"] = np.ones((2, 3)), np.array([[0.5, 0], [256.5, 0]])
        file.attrs.update(unit="um", tile_size_um=256.0, extractor="uni2")
    return read_bags(tmp_path)[0]


def test_write_trident_micrometres_raise(stamp, tmp_path):
    with pytest.raises(BagError, match="'S1' has coordinates in micrometres"):
        write_trident(tmp_path / "out.h5", stamp, patch_size_level0=512)
    assert [path.name for path in tmp_path.iterdir()] == ["S1.h5"]


def test_write_trident_centres_become_corners(tmp_path):
    torch.save(torch.ones(2, 3), tmp_path / "S1.pt")
    np.savez(tmp_path / "S1.index.npz", np.array([[256, 256], [768, 256]]))
    write_trident(tmp_path / "out.h5", read_bags(tmp_path)[0], patch_size_level0=512)
    assert read_bags(tmp_path / "out.h5")[0].coords.tolist() == [[0, 0], [512, 0]]


def test_write_trident_too_large_for_float16_raises(tmp_path):
    bag = Bag([[1e6, 1.0]], [[0, 0]], bag_id="S1")
    with pytest.raises(BagError, match="'S1' has features too large for float16"):
        write_trident(tmp_path / "out.h5", bag, patch_size_level0=512, dtype="float16")
    assert not list(tmp_path.iterdir())


def test_writers_several_slides_raise(tmp_path):
    slides = [Bag(np.ones((2, 2)), [[0, 0], [1, 1]], bag_id=s, patient_id="P") for s in "AB"]
    (bag,) = patient_bags(slides)
    with pytest.raises(BagError, match="'P' has 2 slides"):
        write_trident(tmp_path / "out.h5", bag, patch_size_level0=512)
    with pytest.raises(BagError, match="'P' has 2 slides"):
        slide_anndata(bag)


def test_slide_anndata_keeps_unit_patch_size_and_encoder(stamp, tmp_path):
    slide_anndata(stamp).write_h5ad(tmp_path / "out.h5ad")
    info = read_bags(tmp_path / "out.h5ad")[0].info
    assert (info.unit, info.patch_size, info.encoder) == ("um", 256, "uni2")


@pytest.mark.skipif(os.name == "nt", reason="no such rights")
def test_written_files_have_the_rights_of_new_files(tmp_path):
    (tmp_path / "new").touch()
    bag = Bag([[1.0]], [[0, 0]])
    write_trident(tmp_path / "out.h5", bag, patch_size_level0=512)
    rights = [S_IMODE((tmp_path / name).stat().st_mode) for name in ("new", "out.h5")]
    assert rights[0] == rights[1]


def test_write_trident_round_trip(tmp_path):
    bag = Bag(X, GRID * 512, bag_id="S1")
    write_trident(tmp_path / "S1.h5", bag, patch_size_level0=512)
    (again,) = read_bags(tmp_path)
    np.testing.assert_array_equal(again.features, X)
    np.testing.assert_array_equal(again.coords, GRID * 512)
    assert again.info.patch_size_level0 == 512
    with h5py.File(tmp_path / "S1.h5") as file:
        assert file["coords"].attrs["patch_size"] == 256
        assert file["coords"].attrs["name"] == "S1"


def test_write_trident_that_fails_leaves_the_old_file(tmp_path):
    write_trident(tmp_path / "S1.h5", Bag(X, GRID * 512), patch_size_level0=512)
    with pytest.raises(ValueError, match="dtype must be one of float32, float16, got 'int8'"):
        write_trident(tmp_path / "S1.h5", Bag(X, GRID), patch_size_level0=1, dtype="int8")
    assert [p.name for p in tmp_path.iterdir()] == ["S1.h5"]
    np.testing.assert_array_equal(read_bags(tmp_path)[0].coords, GRID * 512)
    with pytest.raises(BagError, match="no coordinates"):
        write_trident(tmp_path / "S2.h5", Bag(X), patch_size_level0=512)


def test_slide_anndata_round_trip_with_scores(tmp_path):
    edges = np.array([[5, 1], [3, 0]])
    bag = Bag(X, GRID, edge_index=edges, bag_id="S1", patient_id="P1")
    scores = {"attention": np.arange(12.0), "affinity": np.ones((12, 4))}
    slide_anndata(bag, scores).write_h5ad(tmp_path / "S1.h5ad")
    stored = anndata.read_h5ad(tmp_path / "S1.h5ad")
    np.testing.assert_array_equal(stored.obs["attention"], np.arange(12.0))
    assert stored.obsm["affinity"].shape == (12, 4)
    said = {"bag_id": "S1", "patient_id": "P1", "format": "memory"}
    assert dict(stored.uns["bag"]) == said | {"unit": "level-0 px", "anchor": "top-left"}
    (again,) = read_bags(tmp_path)
    np.testing.assert_array_equal(again.features, X)
    assert set(map(tuple, again.edge_index.T)) == set(map(tuple, edges.T))
    with pytest.raises(BagError, match="'attention' has 3 rows"):
        slide_anndata(bag, {"attention": [1, 2, 3]})


def kill_at_move(monkeypatch, number):
    """Raise, as an interrupt does, when the file of this number is moved to its place."""
    moved, plain = [], os.replace

    def replace(part, path):
        moved.append(path)
        if len(moved) == number:
            raise KeyboardInterrupt
        plain(part, path)

    monkeypatch.setattr("os.replace", replace)


def test_set_of_files_is_not_begun_before_all_are_written(tmp_path):
    (tmp_path / "a").write_text("old")

    def write_half():
        with atomic_set([tmp_path / "a", tmp_path / "b"]) as parts:
            Path(parts[0]).write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_splits_whose_writing_was_interrupted_are_refused_until_written_again(
    tmp_path, monkeypatch
):
    bags = [Bag(np.ones((1, 2)), bag_id=f"S{i}") for i in range(4)]
    old, new = [([0, 1], [2, 3]), ([2, 3], [0, 1])], [([0, 2], [1, 3]), ([1, 3], [0, 2])]
    write_splits(tmp_path, old, bags)
    with monkeypatch.context() as patch:
        kill_at_move(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            write_splits(tmp_path, new, bags)
    for where in (tmp_path, sorted(tmp_path.glob("splits_*.csv"))):
        with pytest.raises(CohortError, match="was interrupted"):
            read_splits(where, bags)
    write_splits(tmp_path, new, bags)
    assert [part.tolist() for part in read_splits(tmp_path, bags)[1]] == [[1, 3], [], [0, 2]]
    assert not list(tmp_path.glob("*.part"))
