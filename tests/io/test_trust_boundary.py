"""Every function that opens files keeps to one boundary.

What a caller names is read, also if it is a link. What merely lies in a folder is read if it is a
regular file of that folder; `allow_external=True` follows links out of it. Pipes and addresses are
never opened.
"""

import json
import os

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

from sk_momkd import Bag, TissueMaskFilter, load_cohort, read_bags, read_splits, stamp_table
from sk_momkd.estimators.official_checkpoint import read_official_checkpoint
from sk_momkd.io.tables import read_table
from sk_momkd.reporting.displays.prototypes import image_of

X = np.random.default_rng(0).normal(size=(4, 9)).astype(np.float32)
PLACES = np.array([[0, 0], [512, 0], [0, 512], [512, 512]])
RING = [[0, 0], [900, 0], [900, 900], [0, 900], [0, 0]]
IDS = ["S1", "S2"]
TABLE = "slide_id,case_id,y\nS1,P1,0\nS2,P2,1\n"
RNA = pd.DataFrame({"A": [1.0, 2.0], "B": [3.0, 4.0]}, index=pd.Index(["P1", "P2"], name="id"))


def memory():
    return [Bag(X, PLACES, bag_id=slide) for slide in IDS]


def cohort(folder, omics=None, **options):
    (folder / "own").mkdir(exist_ok=True)
    for slide in IDS:
        np.save(folder / "own" / f"{slide}.npy", X)
    (folder / "own.csv").write_text(TABLE)
    return load_cohort(folder / "own.csv", folder / "own", omics, label="y", **options)


def write_hdf5(path):
    with h5py.File(path, "w") as file:
        file["features"] = X


def write_slideflow_index(path):
    np.savez(path, PLACES)
    torch.save(torch.tensor(X), path.with_name("S1.pt"))


def write_mask(path):
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [RING]}))


def write_clam_patches(path):
    with h5py.File(path, "w") as file:
        file["coords"] = PLACES
        file["coords"].attrs["patch_size"] = 256


def load_all(bags):
    return [bag.load() for bag in bags]


# What lies in a folder: name of the file, how it is written, and how the folder is read.
IN_FOLDERS = {
    "bag in HDF5": ("S1.h5", write_hdf5, lambda f, **o: load_all(read_bags(f, **o))),
    "bag of torch": (
        "S1.pt",
        lambda p: torch.save(torch.tensor(X), p),
        lambda f, **o: load_all(read_bags(f, **o)),
    ),
    "bag of numpy": ("S1.npy", lambda p: np.save(p, X), lambda f, **o: load_all(read_bags(f, **o))),
    "bag of AnnData": (
        "S1.h5ad",
        lambda p: AnnData(X).write_h5ad(p),
        lambda f, **o: load_all(read_bags(f, **o)),
    ),
    "coordinates": (
        "S1_coords.npy",
        lambda p: (np.save(p, PLACES), np.save(p.with_name("S1.npy"), X)),
        lambda f, **o: load_all(read_bags(f, **o)),
    ),
    "index of slideflow": (
        "S1.index.npz",
        write_slideflow_index,
        lambda f, **o: load_all(read_bags(f, **o)),
    ),
    "features of a cohort": (
        "S1.h5",
        write_hdf5,
        lambda f, **o: load_all(
            load_cohort(pd.read_csv(f / "../t.csv").head(1), f, label="y", **o).bags
        ),
    ),
    "mask": (
        "S1.geojson",
        write_mask,
        lambda f, **o: load_all(
            TissueMaskFilter(f, patch_size=512, **o).fit_transform(memory()[:1])
        ),
    ),
    "splits": (
        "splits_0.csv",
        lambda p: p.write_text(",train,val,test\n0,S1,,S2\n"),
        lambda f, **o: read_splits(f, memory(), **o),
    ),
}


@pytest.mark.filterwarnings("ignore::sk_momkd.exceptions.CohortWarning")
@pytest.mark.parametrize("what", IN_FOLDERS)
def test_link_out_of_a_folder_is_refused_unless_allowed(tmp_path, what):
    name, write, read = IN_FOLDERS[what]
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    folder.mkdir(), elsewhere.mkdir()
    (tmp_path / "t.csv").write_text(TABLE)
    write(folder / name)
    (folder / name).rename(elsewhere / name)
    (folder / name).symlink_to(elsewhere / name)
    with pytest.raises(ValueError, match=rf"{name}.*allow_external=True"):
        read(folder)
    assert read(folder, allow_external=True)
    (folder / name).unlink()
    (elsewhere / name).rename(folder / f"own{name}")
    (folder / name).symlink_to(f"own{name}")
    if what in ("coordinates", "index of slideflow", "mask", "splits"):
        assert read(folder)  # within the folder


@pytest.mark.parametrize("what", IN_FOLDERS)
def test_pipe_in_a_folder_is_refused_and_not_waited_for(tmp_path, what):
    name, write, read = IN_FOLDERS[what]
    (tmp_path / "t.csv").write_text(TABLE)
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / name)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    for allow in (False, True):
        with pytest.raises(ValueError, match=r"pipe"):
            read(folder, allow_external=allow)


def write_checkpoint(path):
    torch.save({"layer": torch.ones(1)}, path)


# What the caller names: name, how it is written, and how it is read.
NAMED = {
    "table": ("t.csv", lambda p: p.write_text(TABLE), read_table),
    "table of Excel": ("t.xlsx", lambda p: RNA.to_excel(p), read_table),
    "tables of STAMP": (
        "p.csv",
        lambda p: p.write_text("PATIENT,y\nP1,0\n"),
        lambda p: stamp_table(p, pd.DataFrame({"PATIENT": ["P1"], "FILENAME": ["S1.h5"]})),
    ),
    "expression as text": ("rna.csv", RNA.to_csv, lambda p: cohort(p.parent, p)),
    "expression of Excel": ("rna.xlsx", RNA.to_excel, lambda p: cohort(p.parent, p)),
    "expression in parquet": ("rna.parquet", RNA.to_parquet, lambda p: cohort(p.parent, p)),
    "expression in GCT": (
        "rna.gct",
        lambda p: p.write_text("#1.2\n1\t2\nNAME\tDescription\tP1\tP2\nA\tx\t1\t2\n"),
        lambda p: cohort(p.parent, p),
    ),
    "expression in AnnData": (
        "rna.h5ad",
        lambda p: AnnData(RNA).write_h5ad(p),
        lambda p: cohort(p.parent, p),
    ),
    "file of splits": (
        "splits_0.csv",
        lambda p: p.write_text(",train,val,test\n0,S1,,S2\n"),
        lambda p: read_splits([p], memory()),
    ),
}


@pytest.mark.parametrize("what", NAMED)
def test_file_that_is_named_is_followed_but_no_pipe(tmp_path, what):
    name, write, read = NAMED[what]
    if "Excel" in what:
        pytest.importorskip("openpyxl")
    if "parquet" in what:
        pytest.importorskip("pyarrow")
    (tmp_path / "elsewhere").mkdir()
    write(tmp_path / "elsewhere" / name)
    (tmp_path / name).symlink_to(tmp_path / "elsewhere" / name)
    assert read(tmp_path / name) is not None
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match="pipe"):
        read(tmp_path / name)


@pytest.mark.parametrize("what", ["table", "tables of STAMP", "expression as text"])
@pytest.mark.parametrize("scheme", ["http", "s3", "file"])
def test_address_is_never_fetched(tmp_path, what, scheme):
    read = {
        "table": read_table,
        "tables of STAMP": lambda p: stamp_table(p, p),
        "expression as text": lambda p: cohort(tmp_path, p),
    }[what]
    with pytest.raises(ValueError, match="is an address, not a file"):
        read(f"{scheme}://localhost:1/t.csv")


def test_checkpoint_that_is_a_pipe_or_vast_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    torch.save({"x": torch.ones(3, 4)}, tmp_path / "s.pt", _use_new_zipfile_serialization=False)
    content = (tmp_path / "s.pt").read_bytes()
    vast = content.replace(b"K\x0c", b"\x8a\x05" + (12 * 2**30).to_bytes(5, "little"))
    assert vast != content
    (tmp_path / "vast.pt").write_bytes(vast)
    for name, said in (("pipe.pt", "is a pipe"), ("vast.pt", "declares"), ("no.pt", "not exist")):
        with pytest.raises(ValueError, match=rf"{name}.*{said}"):
            read_official_checkpoint(tmp_path / name)


def test_picture_in_a_folder_may_be_a_link_but_no_pipe(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "S1.svs").touch()
    (tmp_path / "images" / "S1.svs").symlink_to(tmp_path / "S1.svs")
    assert image_of("S1", tmp_path / "images") == tmp_path / "images" / "S1.svs"
    assert image_of("../S1", tmp_path / "images") == tmp_path / "images" / "S1.svs"
    os.mkfifo(tmp_path / "images" / "S2.svs")
    with pytest.raises(OSError, match="is a pipe"):
        image_of("S2", tmp_path / "images")
