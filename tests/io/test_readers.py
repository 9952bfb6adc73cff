"""Reading bag files: recognised formats, every kind of damage, and reading in blocks."""

import pickle

import h5py
import numpy as np
import pytest
import torch

from sk_momkd import Bag, cache_bags, read_bags
from sk_momkd.exceptions import BagError, BagFileError
from sk_momkd.io.readers import SlideFile

FEATURES = np.arange(8.0).reshape(4, 2)
COORDS = np.array([[0, 0], [512, 0], [0, 512], [512, 512]])
SLIDE = "TCGA-A2-A04P-01Z-00-DX1.0FA23C1B-1E0B-4A2E-9F5D-6D6C3A2E7A11"
X = np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32)
GRID = np.stack(np.divmod(np.arange(12), 4)[::-1], axis=1)


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
        ({"vectors": FEATURES}, r"no dataset .*'features'.*; it holds \['vectors'\]"),
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
    with pytest.raises(BagFileError, match=r"S1\.h5 cannot be read: it is truncated.*again"):
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
    with pytest.raises(BagFileError, match=r"S1\.h5 is a folder, not a file"):
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


def trident(folder, magnification=40, features=X, name=SLIDE):
    """One-row chunks, int64 coordinates in level-0 pixels, attributes on them."""
    size = 256 * magnification // 20
    coords = (GRID * size)[: len(features)].astype(np.int64)
    with h5py.File(folder / f"{name}.h5", "w") as file:
        if len(features):
            file.create_dataset("features", data=features, chunks=(1, features.shape[1]))
        else:
            file["features"] = features
        file["coords"] = coords
        file["coords"].attrs.update(
            patch_size=256,
            patch_size_level0=size,
            level0_magnification=magnification,
            target_magnification=20,
            overlap=0,
            name=name,
        )
    return coords


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("S1.pt", b"not torch", "not a readable torch file"),
        ("S1.pt", b"", "not a readable torch file"),
        ("S1.h5ad", b"not hdf5", "not a readable .h5ad file"),
        ("S1.h5", b"not hdf5", "not a readable HDF5"),
    ],
)
def test_damaged_file_of_any_kind_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BagFileError, match=f"{name}.*{message}"):
        read_bags(tmp_path)[0].load()


def test_read_bags_mixed_folder_recognises_each_file(tmp_path):
    trident(tmp_path, name="a")
    torch.save(torch.tensor(X), tmp_path / "b.pt")
    (tmp_path / "notes.txt").write_text("not a bag")
    bags = read_bags(tmp_path)
    assert [bag.info.format for bag in bags] == ["trident", "pt"]


def test_read_bags_insisting_on_a_format_refuses_others(tmp_path):
    trident(tmp_path)
    assert read_bags(tmp_path, format="clam")[0].info.format == "clam"
    with pytest.raises(BagFileError, match=r"no dataset 'feats'"):
        read_bags(tmp_path, format="stamp")[0].load()
    with pytest.raises(BagFileError, match="not for this suffix"):
        read_bags(tmp_path, format="pyg")[0].load()
    with pytest.raises(BagFileError, match="format must be one of"):
        read_bags(tmp_path, format="csv")


def test_read_bags_list_file_and_missing(tmp_path):
    trident(tmp_path, name="a")
    path = tmp_path / "a.h5"
    assert list(read_bags(path).ids) == list(read_bags([str(path)]).ids) == ["a"]
    with pytest.raises(BagFileError, match=r"b\.h5 does not exist"):
        read_bags([tmp_path / "b.h5"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(BagFileError, match="holds no bag file"):
        read_bags(tmp_path / "empty")


def test_read_bags_two_files_of_one_slide_raise(tmp_path):
    trident(tmp_path, name="a")
    torch.save(torch.tensor(X), tmp_path / "a.pt")
    with pytest.raises(BagFileError, match="Two files are of slide 'a'"):
        read_bags(tmp_path)


def test_read_bags_opens_nothing_and_pickles_as_paths(tmp_path):
    (tmp_path / "S1.h5").write_bytes(b"never opened")
    bags = read_bags(tmp_path)
    assert len(pickle.dumps(bags)) < 1000
    assert "S1.h5" in repr(bags)


@pytest.mark.parametrize(
    ("folder", "n", "width"),
    [("tcga_brca", 678, 113), ("her2st", 126, 153), ("ucsb_breast", 58, 153)],
)
def test_real_folders_are_read_whole(data_folder, folder, n, width):
    bags = read_bags(data_folder / folder / "features")
    assert len(bags) == n
    for bag in bags[:: max(1, n // 20)]:
        features, coords, *_ = bag.load()
        assert features.shape[1] == width
        assert len(coords) == len(features)


def write_features(path, features, **rest):
    with h5py.File(path, "w") as file:
        file["features"] = features
        for name, values in rest.items():
            file[name] = values
    return path


@pytest.fixture
def features():
    return np.random.default_rng(0).normal(size=(23, 5)).astype(np.float32)


@pytest.mark.parametrize("size", [1, 7, 23, 100])
@pytest.mark.parametrize("batched", [False, True])
def test_blocks_of_a_file_are_its_features_in_order(tmp_path, features, size, batched):
    stored = features[None] if batched else features
    path = write_features(tmp_path / "S.h5", stored, coords=np.zeros((23, 2), dtype=int))
    bag = Bag(SlideFile(str(path)), bag_id="S")
    with bag.opened(size) as opened:
        assert opened.shape == (23, 5)
        assert opened.frame.features.shape == (23, 0)
        assert opened.frame.coords.shape == (23, 2)
        for _ in range(2):  # read anew in each pass
            blocks = list(opened.read())
            assert [len(block) for block in blocks[:-1]] == [size] * (len(blocks) - 1)
            assert np.array_equal(np.concatenate(blocks), features)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_blocks_of_a_cached_file_are_its_features(tmp_path, features, dtype):
    write_features(tmp_path / "S.h5", features)
    bag = cache_bags(read_bags(tmp_path), tmp_path / "cache", dtype=dtype)[0]
    for _ in range(2):  # made, then found
        with bag.opened(7) as opened:
            assert np.array_equal(np.concatenate(list(opened.read())), bag.features)


def test_blocks_stored_graph_is_that_of_load(tmp_path, features):
    edges = np.array([[0, 1], [2, 3]])
    write_features(tmp_path / "S.h5", features, edge_index_k8=edges)
    bag = read_bags(tmp_path)[0]
    with bag.opened(10) as opened:
        assert np.array_equal(opened.frame.edge_index, bag.edge_index)


def test_bag_that_must_be_read_whole_opens_as_nothing(tmp_path, features):
    write_features(tmp_path / "S.h5", features)
    for bag in (Bag(features), read_bags(tmp_path)[0].map(lambda x: x + 1)):
        with bag.opened(5) as opened:
            assert opened is None


def test_blocks_with_nan_name_the_bag_and_the_instances(tmp_path, features):
    features[12, 3] = np.nan
    write_features(tmp_path / "S.h5", features)
    with (
        read_bags(tmp_path)[0].opened(5) as opened,
        pytest.raises(BagError, match=r"bag 'S', instances 10 to 14.*NaN"),
    ):
        list(opened.read())


@pytest.mark.parametrize("stored", [np.zeros((0, 5)), np.zeros(5), np.zeros((2, 3, 5))])
def test_opened_features_of_odd_shape_raise_naming_the_bag(tmp_path, stored):
    write_features(tmp_path / "S.h5", stored)
    with pytest.raises(BagError, match="bag 'S'"), read_bags(tmp_path)[0].opened(5):
        pass


def test_opened_file_is_closed_afterwards(tmp_path, features):
    path = write_features(tmp_path / "S.h5", features)
    with read_bags(tmp_path)[0].opened(5) as opened:
        next(opened.read())
    with h5py.File(path, "a") as file:  # a handle left open would refuse to be written
        file["more"] = 1


def test_error_of_the_reader_is_not_blamed_on_the_file(tmp_path, features):
    write_features(tmp_path / "S.h5", features)
    with pytest.raises(RuntimeError, match=r"^out of memory$"), read_bags(tmp_path)[0].opened(5):
        raise RuntimeError("out of memory")


def test_opened_coords_that_do_not_fit_raise_as_load_does(tmp_path, features):
    write_features(tmp_path / "S.h5", features, coords=np.zeros((3, 2)))
    bag = read_bags(tmp_path)[0]
    with pytest.raises(BagError) as of_load:
        bag.load()
    with pytest.raises(BagError) as of_opened, bag.opened(5):
        pass
    assert str(of_opened.value) == str(of_load.value)
