"""Step between patches against their size."""

import h5py
import numpy as np
import pytest

from sk_momkd import Bag, check_geometry, patient_bags, read_bags, write_trident
from sk_momkd.io.readers import SlideFile

GRID = np.stack(np.divmod(np.arange(12), 4), axis=1)


def test_geometry_tells_overlap_gaps_and_unknown_size(tmp_path):
    for name, step in (("exact", 512), ("overlap", 256), ("gaps", 1024)):
        bag = Bag(np.ones((12, 2)), GRID * step)
        write_trident(tmp_path / f"{name}.h5", bag, patch_size_level0=512)
    table = check_geometry([*read_bags(tmp_path), Bag(np.ones((2, 2)), bag_id="memory")])
    assert table["step_per_patch"].to_list()[:3] == [1.0, 2.0, 0.5]
    assert table.loc["bag 'memory'", ["patch_size", "step"]].isna().all()
    assert table["n_instances"].to_list() == [12, 12, 12, 2]


def test_geometry_one_patch_has_no_step():
    assert np.isnan(check_geometry([Bag(np.ones((1, 2)), [[5, 5]])])["step"].iloc[0])


def test_geometry_of_tissue_parts_with_grids_of_their_own_is_the_common_step():
    parts = np.concatenate([GRID * 256, GRID * 256 + [3000, 17]])
    assert check_geometry([Bag(np.ones((24, 1)), parts)])["step"].to_list() == [256]


def test_geometry_of_scattered_patches_is_the_smallest_gap():
    scattered = [[0, 0], [512, 1024], [1536, 5120]]
    assert check_geometry([Bag(np.ones((3, 1)), scattered)])["step"].to_list() == [512]


def test_geometry_names_what_disagrees_or_cannot_be_read(tmp_path):
    for name, step in (("exact", 512), ("gaps", 1024), ("overlap", 256)):
        bag = Bag(np.ones((12, 2)), GRID * step)
        write_trident(tmp_path / f"{name}.h5", bag, patch_size_level0=512)
    (tmp_path / "truncated.h5").write_bytes(b"cut off")
    with h5py.File(tmp_path / "void.h5", "w") as file:
        file["features"], file["coords"] = np.empty((0, 4)), np.empty((0, 2))
    with h5py.File(tmp_path / "wrong.h5", "w") as file:
        file["features"], file["coords"] = np.ones((3, 4)), np.ones((2, 2))
    table = check_geometry(read_bags(tmp_path))
    assert table["problem"].notna().tolist() == [False, True, True, True, True, True]
    for name, said in (
        ("gaps", "stride 1024 is 2 of patch size 512 (gaps)"),
        ("overlap", "stride 256 is 0.5 of patch size 512 (overlap)"),
        ("truncated", "not a readable HDF5 file"),
        ("void", "bag 'void' is empty"),
        ("wrong", "bag 'wrong': coordinates of shape (2, 2) do not fit 3 instances"),
    ):
        assert said in table.loc[f"bag '{name}'", "problem"]


def test_geometry_of_files_reads_no_features(tmp_path, monkeypatch):
    bag = Bag(np.ones((12, 2)), GRID * 512)
    write_trident(tmp_path / "S1.h5", bag, patch_size_level0=512)
    monkeypatch.setattr(SlideFile, "read", lambda self: pytest.fail("features were read"))
    assert check_geometry(read_bags(tmp_path))["step_per_patch"].to_list() == [1]


def test_geometry_of_coordinates_given_beside_a_file_takes_them(tmp_path):
    write_trident(tmp_path / "S1.h5", Bag(np.ones((12, 2)), GRID), patch_size_level0=512)
    bag = Bag(SlideFile(str(tmp_path / "S1.h5")), GRID * 512)
    assert check_geometry([bag])["step"].to_list() == [512]
    patients = patient_bags([Bag(bag.source, GRID * 256, patient_id="P")])
    assert check_geometry(patients)["step"].to_list() == [256]
