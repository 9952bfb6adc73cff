"""Every format, from files written here as its tool writes them, and back."""

import os
import pickle

import anndata
import h5py
import numpy as np
import pytest
import torch
from anndata import AnnData
from scipy import sparse
from torch_geometric.data import Data

from sk_momkd import Bag, read_bags, slide_anndata, write_trident
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_clam_pt_is_features_alone(tmp_path, dtype):
    torch.save(torch.tensor(X).to(dtype), tmp_path / "007.pt")
    (bag,) = read_bags(tmp_path)
    assert (bag.bag_id, bag.coords, bag.info.format) == ("007", None, "pt")
    np.testing.assert_array_equal(bag.features, torch.tensor(X).to(dtype).float().numpy())


@pytest.mark.parametrize("key", ["feats", "patch_embeddings"])
def test_stamp_keeps_micrometres_and_says_so(tmp_path, key):
    with h5py.File(tmp_path / "S1.h5", "w") as file:
        file[key], file["coords"] = X.astype(np.float16), GRID * 256.0
        file.attrs.update(unit="um", tile_size_um=256.0, tile_size_px=224, extractor="uni2")
    info = read_bags(tmp_path)[0].info
    assert (info.format, info.unit, info.patch_size, info.encoder) == ("stamp", "um", 256, "uni2")
    assert info.patch_size_level0 is None
    assert str(info) == f"stamp: {key}, coords; top-left in um, patches of 256; uni2"


def test_slideflow_coordinates_are_centres(tmp_path):
    torch.save(torch.tensor(X), tmp_path / "S1.pt")
    np.savez(tmp_path / "S1.index.npz", GRID * 299 + 149)
    (bag,) = read_bags(tmp_path)
    assert (bag.info.format, bag.info.anchor) == ("slideflow", "centre")
    np.testing.assert_array_equal(bag.coords, GRID * 299 + 149)


def test_lazyslide_anndata_with_graph_and_tile_spec(tmp_path):
    slide = AnnData(X)
    slide.obsm["spatial"] = GRID * 448
    graph = np.zeros((12, 12))
    graph[3, 5] = 1  # patch 3 lists 5 as its neighbour
    slide.obsp["spatial_connectivities"] = sparse.csr_matrix(graph)
    slide.uns["tile_spec"] = {"base_width": 448, "mpp": 0.5}
    slide.write_h5ad(tmp_path / "S1.h5ad")
    (bag,) = read_bags(tmp_path)
    np.testing.assert_array_equal(bag.features, X)
    np.testing.assert_array_equal(bag.coords, GRID * 448)
    assert bag.edge_index.tolist() == [[5], [3]]
    assert bag.info.patch_size_level0 == 448


def test_pyg_data_file_keeps_positions_and_edges(tmp_path):
    edges = torch.tensor([[0, 1], [1, 2]])
    data = Data(x=torch.tensor(X), pos=torch.tensor(GRID), edge_index=edges)
    torch.save(data, tmp_path / "S1.pt")
    (bag,) = read_bags(tmp_path)
    assert bag.info.keys == ("x", "pos", "edge_index")
    np.testing.assert_array_equal(bag.features, X)
    np.testing.assert_array_equal(bag.edge_index, edges)


class Malicious:
    def __reduce__(self):
        return os.mkdir, (os.environ["SHOULD_NOT_EXIST"],)


def test_pt_with_code_inside_is_refused_and_not_run(tmp_path, monkeypatch):
    target = tmp_path / "made"
    monkeypatch.setenv("SHOULD_NOT_EXIST", str(target))
    torch.save({"x": Malicious()}, tmp_path / "S1.pt")
    with pytest.raises(BagFileError, match=r"S1\.pt is not a readable torch file"):
        read_bags(tmp_path)[0].load()
    assert not target.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("S1.pt", b"not torch", "not a readable torch file"),
        ("S1.pt", b"", "not a readable torch file"),
        ("S1.h5ad", b"not hdf5", "not a readable .h5ad"),
        ("S1.h5", b"not hdf5", "not a readable HDF5"),
    ],
)
def test_damaged_file_of_any_kind_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BagFileError, match=f"{name}.*{message}"):
        read_bags(tmp_path)[0].load()


@pytest.mark.parametrize("content", [{"a": torch.ones(2)}, [1, 2], Data(pos=torch.ones(2, 2))])
def test_pt_of_something_else_says_what_it_holds(tmp_path, content):
    torch.save(content, tmp_path / "S1.pt")
    with pytest.raises(BagFileError, match=f"holds a {type(content).__name__}"):
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
    with pytest.raises(TypeError):
        write_trident(tmp_path / "S1.h5", Bag(X, GRID), patch_size_level0=1, dtype="unknown")
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
