"""Arrays in files of no tool: numpy, safetensors, parquet, zarr, and dicts of tensors."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch

from sk_momkd import load_cohort, read_bags
from sk_momkd.exceptions import BagFileError, FeatureTypeWarning

X = np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32)
GRID = np.stack(np.divmod(np.arange(12), 4)[::-1], axis=1) * 512
EDGES = np.array([[0, 1], [1, 2]])
STATED = {"encoder": "uni", "patch_size_level0": 512, "magnification": 20}


def npz(folder):
    np.savez(folder / "S1.npz", features=X, coords=GRID, edge_index=EDGES, **STATED)


def npz_compressed(folder):
    np.savez_compressed(folder / "S1.npz", embeddings=X[None], xy=GRID[None], **STATED)


def safetensors(folder):
    numpy = pytest.importorskip("safetensors.numpy")
    parts = {"features": X, "coords": GRID, "edge_index": EDGES}
    numpy.save_file(parts, folder / "S1.safetensors", {k: str(v) for k, v in STATED.items()})


def parquet_of_columns(folder):
    pytest.importorskip("pyarrow")
    table = pd.DataFrame(X, columns=[f"f{i}" for i in range(6)]).assign(x=GRID[:, 0], y=GRID[:, 1])
    write_parquet(table, folder)


def parquet_of_a_selection(folder):
    pytest.importorskip("pyarrow")
    table = pd.DataFrame(X, columns=[f"f{i}" for i in range(6)]).assign(x=GRID[:, 0], y=GRID[:, 1])
    write_parquet(table.set_axis(range(3, 3 + len(X))), folder, preserve_index=True)


def parquet_of_lists(folder):
    pytest.importorskip("pyarrow")
    write_parquet(pd.DataFrame({"features": list(X), "coords": list(GRID)}), folder)


def write_parquet(table, folder, *, preserve_index=False):
    import pyarrow
    from pyarrow import parquet

    made = pyarrow.Table.from_pandas(table, preserve_index=preserve_index)
    parquet.write_table(
        made.replace_schema_metadata({k: str(v) for k, v in STATED.items()}), folder / "S1.parquet"
    )


def zarr(folder, version=3):
    library = pytest.importorskip("zarr")
    group = library.open_group(folder / "S1.zarr", mode="w", zarr_format=version)
    for name, values in (("features", X), ("coords", GRID), ("edge_index", EDGES)):
        group.create_array(name, data=values, chunks=values.shape)
    group.attrs.update(STATED)


def zarr_2(folder):
    zarr(folder, 2)


def npz_of_other_names(folder):
    np.savez(folder / "S1.npz", Features=X, X=GRID[:, 0], y=GRID[:, 1], **STATED)


def npz_with_objects(folder):
    notes = np.array([{"by": "me"}, None], dtype=object)
    np.savez(folder / "S1.npz", embs=X, Coords=GRID, notes=notes, note=notes[0], **STATED)


def dict_of_tensors_and_columns(folder):
    parts = {"feats": torch.tensor(X), "x": torch.tensor(GRID[:, 0]), "y": torch.tensor(GRID[:, 1])}
    torch.save(parts | STATED, folder / "S1.pt")


def dict_of_tensors(folder):
    parts = {"features": torch.tensor(X), "coords": torch.tensor(GRID)}
    torch.save(parts | STATED, folder / "S1.pt")


WRITERS = [
    npz,
    npz_compressed,
    safetensors,
    parquet_of_columns,
    parquet_of_a_selection,
    parquet_of_lists,
    zarr,
    zarr_2,
    dict_of_tensors,
    npz_of_other_names,
    npz_with_objects,
    dict_of_tensors_and_columns,
]


@pytest.mark.parametrize("write", WRITERS)
def test_features_coordinates_and_what_is_stated_are_read(tmp_path, write):
    write(tmp_path)
    (bag,) = read_bags(tmp_path)
    assert (bag.bag_id, bag.shape) == ("S1", (12, 6))
    np.testing.assert_array_equal(bag.features, X)
    np.testing.assert_array_equal(bag.coords, GRID)
    if write in (npz, safetensors, zarr, zarr_2):
        np.testing.assert_array_equal(bag.edge_index, EDGES)
    info = bag.info
    assert (info.encoder, info.magnification, info.patch_size) == ("uni", 20, 512)
    assert info.unit == "level-0 px"


@pytest.mark.parametrize("lead", [(), (1,)])
def test_single_arrays_and_leading_axes(tmp_path, lead):
    np.save(tmp_path / "S1.npy", X.reshape(*lead, 12, 6))
    torch.save(torch.tensor(X).reshape(*lead, 12, 6), tmp_path / "S2.pt")
    for bag in read_bags([tmp_path / "S1.npy", tmp_path / "S2.pt"]):
        assert bag.shape == (12, 6)
        np.testing.assert_array_equal(bag.features, X)


def test_bfloat16_of_safetensors_is_read(tmp_path):
    library = pytest.importorskip("safetensors.torch")
    values = torch.tensor(X).bfloat16()
    library.save_file({"features": values}, tmp_path / "S1.safetensors")
    np.testing.assert_array_equal(read_bags(tmp_path)[0].features, values.float().numpy())


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors", ".parquet"])
@pytest.mark.parametrize("content", [b"", b"not this format", b"PK\x03\x04", b"\x93NUMPY\x01\x00"])
def test_damaged_files_are_named(tmp_path, suffix, content):
    (tmp_path / f"S1{suffix}").write_bytes(content)
    with pytest.raises(BagFileError, match=rf"S1\{suffix}"):
        read_bags(tmp_path)[0].load()


@pytest.mark.parametrize("write", WRITERS[:5])
def test_truncated_files_are_named(tmp_path, write):
    write(tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BagFileError, match="S1"):
        read_bags(tmp_path)[0].load()


def test_header_that_declares_more_than_the_file_is_refused(tmp_path):
    np.save(tmp_path / "S1.npy", X)
    content = (tmp_path / "S1.npy").read_bytes()
    vast = content.replace(b"(12, 6), }        ", b"(2097152, 1536), }")
    assert len(vast) == len(content)
    assert vast != content
    (tmp_path / "S1.npy").write_bytes(vast)
    with pytest.raises(BagFileError, match=r"S1\.npy declares"):
        read_bags(tmp_path)[0].load()


def test_unknown_names_say_what_is_there_and_what_is_read(tmp_path):
    np.savez(tmp_path / "S1.npz", a=X, b=X)
    with pytest.raises(BagFileError, match=r"S1\.npz holds a npz with 'a', 'b'.*'features'"):
        read_bags(tmp_path)[0].load()


@pytest.mark.parametrize("where", ["folder", "file"])
def test_pickles_are_refused_with_what_is_read(tmp_path, where):
    (tmp_path / "S1.pkl").write_bytes(pickle.dumps(X))
    source = tmp_path if where == "folder" else tmp_path / "S1.pkl"
    with pytest.raises(BagFileError, match=r"(?s)\.h5.*\.zarr.*[Pp]ickles.*any code"):
        read_bags(source)[0].load()


def test_pointers_of_dvc_are_named(tmp_path):
    (tmp_path / "S1.h5.dvc").write_text("outs:\n- md5: 1\n")
    with pytest.raises(BagFileError, match=r"pointers of DVC.*dvc pull"):
        read_bags(tmp_path)


def test_arrays_beside_the_file_of_a_tool_are_no_second_bag(tmp_path):
    torch.save(torch.tensor(X), tmp_path / "S1.pt")
    np.save(tmp_path / "S1.npy", GRID)
    np.savez(tmp_path / "S1.index.npz", GRID)
    (bag,) = read_bags(tmp_path)
    assert bag.info.format == "slideflow"


def test_folder_per_slide_and_folder_per_encoder(tmp_path):
    for slide in ("S1", "S2"):
        (tmp_path / slide).mkdir()
        np.save(tmp_path / slide / f"{slide}.npy", X)
    assert read_bags(tmp_path).ids.tolist() == ["S1", "S2"]
    table = pd.DataFrame({"slide_id": ["S1", "S2"], "case_id": ["A", "B"], "y": [0, 1]})
    assert len(load_cohort(table, tmp_path, label="y").bags) == 2
    for encoder in ("uni", "conch"):
        (tmp_path / "many" / encoder).mkdir(parents=True)
        for slide in ("S1", "S2"):
            np.save(tmp_path / "many" / encoder / f"{slide}.npy", X)
    with pytest.raises(BagFileError, match=r"conch \(2 files\).*uni \(2 files\).*Name the one"):
        read_bags(tmp_path / "many")
    assert len(read_bags(tmp_path / "many" / "uni")) == 2


def test_objects_as_features_are_refused(tmp_path):
    ragged = np.array([X[0], X[1, :2]], dtype=object)
    np.savez(tmp_path / "S1.npz", features=ragged)
    np.save(tmp_path / "S2.npy", ragged)
    for bag in read_bags(tmp_path):
        with pytest.raises(BagFileError, match=r"S\d\.np.*holds Python objects.*Save numbers"):
            bag.load()


def test_x_beside_a_label_is_features(tmp_path):
    np.savez(tmp_path / "S1.npz", x=X, y=1)
    (bag,) = read_bags(tmp_path)
    np.testing.assert_array_equal(bag.features, X)
    assert bag.coords is None


def test_coordinates_in_a_file_of_their_own(tmp_path):
    for slide, own in (("A", "features"), ("B", "features"), ("C", "C")):
        (tmp_path / slide).mkdir()
        np.save(tmp_path / slide / f"{own}.npy", X)
        np.save(tmp_path / slide / ("coords.npy" if slide != "C" else "C_coords.npy"), GRID)
    bags = read_bags(tmp_path)
    assert bags.ids.tolist() == ["A", "B", "C"]
    for bag in bags:
        np.testing.assert_array_equal(bag.coords, GRID)
        assert bag.info.keys == ("features", "coords")


def chunks_of(store, name):
    """Files with values of an array."""
    files = (path for path in (store / name).rglob("*") if path.is_file())
    return sorted(path for path in files if path.name not in ("zarr.json", ".zarray", ".zattrs"))


def zarr_in_chunks(folder, version, *, fill=0, **options):
    library = pytest.importorskip("zarr")
    group = library.open_group(folder / "S1.zarr", mode="w", zarr_format=version)
    for name, values, chunks in (("features", X, (4, 3)), ("coords", GRID, (1, 2))):
        extra = options if name == "features" else {}
        array = group.create_array(
            name, shape=values.shape, chunks=chunks, dtype=values.dtype, fill_value=fill, **extra
        )
        array[:] = values
    return folder / "S1.zarr"


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("fill", [0, 7])
def test_lost_chunk_of_zarr_is_no_content(tmp_path, version, fill):
    store = zarr_in_chunks(tmp_path, version, fill=fill)
    np.testing.assert_array_equal(read_bags(store)[0].coords, GRID)  # zarr leaves out the origin
    chunks_of(store, "features")[2].unlink()
    said = rf"S1\.zarr: array 'features' lacks 1 of 6 chunks, where zarr reads {fill}.*allow_cons"
    with pytest.raises(BagFileError, match=said):
        read_bags(store)[0].load()
    found = read_bags(store, allow_constant=True)[0].features
    assert (found != X).sum() == (found == fill).sum() == 12


@pytest.mark.filterwarnings("ignore:Object at coords is not recognized")
@pytest.mark.parametrize("part", ["coords", "coords of several", "shard", "metadata"])
def test_other_lost_files_of_zarr_are_named(tmp_path, part):
    store = zarr_in_chunks(tmp_path, 3, **({"shards": (8, 6)} if part == "shard" else {}))
    lost = chunks_of(store, "features" if part == "shard" else "coords")[-1]
    if part == "coords of several":
        zarr(tmp_path)
        lost = chunks_of(store, "coords")[0]
    (store / "coords/zarr.json" if part == "metadata" else lost).unlink()
    with pytest.raises(BagFileError, match=r"S1\.zarr.*(lacks|without the metadata)"):
        read_bags(store)[0].load()


@pytest.mark.filterwarnings("ignore::UserWarning")  # anndata and zarr on what is to come
@pytest.mark.parametrize("version", [2, 3])
def test_anndata_in_zarr_is_a_bag_with_coordinates(tmp_path, version):
    pytest.importorskip("zarr")
    from anndata import AnnData, settings

    slide = AnnData(X, obsm={"spatial": GRID}, uns={"tile_spec": {"base_width": 512.0}})
    with settings.override(zarr_write_format=version):
        slide.write_zarr(tmp_path / "S1.zarr")
    (bag,) = read_bags(tmp_path)
    assert (bag.info.format, bag.info.patch_size, bag.shape) == ("anndata", 512, (12, 6))
    np.testing.assert_array_equal(bag.features, X)
    np.testing.assert_array_equal(bag.coords, GRID)
    chunks_of(tmp_path / "S1.zarr", "X")[0].unlink()
    with pytest.raises(BagFileError, match=r"S1\.zarr: array 'X' lacks 1 of 1 chunks"):
        bag.load()


def test_spatial_data_in_zarr_is_named(tmp_path):
    library = pytest.importorskip("zarr")
    library.open_group(tmp_path / "S1.zarr", mode="w").create_group("tables")
    with pytest.raises(BagFileError, match=r"groups 'tables'.*SpatialData.*write_zarr"):
        read_bags(tmp_path)[0].load()


def test_links_in_a_zarr_store_are_refused(tmp_path):
    zarr(tmp_path)
    store, part = tmp_path / "S1.zarr", tmp_path / "elsewhere"
    chunk = next(path for path in (store / "features").rglob("*") if path.is_file())
    chunk.rename(part)
    chunk.symlink_to(part)
    with pytest.raises(BagFileError, match="is a link; allow it with allow_external=True"):
        read_bags(store)[0].load()
    np.testing.assert_array_equal(read_bags(store, allow_external=True)[0].features, X)


def test_numbers_beside_numbered_columns_of_parquet_are_named_and_no_features(tmp_path):
    columns = {"x": [0.0, 256.0], "y": [0.0, 0.0], "tile_id": [7, 8], "level": [0, 0]}
    features = {"feat_0": [1.0, 2.0], "feat_1": [3.0, 4.0], "feat_2": [5.0, 6.0]}
    write_parquet(pd.DataFrame(columns | features), tmp_path)
    with pytest.warns(FeatureTypeWarning, match="feat_0 to feat_2.*tile_id.*level"):
        bag = read_bags(tmp_path)[0].load()
    np.testing.assert_array_equal(bag.features, [[1, 3, 5], [2, 4, 6]])
    write_parquet(pd.DataFrame({"area": [1.0, 2.0], "stain": [3.0, 4.0]}), tmp_path)
    assert read_bags(tmp_path)[0].features.shape == (2, 2)


@pytest.mark.parametrize(
    "names",
    [
        ["CD3", "CD4", "CD8", "FOXP3", "PD1", "PDL1", "panCK", "DAPI"],
        ["CD1", "CD2", "FOXP3", "panCK"],  # a run of few
        ["f2", "f3", "f4", "area"],  # not from the first
        ["f0", "f1", "f3", "area"],  # with a gap
        ["f1", "f01", "f2", "area"],
        ["f\N{SUPERSCRIPT TWO}", "f\N{SUPERSCRIPT THREE}"],
    ],
)
def test_parquet_whose_columns_are_no_run_of_numbers_is_read_whole(names, tmp_path):
    values = np.random.default_rng(0).normal(size=(3, len(names)))
    write_parquet(pd.DataFrame(values, columns=names), tmp_path)
    np.testing.assert_allclose(read_bags(tmp_path)[0].features, values, rtol=1e-6)


@pytest.mark.filterwarnings("ignore:Features of parquet bags")
@pytest.mark.parametrize("names", [["0", "1", "2"], ["f01", "f02", "f03"], ["f2", "f0", "f1"]])
def test_run_of_numbered_columns_of_parquet_is_known_without_separator(names, tmp_path):
    values = np.random.default_rng(0).normal(size=(3, 4))
    write_parquet(pd.DataFrame(values, columns=[*names, "area"]), tmp_path)
    np.testing.assert_allclose(read_bags(tmp_path)[0].features, values[:, :3], rtol=1e-6)
