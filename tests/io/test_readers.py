"""TRIDENT-style files: every variant seen in the wild, and every way they break."""

import pickle

import h5py
import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from sk_momkd import Bag, read_bags
from sk_momkd.exceptions import BagError, BagFileError
from sk_momkd.io.readers import SlideFile

FEATURES = np.arange(8.0).reshape(4, 2)
COORDS = np.array([[0, 0], [512, 0], [0, 512], [512, 512]])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "S1.h5"


def write(path, **datasets):
    """File with these datasets; None stands for a group."""
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            if values is None:
                file.create_group(name)
            else:
                file[name] = values
    return SlideFile(str(path))


def write_bag(path, **datasets):
    return Bag(write(path, **datasets), bag_id="S1")


def is_closed(path):
    """A file that this process still holds for reading cannot be opened for writing."""
    with h5py.File(path, "a") as file:
        return file.mode == "r+"


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_read_features_of_any_width_gives_float32(path, dtype):
    bag = write_bag(path, features=FEATURES.astype(dtype), coords=COORDS)
    assert bag.shape == (4, 2)
    assert bag.features.dtype == np.float32
    np.testing.assert_array_equal(bag.features, FEATURES)
    np.testing.assert_array_equal(bag.coords, COORDS)


def test_read_leading_axis_of_one_is_dropped(path):
    bag = write_bag(path, features=FEATURES[None], coords=COORDS[None])
    assert bag.shape == (4, 2)
    np.testing.assert_array_equal(bag.features, FEATURES)
    np.testing.assert_array_equal(bag.coords, COORDS)


@pytest.mark.parametrize("lead", [(), (1,)])
def test_read_single_patch_stays_a_matrix(path, lead):
    bag = write_bag(path, features=FEATURES[:1].reshape(*lead, 1, 2), coords=COORDS[:1])
    assert bag.shape == bag.features.shape == (1, 2)
    assert bag.coords.shape == (1, 2)


def test_read_without_coords_gives_none(path):
    bag = write_bag(path, features=FEATURES)
    assert bag.coords is None
    assert bag.edge_index is None


def test_read_one_row_chunks_and_attributes_of_trident(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("features", data=FEATURES, chunks=(1, 2), compression="gzip")
        file.create_dataset("coords", data=COORDS, chunks=(1, 2)).attrs["patch_size_level0"] = 512
    np.testing.assert_array_equal(SlideFile(str(path)).read().features, FEATURES)


@pytest.mark.parametrize(
    ("datasets", "said"),
    [
        ({"vectors": FEATURES}, r"no dataset .*'features'.*; it holds \['vectors'\].*auto"),
        ({}, r"no dataset .*'features'.*; it holds \[\]"),
        ({"features": None, "coords": COORDS}, r"no dataset 'features'"),
        ({"features": FEATURES, "coords": None}, r"no dataset 'coords'"),
    ],
    ids=["other_name", "no_dataset", "group", "group_of_coords"],
)
def test_read_missing_dataset_raises_naming_the_file(path, datasets, said):
    source = write(path, **datasets)
    with pytest.raises(BagFileError, match=rf"S1\.h5 has {said}"):
        source.read()
    assert is_closed(path)


@pytest.mark.parametrize(
    ("datasets", "said"),
    [
        ({"features": FEATURES[:0]}, r"is empty.*\(0, 2\)"),
        ({"features": np.empty(0)}, r"\(0,\)"),
        ({"features": np.float32(1)}, r"two dimensions.*\(\)"),
        ({"features": np.stack([FEATURES, FEATURES])}, r"two dimensions.*\(2, 4, 2\)"),
        ({"features": FEATURES, "coords": COORDS[:2]}, "do not fit 4 instances"),
        ({"features": np.array([[b"a"]])}, "must be numbers"),
    ],
)
def test_load_unusable_content_raises_naming_the_bag(path, datasets, said):
    bag = write_bag(path, **datasets)
    with pytest.raises(BagError, match=f"^bag 'S1'.*{said}"):
        bag.load()
    assert is_closed(path)


def test_shape_of_empty_slide_is_known_from_the_header(path):
    assert write_bag(path, features=FEATURES[:0]).shape == (0, 2)


def test_read_truncated_file_raises_naming_it(path):
    write(path, features=np.ones((500, 20)))
    path.write_bytes(path.read_bytes()[:10_000])
    with pytest.raises(BagFileError, match=r"S1\.h5 is not a readable HDF5 file.*truncated"):
        SlideFile(str(path)).read()


def test_read_damaged_chunk_raises_naming_file_and_dataset(path):
    with h5py.File(path, "w") as file:
        made = file.create_dataset("features", data=FEATURES, chunks=(4, 2), compression="gzip")
        chunk = made.id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = b"\0" * chunk.size
    path.write_bytes(content)
    with pytest.raises(BagFileError, match=r"S1\.h5: dataset 'features' cannot be read"):
        SlideFile(str(path)).read()
    assert is_closed(path)


def test_read_text_file_raises_naming_it(path):
    path.write_text("slide_id,label\n")
    with pytest.raises(BagFileError, match=r"S1\.h5 is not a readable HDF5 file.*another format"):
        SlideFile(str(path)).read()


@pytest.mark.parametrize("builtin", [BagError, OSError, ValueError])
def test_read_missing_file_raises_naming_it(path, builtin):
    with pytest.raises(builtin, match=r"S1\.h5 does not exist"):
        SlideFile(str(path)).read()


def test_read_folder_raises_naming_it(path):
    path.mkdir()
    with pytest.raises(BagFileError, match=r"S1\.h5 is not a readable HDF5 file"):
        SlideFile(str(path)).read()


def test_file_after_reading_is_closed(path):
    bag = write_bag(path, features=FEATURES, coords=COORDS)
    assert bag.shape == bag.load().features.shape
    assert is_closed(path)
    path.unlink()
    assert not path.exists()


def test_file_that_changed_is_read_anew(path):
    bag = write_bag(path, features=FEATURES)
    before = bag.features
    write(path, features=FEATURES + 1)
    np.testing.assert_array_equal(bag.features, before + 1)


def test_pickle_of_a_bag_that_was_read_reads_again(path):
    bag = write_bag(path, features=FEATURES)
    bag.load()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(bag)).features, FEATURES)


def test_repr_of_bag_in_file_shows_the_file_name(path):
    assert repr(write_bag(path, features=FEATURES)) == "Bag('S1', from S1.h5 (clam: features))"


def test_read_dataset_without_a_dataspace_raises_naming_the_file(tmp_path):
    with h5py.File(tmp_path / "S1.h5", "w") as file:
        file["features"] = h5py.Empty("f4")
    with pytest.raises(BagError, match="S1"):
        Bag(SlideFile(str(tmp_path / "S1.h5")), bag_id="S1").load()


def test_read_folder_passes_over_hidden_files_and_folders(tmp_path):
    for name in ("S1.h5", "._S1.h5"):
        (tmp_path / name).touch()
    (tmp_path / "S2.h5").mkdir()
    assert read_bags(tmp_path).ids.tolist() == ["S1"]


def test_read_same_path_twice_raises(tmp_path):
    (tmp_path / "S1.h5").touch()
    with pytest.raises(BagFileError, match="Two files are of slide 'S1'"):
        read_bags([tmp_path / "S1.h5", tmp_path / "S1.h5"])


def test_read_accents_of_any_composition_are_one_id(tmp_path):
    (tmp_path / "Mu\u0308.h5").touch()  # as macOS writes it
    assert read_bags(tmp_path).ids.tolist() == ["M\u00fc"]


def test_read_pyg_without_positions(tmp_path):
    torch.save(Data(x=torch.ones(2, 3)), tmp_path / "S1.pt")
    (bag,) = read_bags(tmp_path)
    assert bag.info.keys == ("x",)
    assert bag.coords is None


def test_read_sparse_tensor_raises_naming_the_file(tmp_path):
    torch.save(torch.eye(3).to_sparse(), tmp_path / "S1.pt")
    with pytest.raises(BagFileError, match=r"S1\.pt holds no dense tensor"):
        read_bags(tmp_path)[0].load()


def test_read_code_in_a_torch_file_is_refused_without_bad_advice(tmp_path):
    torch.save(print, tmp_path / "S1.pt")
    with pytest.raises(BagFileError, match=r"S1\.pt is not a readable torch file") as raised:
        read_bags(tmp_path)[0].load()
    assert "Re-running" not in str(raised.value)
