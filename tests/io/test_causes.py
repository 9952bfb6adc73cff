"""Files that are something else than their names say: the message names what, and the remedy."""

import gzip
import pickle
import unicodedata
import zipfile

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

from sk_momkd import load_cohort, read_bags
from sk_momkd.exceptions import BagFileError, CohortError, CohortWarning, OmicsError

X = np.random.default_rng(0).normal(size=(12, 9)).astype(np.float32)
HTML = "<!DOCTYPE html><html>404</html>"
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 12\n"


def hdf5(path, **datasets):
    with h5py.File(path, "w") as file:
        for name, values in (datasets or {"features": X}).items():
            file[name] = values


def zip_file(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("S1.h5", "x")


def links_in_a_circle(path):
    path.symlink_to(path.name)


def safetensors_file(path):
    pytest.importorskip("safetensors.numpy").save_file({"features": X}, path)


def not_tensors_alone(path):
    torch.save({"features": torch.tensor(X), "frame": pd.DataFrame({"a": [1]})}, path)


BAGS = [
    ("S1.h5", lambda p: p.write_text(LFS), "pointer of git-lfs.*git lfs pull"),
    ("S1.h5ad", lambda p: p.write_text(HTML), "HTML or XML, as a server sends"),
    ("S1.h5", lambda p: p.write_bytes(b"\xef\xbb\xbf\r\n" + HTML.encode()), "HTML or XML"),
    ("S1.pt", lambda p: p.write_text('<?xml version="1.0"?><Error/>'), "HTML or XML"),
    ("S1.h5", lambda p: p.write_text('{"message": "denied"}'), r"It is text: '{.*denied"),
    ("S1.h5", lambda p: p.write_text("a,b\n1,2\n"), "It is text: 'a,b'"),
    ("S1.h5", zip_file, "zip archive"),
    ("S1.h5", lambda p: p.write_bytes(gzip.compress(b"x")), "gzip file"),
    ("S1.h5", lambda p: p.write_bytes(b"II*\0" + bytes(99)), "an image, as of a slide"),
    ("S1.h5", lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n"), "a picture"),
    ("S1.h5", lambda p: p.write_bytes(bytes(99)), "begins with zeros"),
    ("S1.h5", lambda p: p.touch(), "It is empty"),
    ("S1.pt", lambda p: p.touch(), "It is empty"),
    ("S1.h5", lambda p: p.mkdir(), r"It has 'S1\.h5/'"),
    ("S1.h5", lambda p: p.symlink_to("gone.h5"), r"link to gone\.h5, which does not exist"),
    ("S1.h5", links_in_a_circle, "link that leads back to itself"),
    ("S1.h5", lambda p: p.symlink_to(".git/annex/objects/x.h5"), "git annex get"),
    ("S1.h5.part", hdf5, r"whose copy did not come to an end \('S1\.h5\.part'\)"),
    ("S1.h5.tmp", hdf5, "did not come to an end"),
    ("S1.h5.gz", lambda p: p.touch(), r"packed files \('S1\.h5\.gz'\): unpack"),
    (".S1.h5.icloud", lambda p: p.touch(), "placeholders of iCloud"),
    ("S1.pt", lambda p: p.write_bytes(pickle.dumps({"features": X}, 4)), "pickle, which could run"),
    ("S1.pt", not_tensors_alone, "it holds pandas.*DataFrame, not tensors alone"),
    ("S1.pt", safetensors_file, "is a safetensors file"),
    ("S1.pt", hdf5, "is an HDF5 file"),
    ("S1.h5", lambda p: torch.save(torch.tensor(X), p), "zip archive, as of torch"),
    ("S1.h5", lambda p: AnnData(X).write_h5ad(p), r"is an AnnData: give it the suffix \.h5ad"),
    ("S1.h5ad", hdf5, r"is no AnnData: it holds 'features'.*suffix \.h5"),
    ("S1.h5", lambda p: hdf5(p, coords=X), "places of patches; the features .* another file"),
    ("S1.h5", lambda p: hdf5(p, **{"uni/features": X}), "group 'uni' has features"),
]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(("name", "make", "said"), BAGS)
def test_bag_that_is_something_else_is_told_what_it_is(tmp_path, name, make, said):
    make(tmp_path / name)
    with pytest.raises(BagFileError, match=said):
        read_bags(tmp_path)[0].load()


@pytest.mark.parametrize("name", ["S1.H5", "S1 .h5", "Mu\u0308.h5", "S1.svs.HDF5"])
def test_odd_names_of_sound_files_are_read(tmp_path, name):
    hdf5(tmp_path / name)
    (bag,) = read_bags(tmp_path)
    assert bag.bag_id == unicodedata.normalize("NFC", name.split(".")[0].strip())
    np.testing.assert_array_equal(bag.features, X)


SLIDES = "slide_id,case_id,y\n" + "".join(f"S{i},P{i},{i % 2}.0\n" for i in range(4))
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)
TABLES = [
    ("t.csv", SLIDES.encode("utf-16-le"), "has zero bytes.*UTF-16.*save it as UTF-8"),
    ("t.csv", SLIDES.encode("utf-32"), "has zero bytes.*UTF-16 or UTF-32"),
    ("t.csv", SLIDES.replace("S1", "\xdc1").encode("cp1252"), "not UTF-8.*encoding='cp1252'"),
    ("t.csv", gzip.compress(SLIDES.encode(), mtime=0), r"packed by gzip: let its name end in \.gz"),
    ("t.csv.gz", SLIDES.encode(), r"Not a gzipped file.*It is text: 'slide_id,case_id,y'"),
    ("t.csv", b"PK\x03\x04" + bytes(99), r"zip archive, as Excel writes.*\.xlsx"),
    ("t.csv", OLE, r"but an Excel file: let its name end in \.xls"),
    ("t.xlsx", OLE, "protected by a password, or of an Excel before 2007"),
    ("t.xlsx", SLIDES.encode(), "It is text: 'slide_id,case_id,y'"),
    ("t.csv", HTML.encode(), "no table of text.*HTML or XML"),
    ("t.csv", LFS.encode(), "no table of text.*git lfs pull"),
    ("t.csv", b"", "is empty"),
    ("t.csv", SLIDES.splitlines()[0].encode(), "names of its columns, but no rows"),
    ("t.csv", b"sep=,\n" + SLIDES.encode(), r"begins with 'sep=,', a line for Excel"),
    ("t.csv", SLIDES.replace("S1", '"S1').encode(), "row 2 .* quote that is never closed"),
    ("t.csv", SLIDES.replace("slide_id", "Slide_ID").encode(), "'Slide_ID' differs in letter case"),
    ("t.csv", SLIDES.replace(",", ";").encode(), "separated by semicolons"),
    ("t.tsv", SLIDES.encode(), "separated by commas"),
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "bags").mkdir()
    for i in range(4):
        np.save(tmp_path / "bags" / f"S{i}.npy", X + i)
    return tmp_path / "bags"


@pytest.mark.parametrize(("name", "content", "said"), TABLES)
def test_table_that_is_something_else_is_told_what_it_is(tmp_path, folder, name, content, said):
    if name.endswith(".xlsx"):
        pytest.importorskip("openpyxl")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CohortError, match=said):
        load_cohort(tmp_path / name, folder, label="y")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", SLIDES.encode("utf-16")),
        ("t.txt", SLIDES.replace(",", "\t").encode("utf-16")),  # Excel's "Unicode text"
        ("t.csv", SLIDES.encode("utf-8-sig")),
        ("t.csv", SLIDES.replace("\n", "\r\n").encode()),
        ("t.csv", SLIDES.replace("\n", "\r").encode()),
        ("T.CSV", SLIDES.encode()),
        ("t.csv", SLIDES.replace("slide_id", " slide_id ").encode()),
        ("t.csv", SLIDES.replace("P3", '"P3\n"').encode()),  # a break within quotes
    ],
)
def test_tables_of_every_program_are_read(tmp_path, folder, name, content):
    (tmp_path / name).write_bytes(content)
    cohort = load_cohort(tmp_path / name, folder, label="y")
    assert (cohort.bags.patient_ids.tolist(), cohort.y.tolist()) == (
        ["P0", "P1", "P2", "P3"],
        [0, 1, 0, 1],
    )


@pytest.mark.parametrize("kind", ["gone", "circle"])
def test_table_that_is_a_link_to_nothing_is_told_as_such(tmp_path, folder, kind):
    path = tmp_path / "t.csv"
    path.symlink_to("gone.csv" if kind == "gone" else "t.csv")
    said = "link to gone.csv, which does not" if kind == "gone" else "leads back to itself"
    with pytest.raises(FileNotFoundError, match=said):
        load_cohort(path, folder, label="y")


def expression(cell, genes="TP53,GATA3", separator="\t"):
    rows = [["id", *genes.split(",")]]
    rows += [[f"P{i}", *[cell(i)] * (len(rows[0]) - 1)] for i in range(4)]
    return "".join(separator.join(row) + "\n" for row in rows)


def joined(folder, content, name="rna.tsv"):
    (folder.parent / "t.csv").write_text(SLIDES)
    (folder.parent / name).write_text(content)
    return load_cohort(folder.parent / "t.csv", folder, folder.parent / name, label="y").omics


NUMBERS = "Numbers must be written as 1234.5.*decimal=','"


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        (lambda i: f"{i},5", rf"'TP53' holds '0,5' for 'P0'\. {NUMBERS}"),
        (lambda i: f"1,{i}00", rf"'TP53' holds '1,000' for 'P0'\. {NUMBERS}"),
        (lambda i: f"1.{i}00.000", rf"'1\.000\.000'.*{NUMBERS}"),
        (lambda i: f"1'{i}00", NUMBERS),
        (lambda i: f"1\u00a0{i}00", NUMBERS),
        (lambda i: "<LOD" if i == 2 else "1.5", "'<LOD' for 'P2'. Leave cells empty"),
        (lambda i: "#REF!" if i == 1 else "1.5", "'#REF!' for 'P1'. Leave cells empty"),
        (lambda i: f"name {i}", "'name 0' for 'P0'. Move the ids into the index"),
    ],
)
def test_cell_that_is_no_number_is_shown_with_the_remedy(folder, cell, said):
    with pytest.raises(OmicsError, match=said):
        joined(folder, expression(cell))


@pytest.mark.parametrize(
    "genes",
    ["1-Mar,TP53", "2-Sept,01.Mrz", "2023-03-01,TP53", "Mar-01,9/2/2020", "2.31E+13,TP53"],
)
@pytest.mark.parametrize("turned", [False, True])
def test_genes_that_excel_has_renamed_warn_once(folder, genes, turned):
    content = expression(str, genes)
    if turned:
        rows = zip(*(line.split("\t") for line in content.splitlines()), strict=True)
        content = "".join("\t".join(row) + "\n" for row in rows)
    with pytest.warns(CohortWarning, match="Excel makes them of names such as MARCH1") as told:
        found = joined(folder, content)
    assert (len(told), list(found.var_names)) == (1, genes.split(","))


@pytest.mark.parametrize(
    "genes", ["MARCHF1,SEPTIN2", "MARCH1,SEPT2,DEC1", "HLA-A,MT-CO1", "7157,2"]
)
def test_names_of_genes_do_not_warn(folder, genes, recwarn):
    joined(folder, expression(str, genes))
    assert not [w for w in recwarn if issubclass(w.category, CohortWarning)]


@pytest.mark.parametrize(
    ("suffix", "said"),
    [(".rds", r"In R, write\.csv"), (".loom", "read_loom"), (".pkl", "any code"), (".mtx", "from")],
)
def test_expression_in_other_formats_says_what_is_read(folder, suffix, said):
    with pytest.raises(OmicsError, match=rf"expression is read from \.h5ad, .*{said}|{said}"):
        joined(folder, HTML, f"rna{suffix}")
