"""Files that name other files, lack content, or declare more than they hold."""

import os
import zipfile

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import sparse

from sk_momkd import load_cohort, read_bags, simulate_cohort, write_trident
from sk_momkd.data.bag import Bag
from sk_momkd.exceptions import (
    BagError,
    BagFileError,
    CohortError,
    FeatureTypeWarning,
    OmicsError,
)
from sk_momkd.io import hdf5_checks, local_files
from sk_momkd.io.geojson import read_polygons
from sk_momkd.io.tables import read_table

X = np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32)
SLIDES = pd.DataFrame({"slide_id": ["S1", "S2"], "case_id": ["P1", "P2"], "er": ["+", "-"]})


@pytest.fixture
def secret(tmp_path):
    """A file outside the folder of bags."""
    path = tmp_path / "elsewhere" / "secret.h5"
    path.parent.mkdir()
    with h5py.File(path, "w") as file:
        file["features"] = X
    return path


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "bags").mkdir()
    return tmp_path / "bags"


def external_link(path, secret):
    with h5py.File(path, "w") as file:
        file["features"] = h5py.ExternalLink(str(secret), "features")


def link_of_a_group(path, secret):
    with h5py.File(path, "w") as file:
        file["group"] = h5py.ExternalLink(str(secret), "/")
        file["features"] = h5py.SoftLink("/group/features")


def external_storage(path, secret):
    raw = secret.with_suffix(".bin")
    raw.write_bytes(X.tobytes())
    with h5py.File(path, "w") as file:
        file.create_dataset("features", X.shape, "f4", external=[(str(raw), 0, X.nbytes)])


def virtual_dataset(path, secret):
    layout = h5py.VirtualLayout(X.shape, "f4")
    layout[:] = h5py.VirtualSource(str(secret), "features", X.shape)
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("features", layout)


def link_in_the_file_system(path, secret):
    path.symlink_to(secret)


WAYS_OUT = [
    external_link,
    link_of_a_group,
    external_storage,
    virtual_dataset,
    link_in_the_file_system,
]


@pytest.mark.parametrize("way", WAYS_OUT)
def test_content_of_other_files_is_refused_unless_allowed(folder, secret, way):
    way(folder / "S1.h5", secret)
    (bag,) = read_bags(folder)
    for use in (bag.load, lambda: bag.shape):
        with pytest.raises(BagFileError, match=r"S1\.h5.*allow_external=True"):
            use()
    (bag,) = read_bags(folder, allow_external=True)
    np.testing.assert_array_equal(bag.features, X)


@pytest.mark.parametrize("way", WAYS_OUT)
def test_parts_of_an_allowed_file_name_what_holds_its_content(folder, secret, way):
    way(folder / "S1.h5", secret)
    (bag,) = read_bags(folder, allow_external=True)
    held = {os.path.realpath(part) for part in bag.source.parts}
    assert held >= {str(secret.with_suffix(".bin") if way is external_storage else secret)}


def test_link_within_the_folder_is_followed(folder):
    write_bag(folder / "S1.h5")
    (folder / "S2.h5").symlink_to("S1.h5")
    assert [len(bag.features) for bag in read_bags(folder)] == [12, 12]


def test_soft_links_and_virtual_datasets_within_a_file_are_followed(folder):
    layout = h5py.VirtualLayout(X.shape, "f4")
    layout[:6] = h5py.VirtualSource(".", "one", (6, 6))
    layout[6:] = h5py.VirtualSource(".", "two", (6, 6))
    with h5py.File(folder / "S1.h5", "w") as file:
        file["one"], file["two"] = X[:6], X[6:]
        file.create_virtual_dataset("all", layout)
        file["features"] = h5py.SoftLink("/all")
    np.testing.assert_array_equal(read_bags(folder)[0].features, X)


def write_bag(path, features=X, **options):
    with h5py.File(path, "w") as file:
        file.create_dataset("features", data=features, **options)
    return path


@pytest.mark.parametrize("name", ["S1.h5", "S1.pt", "S1.h5ad"])
def test_pipe_is_refused_and_not_waited_for(folder, name):
    os.mkfifo(folder / name)
    with pytest.raises(BagFileError, match=r"is a pipe"):
        read_bags([folder / name])[0].load()


def test_link_to_a_pipe_is_refused_and_not_waited_for(folder, tmp_path):
    os.mkfifo(tmp_path / "pipe.h5")
    external_link(folder / "S1.h5", tmp_path / "pipe.h5")
    for allow in (False, True):
        with pytest.raises(BagFileError, match=r"allow_external|is a pipe"):
            read_bags(folder, allow_external=allow)[0].load()
    os.mkfifo(tmp_path / "mask.geojson")
    with pytest.raises(BagFileError, match="is a pipe"):
        read_polygons(tmp_path / "mask.geojson")
    os.mkfifo(tmp_path / "table.csv")
    with pytest.raises(CohortError, match="is not a file"):
        read_table(tmp_path / "table.csv")


def write_h5ad(path, matrix):
    ids = pd.DataFrame(index=["P1", "P2", "P3"])
    genes = pd.DataFrame(index=[f"G{i}" for i in range(matrix.shape[1])])
    AnnData(matrix, ids, genes).write_h5ad(path)
    return path


def cohort_with(folder, omics, **options):
    for slide in SLIDES["slide_id"]:
        write_bag(folder / f"{slide}.h5")
    return load_cohort(SLIDES, folder, omics, label="er", **options)


def test_h5ad_with_content_in_other_files_is_refused_unless_allowed(folder, tmp_path, secret):
    path = write_h5ad(tmp_path / "rna.h5ad", np.ones((3, 6), np.float32))
    with h5py.File(path, "a") as file:
        del file["X"]
        file["X"] = h5py.ExternalLink(str(secret), "features")
    with pytest.raises(OmicsError, match=r"rna\.h5ad.*allow_external=True"):
        cohort_with(folder, path)


@pytest.mark.slow
@pytest.mark.parametrize("value", [10**9, 260, -1])
@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_matrix])
def test_sparse_indices_outside_the_matrix_are_refused(folder, tmp_path, value, kind):
    path = write_h5ad(tmp_path / "rna.h5ad", kind(np.ones((3, 60), np.float32)))
    with h5py.File(path, "a") as file:
        file["X/indices"][:2] = value
    with pytest.raises(OmicsError, match=rf"rna\.h5ad.*'/X' has indices.*{value}"):
        cohort_with(folder, path)
    backed = anndata.read_h5ad(path, backed="r")
    with pytest.raises(OmicsError, match="has indices"):
        cohort_with(folder, backed)
    backed.file.close()
    path.rename(folder / "S1.h5ad")
    with pytest.raises(BagFileError, match=r"S1\.h5ad.*has indices"):
        read_bags(folder / "S1.h5ad")[0].load()


@pytest.mark.parametrize("block", [2, 2**22])
def test_index_that_is_twice_in_a_row_is_refused(folder, tmp_path, monkeypatch, block):
    monkeypatch.setattr("sk_momkd.data.stored_sparse._BLOCK", block)
    counts = sparse.csr_matrix(np.arange(1, 19, dtype=np.float32).reshape(3, 6))
    path = write_h5ad(tmp_path / "rna.h5ad", counts)
    with h5py.File(path, "a") as file:
        file["X/indices"][6:12] = [5, 4, 3, 2, 1, 0]  # in another order, which is allowed
        file["X/data"][6:12] = file["X/data"][6:12][::-1]
    found = cohort_with(folder, path).omics
    np.testing.assert_array_equal(found.to_df().loc[["P1", "P2"]], counts[:2].toarray())
    with h5py.File(path, "a") as file:
        file["X/indices"][8:10] = 0
    with pytest.raises(OmicsError, match=r"'/X' has the same index more than once in row 1 "):
        cohort_with(folder, path)
    path.rename(folder / "S1.h5ad")
    with pytest.raises(BagFileError, match=r"S1\.h5ad.*more than once in row 1"):
        read_bags(folder / "S1.h5ad")[0].load()


def h5sparse(path, counts):
    """A file as anndata before 0.7 wrote it."""
    with h5py.File(path, "w") as file:
        stored = file.create_group("X")
        stored.attrs.update(h5sparse_format="csr", h5sparse_shape=np.array(counts.shape))
        for part in ("data", "indices", "indptr"):
            stored[part] = getattr(counts, part)
        for axis, names in (("obs", "P1 P2 P3"), ("var", "A B C D")):
            rows = [(name.encode(),) for name in names.split()]
            file[axis] = np.array(rows, dtype=[("index", "S4")])
    return path


@pytest.mark.filterwarnings("ignore::anndata.OldFormatWarning")
def test_h5ad_of_old_with_h5sparse_is_read_and_checked(folder, tmp_path):
    counts = sparse.csr_matrix(np.arange(12, dtype=np.float32).reshape(3, 4))
    path = h5sparse(tmp_path / "rna.h5ad", counts)
    found = cohort_with(folder, path).omics
    np.testing.assert_array_equal(found.to_df().loc[["P1", "P2"]], counts[:2].toarray())
    np.testing.assert_array_equal(read_bags(path)[0].features, counts.toarray())
    with h5py.File(path, "a") as file:
        file["X/indices"][:2] = 10**9
    with pytest.raises(OmicsError, match="has indices"):
        cohort_with(folder, path)
    with pytest.raises(BagFileError, match="has indices"):
        read_bags(path)[0].load()


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("indptr", lambda p: p[::-1]),
        ("indptr", lambda p: p[:-1]),
        ("indptr", lambda p: p + 1),
        ("indices", lambda p: p[:-1]),
        ("indices", lambda p: p.astype(float)),
    ],
)
def test_sparse_parts_that_do_not_fit_are_refused(folder, tmp_path, part, change):
    path = write_h5ad(tmp_path / "rna.h5ad", sparse.csr_matrix(np.ones((3, 6), np.float32)))
    with h5py.File(path, "a") as file:
        values = change(file[f"X/{part}"][:])
        del file[f"X/{part}"]
        file[f"X/{part}"] = values
    with pytest.raises(OmicsError, match=r"rna\.h5ad: the sparse matrix '/X'"):
        cohort_with(folder, path)


def test_damaged_sparse_matrix_in_memory_is_refused(folder):
    matrix = sparse.csr_matrix(np.ones((3, 6), np.float32))
    matrix.indices[:2] = 7
    rna = AnnData(matrix, obs=pd.DataFrame(index=["P1", "P2", "P3"]))
    with pytest.raises(OmicsError, match="damaged sparse matrix"):
        cohort_with(folder, rna)


def test_dataset_that_was_never_written_is_no_bag_of_zeros(folder):
    for i, options in enumerate(({}, {"chunks": (3, 6)}, {"chunks": (3, 6), "compression": 4})):
        with h5py.File(folder / "S1.h5", "w") as file:
            made = file.create_dataset("features", (12, 6), "f4", **options)
            if i:
                made[:6] = X[:6]
        with pytest.raises(BagFileError, match=rf"'/features' lacks {'50' if i else '100'}\.0%"):
            read_bags(folder)[0].load()


def test_virtual_dataset_whose_source_is_gone_or_too_small(folder, secret):
    virtual_dataset(folder / "S1.h5", secret)
    (bag,) = read_bags(folder, allow_external=True)
    os.remove(secret)
    with pytest.raises(BagFileError, match=r"secret\.h5 does not exist"):
        bag.load()
    layout = h5py.VirtualLayout((24, 6), "f4")
    layout[:12] = h5py.VirtualSource(".", "one", (12, 6))
    with h5py.File(folder / "S1.h5", "w") as file:
        file["one"] = X
        file.create_virtual_dataset("features", layout)
    with pytest.raises(BagFileError, match="do not cover it"):
        read_bags(folder)[0].load()


def test_file_truncated_between_opening_and_reading_is_named(folder):
    path = write_bag(folder / "S1.h5", np.ones((20_000, 6), np.float32))
    (bag,) = read_bags(folder)

    def read_while_it_is_truncated():
        with bag.opened(100) as opened:
            os.truncate(path, path.stat().st_size // 2)
            list(opened.read())

    with pytest.raises(BagFileError, match=r"S1\.h5 changed while it was in use"):
        read_while_it_is_truncated()


def test_our_own_files_notice_a_changed_byte(tmp_path):
    write_trident(tmp_path / "S1.h5", Bag(X, np.zeros((12, 2))), patch_size_level0=512)
    simulated = simulate_cohort(tmp_path / "simulated", n_patients=1, random_state=0).features
    for path in (tmp_path / "S1.h5", *simulated.iterdir()):
        with h5py.File(path) as file:
            assert all(file[key].fletcher32 for key in ("features", "coords"))
            first = file["features"].id.get_chunk_info(0)
        content = bytearray(path.read_bytes())
        content[first.byte_offset + 2] ^= 1
        path.write_bytes(content)
        with pytest.raises(BagFileError, match="'features' cannot be read"):
            read_bags(path)[0].load()


def vast_hdf5(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("features", (2**21, 1536), "f4", chunks=(1, 1536))


def vast_hdf5_graph(path):
    with h5py.File(path, "w") as file:
        file["features"] = X
        file.create_dataset("edge_index_k8", (2, 3 * 10**8), "i8", chunks=(2, 2**20))


def vast_tensor(path):
    torch.save(torch.ones(1).expand(2**21, 1536), path)


def vast_old_tensor(path):
    torch.save(torch.ones(3, 4), path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    size, huge = b"K\x0c", b"\x8a\x05" + (12 * 2**30).to_bytes(5, "little")
    assert content.count(size) == 1
    path.write_bytes(content.replace(size, huge))


def vast_archive(path):
    torch.save(torch.tensor(X), path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/9", bytes(70 * 2**20))


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (vast_hdf5, "S1.h5"),
        (vast_hdf5_graph, "S1.h5"),
        (vast_tensor, "S1.pt"),
        (vast_old_tensor, "S1.pt"),
        (vast_archive, "S1.pt"),
    ],
)
def test_content_beyond_the_file_is_refused_before_memory_is_taken(folder, write, name):
    write(folder / name)
    assert (folder / name).stat().st_size < 10**6
    with pytest.raises(BagFileError, match=r"S1\..*(lacks|declares)"):
        read_bags(folder)[0].load()


def test_ceiling_is_stated(folder, monkeypatch):
    write_bag(folder / "S1.h5")
    monkeypatch.setattr(local_files, "LARGEST_ARRAY", 100)
    with pytest.raises(BagFileError, match=r"declares 288 bytes.*at most 100 are read"):
        read_bags(folder)[0].load()


def test_too_many_attributes_are_not_read_in_a_bag_and_refused_in_h5ad(
    folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(hdf5_checks, "_MOST_ATTRIBUTES", 50)
    write_bag(folder / "S1.h5")
    path = write_h5ad(tmp_path / "rna.h5ad", np.ones((3, 6), np.float32))
    for target, key in ((folder / "S1.h5", "features"), (path, "X")):
        with h5py.File(target, "a", libver="latest") as file:
            for i in range(60):
                file[key].attrs.create(str(i), 0, dtype="i1")
    assert read_bags(folder)[0].info.format == "clam"
    with pytest.raises(OmicsError, match="attributes"):
        cohort_with(folder, path)


def test_nested_geojson_is_refused(tmp_path):
    path = tmp_path / "S1.geojson"
    path.write_text('{"type": "GeometryCollection", "geometries": [' * 5000 + "]}" * 5000)
    with pytest.raises(BagFileError, match=r"S1\.geojson is not a readable GeoJSON"):
        read_polygons(path)


@pytest.mark.parametrize(
    "address", ["http://example.org/t.csv", "s3://bucket/t.csv", "file:///t.csv"]
)
def test_address_as_a_table_is_not_fetched(folder, address):
    with pytest.raises(CohortError, match="is an address, not a file"):
        load_cohort(address, folder, label="er")


def test_entities_in_a_spreadsheet_are_refused(tmp_path):
    pytest.importorskip("openpyxl")
    path = tmp_path / "t.xlsx"
    SLIDES.to_excel(path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    bomb = b'<?xml version="1.0"?><!DOCTYPE w [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><w>&b;</w>'
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, bomb if name == "xl/workbook.xml" else content)
    with pytest.raises(CohortError, match=r"t\.xlsx is not a readable"):
        read_table(path)


def test_lack_of_memory_is_not_blamed_on_the_file(folder, monkeypatch):
    write_bag(folder / "S1.h5")
    torch.save(torch.tensor(X), folder / "S2.pt")

    def full(*args, **options):
        raise MemoryError("Unable to allocate 12 GiB")

    monkeypatch.setattr(h5py.Dataset, "__getitem__", full)
    monkeypatch.setattr(torch, "load", full)
    for bag in read_bags(folder):
        with pytest.raises(MemoryError, match=r"S\d\.(h5|pt): there is not enough memory"):
            bag.load()


def test_bug_of_the_package_is_not_blamed_on_the_file(folder, monkeypatch):
    write_bag(folder / "S1.h5")
    monkeypatch.setattr("sk_momkd.io.hdf5.squeezed", lambda shape: shape.missing)
    with pytest.raises(AttributeError):
        read_bags(folder)[0].load()


@pytest.mark.parametrize("dtype", ["uint16", "int16"])
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_bits_of_floats_in_integers_are_recognised(folder, dtype, kind):
    bits = torch.tensor(X).to(kind).view(torch.int16).numpy().view(dtype)
    write_bag(folder / "S1.h5", bits)
    with pytest.raises(BagError, match=r"bag 'S1'.*bits of b?float16 numbers"):
        read_bags(folder)[0].load()


FLOATS = {
    "rectified": np.maximum(np.random.default_rng(1).normal(size=(300, 64)), 0),
    "probabilities": np.random.default_rng(1).uniform(size=(300, 64)),
    "small": 0.02 * np.random.default_rng(1).normal(size=(300, 64)),
}


@pytest.mark.parametrize("values", FLOATS.values(), ids=FLOATS)
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_bits_of_floats_of_any_distribution_are_recognised(folder, values, kind):
    write_bag(folder / "S1.h5", torch.tensor(values).to(kind).view(torch.int16).numpy())
    with pytest.raises(BagError, match=r"bag 'S1'.*bits of b?float16 numbers"):
        read_bags(folder)[0].load()


RANDOM = np.random.default_rng(2)
INTENSITIES = {
    "uniform": RANDOM.integers(9000, 26000, (300, 64)),
    "normal": RANDOM.normal(15000, 3000, (300, 64)),
    "skewed": RANDOM.gamma(6, 2500, (300, 64)).clip(2100, 27000),
    "two groups": np.where(
        RANDOM.random((300, 64)) < 0.5,
        RANDOM.normal(13000, 2000, (300, 64)),
        RANDOM.normal(46000, 2000, (300, 64)),
    ),
    "of 12 bits": RANDOM.integers(600, 1600, (300, 64)) * 16,
    "of 8 bits": RANDOM.integers(57, 69, (300, 64)) * 256,
    "with background": RANDOM.integers(9000, 26000, (300, 64)) * (RANDOM.random((300, 64)) < 0.3),
}


@pytest.mark.parametrize("values", INTENSITIES.values(), ids=INTENSITIES)
@pytest.mark.parametrize("dtype", ["uint16", "int16"])
def test_intensities_of_16_bits_are_numbers(folder, values, dtype):
    values = np.round(values).clip(0, np.iinfo(dtype).max).astype(dtype)
    write_bag(folder / "S1.h5", values)
    np.testing.assert_array_equal(read_bags(folder)[0].features, values)


def test_too_few_integers_to_tell_are_numbers_with_a_warning(folder):
    values = RANDOM.integers(15400, 16300, (12, 6)).astype(np.uint16)
    write_bag(folder / "S1.h5", values)
    with pytest.warns(FeatureTypeWarning, match=r"'S1'.*could be the bits.*taken for numbers"):
        np.testing.assert_array_equal(read_bags(folder)[0].features, values)


@pytest.mark.parametrize("highest", [2, 255, 1000, 2**15 - 1])
def test_integer_features_of_any_range_are_numbers(folder, highest):
    values = np.random.default_rng(0).integers(0, highest, (50, 40), dtype=np.int16)
    write_bag(folder / "S1.h5", values)
    np.testing.assert_array_equal(read_bags(folder)[0].features, values)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import os; os.abort()", "is damaged: .*crashes on it"),
        ("import time; time.sleep(60)", "did not come to an end in 3 seconds"),
    ],
)
def test_h5ad_that_kills_or_holds_its_reader_is_refused(
    folder, tmp_path, monkeypatch, program, said
):
    path = write_h5ad(tmp_path / "rna.h5ad", np.ones((3, 6), np.float32))
    (tmp_path / "hdf5_probe.py").write_text(program)
    monkeypatch.setattr(hdf5_checks, "__file__", str(tmp_path / "hdf5_checks.py"))
    monkeypatch.setattr(hdf5_checks, "_PATIENCE", 3 if "sleep" in program else 120)
    with pytest.raises(OmicsError, match=rf"rna\.h5ad.*{said}"):
        cohort_with(folder, path)


def test_h5ad_that_is_named_by_a_link_is_read(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    write_h5ad(tmp_path / "elsewhere" / "rna.h5ad", np.ones((3, 6), np.float32))
    (tmp_path / "rna.h5ad").symlink_to(tmp_path / "elsewhere" / "rna.h5ad")
    assert cohort_with(folder, tmp_path / "rna.h5ad").omics.n_obs > 0
