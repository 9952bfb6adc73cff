"""HDF5 files, written here as each tool writes them."""

import h5py
import numpy as np
import pytest

from sk_momkd import read_bags
from sk_momkd.data.graph import build_edges
from sk_momkd.exceptions import BagError, BagFileError

SLIDE = "TCGA-A2-A04P-01Z-00-DX1.0FA23C1B-1E0B-4A2E-9F5D-6D6C3A2E7A11"
X = np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32)
GRID = np.stack(np.divmod(np.arange(12), 4)[::-1], axis=1)


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


@pytest.mark.parametrize("magnification", [20, 40])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_trident_geometry_of_20x_and_40x(tmp_path, magnification, dtype):
    coords = trident(tmp_path, magnification, X.astype(dtype))
    (bag,) = read_bags(tmp_path)
    assert bag.bag_id == SLIDE
    np.testing.assert_array_equal(bag.features, X.astype(dtype).astype(np.float32))
    np.testing.assert_array_equal(bag.coords, coords)
    assert bag.info.format == "trident"
    assert bag.info.patch_size_level0 == 256 * magnification // 20
    assert bag.info.unit == "level-0 px"


def test_trident_empty_slide_is_named(tmp_path):
    trident(tmp_path, features=np.empty((0, 6), np.float32))
    with pytest.raises(BagError, match=f"{SLIDE}.*is empty"):
        read_bags(tmp_path)[0].load()


def test_public_set_with_leading_axis_is_squeezed(tmp_path):
    with h5py.File(tmp_path / "S1.h5", "w") as file:
        file["features"], file["coords"] = X[None], GRID[None]
    (bag,) = read_bags(tmp_path)
    assert bag.shape == (12, 6)
    np.testing.assert_array_equal(bag.coords, GRID)


def test_one_patch_of_three_axes_stays_one_patch(tmp_path):
    with h5py.File(tmp_path / "S1.h5", "w") as file:
        file["features"] = X[None, :1]
    assert read_bags(tmp_path)[0].features.shape == (1, 6)


def test_momkd_release_graph_lets_a_patch_receive_from_its_neighbours(tmp_path):
    trident(tmp_path)
    neighbours = np.array([[0, 0, 1], [1, 4, 2]])  # row 0 the patch, row 1 its nearest
    with h5py.File(tmp_path / f"{SLIDE}.h5", "a") as file:
        file.create_dataset("edge_index_k8", data=neighbours, compression="gzip")
    (bag,) = read_bags(tmp_path)
    assert bag.info.format == "momkd"
    assert bag.info.keys == ("features", "coords", "edge_index_k8")
    np.testing.assert_array_equal(bag.edge_index, neighbours[::-1])
    np.testing.assert_array_equal(build_edges(bag.load()), [[1, 4, 2], [0, 0, 1]])


def test_clam_h5_has_coordinates_without_attributes(tmp_path):
    with h5py.File(tmp_path / "S1.h5", "w") as file:
        file["features"], file["coords"] = X, (GRID * 512).astype(np.int32)
    (bag,) = read_bags(tmp_path)
    assert bag.info.format == "clam"
    assert bag.info.patch_size_level0 is None
    np.testing.assert_array_equal(bag.coords, GRID * 512)


def clam(folder, *, features="h5_files", **attributes):
    """CLAM's two folders: features without attributes, patches with them."""
    (folder / features).mkdir()
    (folder / "patches").mkdir()
    with h5py.File(folder / features / "S1.h5", "w") as file:
        file["features"], file["coords"] = X, (GRID * 512).astype(np.int32)
    with h5py.File(folder / "patches" / "S1.h5", "w") as file:
        file["coords"] = (GRID * 512).astype(np.int32)
        file["coords"].attrs.update(attributes)
    return read_bags(folder / features)[0]


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ({"patch_size": 256, "patch_level": 0, "downsample": (1.0, 1.0)}, 256),
        ({"patch_size": 256, "patch_level": 1, "downsample": (4.0, 4.0)}, 1024),
        ({"patch_size": 256, "patch_level": 1, "downsample": (4.00012, 4.00031)}, 1024),
        ({"patch_size": 256, "patch_level": 0}, 256),
        ({"patch_size": 256, "patch_level": 1}, None),
        ({"patch_size": 256}, None),
        ({"patch_size": -256, "patch_level": 0}, None),
        ({"patch_size": "large", "patch_level": 0}, None),
        ({"patch_size": 256, "patch_level": 1, "downsample": ()}, None),
        ({}, None),
    ],
)
def test_clam_patch_size_is_read_from_the_patch_file(tmp_path, attributes, size):
    assert clam(tmp_path, **attributes).info.patch_size_level0 == size


def test_clam_patch_size_of_another_folder_is_not_taken(tmp_path):
    assert clam(tmp_path, features="h5", patch_size=256, patch_level=0).info.patch_size is None


def test_clam_damaged_patch_file_is_named_and_features_are_read(tmp_path):
    bag = clam(tmp_path, patch_size=256, patch_level=0)
    (tmp_path / "patches" / "S1.h5").write_bytes(b"cut off")
    with pytest.raises(BagFileError, match=r"patches.S1\.h5 is not a readable HDF5"):
        bag.info  # noqa: B018
    np.testing.assert_array_equal(bag.features, X)


@pytest.mark.parametrize("key", ["feats", "patch_embeddings"])
def test_stamp_keeps_micrometres_and_says_so(tmp_path, key):
    with h5py.File(tmp_path / "S1.h5", "w") as file:
        file[key], file["coords"] = X.astype(np.float16), GRID * 256.0
        file.attrs.update(unit="um", tile_size_um=256.0, tile_size_px=224, extractor="uni2")
    info = read_bags(tmp_path)[0].info
    assert (info.format, info.unit, info.patch_size, info.encoder) == ("stamp", "um", 256, "uni2")
    assert info.patch_size_level0 is None
    assert str(info) == f"stamp: {key}, coords; top-left in um, patches of 256; uni2"


def test_hest_embeddings_are_features(tmp_path):
    with h5py.File(tmp_path / "S1.h5", "w") as file:
        file["embeddings"], file["coords"] = X, GRID
        file["barcodes"] = np.array([[b"000x000"]] * len(X))
    (bag,) = read_bags(tmp_path)
    assert (bag.info.format, bag.info.keys) == ("hest", ("embeddings", "coords"))
    np.testing.assert_array_equal(bag.features, X)
    np.testing.assert_array_equal(bag.coords, GRID)
