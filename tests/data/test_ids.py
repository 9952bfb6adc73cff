"""Ids have one form on every side; row numbers are none, and what would collide is named."""

import time
import unicodedata

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from sk_momkd import Bag, BagSequence, PatientStratifiedKFold, check_leakage
from sk_momkd.data.ids import (
    collisions,
    column_of_ids,
    counts_rows,
    normalise_id,
    normalise_ids,
    samples_as_patients,
)
from sk_momkd.exceptions import BagError, CohortError

X = np.ones((2, 3))
UUID = "9B3EF0C4-1E0B-4A2E-9F5D-6D6C3A2E7A11"
SUFFIXES = (
    *(
        ".svs",
        ".tif",
        ".tiff",
        ".ndpi",
        ".mrxs",
        ".scn",
        ".czi",
        ".qptiff",
        ".ome.tiff",
        ".ome.tif",
    ),
    *(".vsi", ".bif", ".isyntax", ".dcm", ".svslide", ".h5", ".hdf5", ".pt", ".h5ad", ".npy"),
    *(".npz", ".safetensors", ".parquet", ".zarr", ".geojson", ".geojson.gz", ".png", ".svs.h5"),
)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_normalise_suffix_of_any_case_is_cut(suffix):
    assert normalise_id(f"S1{suffix}") == "S1"
    assert normalise_id(f"S1{suffix.upper()}") == "S1"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (" S1", "S1"),
        ("S1\t", "S1"),
        ("\ufeffS1\u00a0", "S1"),
        ("S1\u200b", "S1"),
        ("S1 .svs", "S1"),
        ("/data/slides/S1.svs", "S1"),
        ("/data/slides/S1", "S1"),
        ("slides/S1.svs", "S1"),
        ("./S1", "S1"),
        ("../private/S1", "S1"),
        ("~/slides/S1", "S1"),
        ("C:\\slides\\S1.ndpi", "S1"),
        ("slides\\S1", "S1"),
        ("C:/slides/S1.ndpi", "S1"),
        ("s3://bucket/S1.svs", "S1"),
        (1001.0, "1001"),
        ("1001.0", "1001"),
        ("1001.00", "1001"),
        ("007.0", "007"),
        (np.int64(7), "7"),
        (b"S1.svs", "S1"),
        ("Mu\u0308ller", "M\u00fcller"),
        ("TCGA.A2.A04P", "TCGA-A2-A04P"),
        ("TCGA.A2.A04P.01A.11R.A034.07", "TCGA-A2-A04P-01A-11R-A034-07"),
        (f"TCGA.A2.A04P.01Z.00.DX1.{UUID.replace('-', '.')}", f"TCGA-A2-A04P-01Z-00-DX1.{UUID}"),
    ],
)
def test_normalise_ways_to_write_an_id_are_one(given, expected):
    assert normalise_id(given) == expected


@pytest.mark.parametrize(
    "name",
    [
        *("007", "1.5", "1001.01", "H20/1234", "S1.4F2A", "v1.0.0", "A1_00_01", "S1 A", ".svs"),
        *(f"TCGA-A2-A04P-01Z-00-DX1.{UUID}", "TCGAX.A2.A04P", "NA", "None", "nan", "s1"),
    ],
)
def test_normalise_what_belongs_to_an_id_stays(name):
    assert normalise_id(name) == name


@given(st.text(max_size=12))
def test_normalise_twice_is_once(text):
    once = normalise_id(text)
    assert normalise_id(once) == once
    assert normalise_id(unicodedata.normalize("NFD", text)) == once


def test_collision_names_both_originals():
    said = r"1 slide ids are written in several ways: 'S1.svs' and ' S1' \(both 'S1'\)"
    with pytest.raises(CohortError, match=said):
        normalise_ids(["S1.svs", "S2", " S1"], "slide ids")
    assert normalise_ids(["S1.svs", "S1.svs"], "slide ids") == ["S1", "S1"]


def test_collision_of_ids_that_look_alike_shows_their_characters():
    with pytest.raises(CohortError, match=r"'Mu\\u0308ller' and 'M\\xfcller'"):
        normalise_ids(["Mu\u0308ller", "M\u00fcller"], "ids")
    assert list(collisions(["1.0", "1", "2"])) == ["1"]


def test_bag_ids_are_normalised_where_a_bag_is_made():
    bag = Bag(X, bag_id="C:\\slides\\S1.SVS", patient_id=1001.0)
    assert (bag.bag_id, bag.patient_id) == ("S1", "1001")


@pytest.mark.parametrize(
    ("slides", "patients", "said"),
    [
        (("S1.svs", "S1"), ("P1", "P2"), r"1 bag ids.*'S1\.svs' and 'S1'"),
        (("S1", "S2"), ("P1", "P1 "), r"1 patient ids.*'P1' and 'P1 '"),
        (("S1", "S2"), (1001, 1001.0), r"1 patient ids.*'1001' and '1001\.0'"),
    ],
)
def test_sequence_ids_in_two_ways_raise_naming_both(slides, patients, said):
    with pytest.raises(BagError, match=said):
        BagSequence(Bag(X, bag_id=s, patient_id=p) for s, p in zip(slides, patients, strict=True))


def test_groups_in_two_ways_raise_naming_both():
    bags = BagSequence(Bag(X, patient_id=f"P{i}") for i in range(4))
    splitter = PatientStratifiedKFold(2, random_state=0)
    with pytest.raises(ValueError, match="groups are written in several ways: 'A' and 'A '"):
        list(splitter.split(bags, [0, 1, 0, 1], groups=["A", "A ", "B", "B"]))


def test_folds_of_patients_written_as_floats_do_not_leak():
    bags = BagSequence(Bag(X, bag_id=i, patient_id=float(i // 2)) for i in range(8))
    y = np.arange(8) // 2 % 2
    check_leakage(PatientStratifiedKFold(2, random_state=0).split(bags, y), bags)


@pytest.mark.parametrize(
    "index",
    [
        pd.RangeIndex(3),
        pd.RangeIndex(5, 8),
        pd.Index([2, 0, 1]),
        pd.Index([12, 10, 11]),
        pd.Index([0, 1, 3, 4]),  # a row was dropped
        pd.Index([1.0, 2.0, 3.0]),
        pd.Index(["2", "1", "3"]),
        pd.Index([0, 1, 2], name="index"),
        pd.Index(["1", "2"], name="Unnamed: 0"),
        pd.Index([1, 2], name="X"),
    ],
)
def test_row_numbers_are_recognised(index):
    assert counts_rows(index)


@pytest.mark.parametrize(
    "index",
    [
        pd.Index(["P1", "P2"]),
        pd.Index([2, 0, 1], name="case_id"),
        pd.RangeIndex(3, name="patient"),
        pd.Index([1001, 2077, 9000]),
        pd.Index(["01", "02"]),
        pd.Index([7]),
        pd.Index([], dtype=object),
        pd.MultiIndex.from_tuples([(0, 1), (1, 1)]),
        pd.Index([1.5, 2.5]),
        pd.Index([True, False]),
    ],
)
def test_ids_are_no_row_numbers(index):
    assert not counts_rows(index)


def test_column_of_ids_is_the_one_that_fits():
    obs = pd.DataFrame({"age": [2, 50, 61], "batch": [1, 1, 1], "case": ["2", "0", "1"]})
    index = pd.Index(["0", "1", "2"])
    assert column_of_ids(obs, {"0", "1", "2"}, index) == "case"
    assert column_of_ids(obs, {"P1"}, index) is None
    assert column_of_ids(obs.assign(case=["0", "1", "2"]), {"0", "1", "2"}, index) is None


def test_samples_as_patients_are_found_by_patient():
    ids = ["TCGA-A2-A04P-01", "tcga-a2-a04p-06A", "TCGA-BH-A0B3", "P1", None]
    expected = {"TCGA-A2-A04P": ["TCGA-A2-A04P-01", "tcga-a2-a04p-06A"]}
    assert samples_as_patients(ids) == expected


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["measured", "counts", "text"])
@pytest.mark.parametrize("ids", ["P{}", "{}"])
def test_column_of_ids_is_found_among_thousands_of_genes_at_once(kind, ids):
    random = np.random.default_rng(0)
    values = random.normal(size=(60, 20_000)) if kind == "measured" else None
    if values is None:
        values = random.poisson(3, size=(60, 20_000))
        values = values.astype(str).astype(object) if kind == "text" else values
    genes = pd.DataFrame(values, columns=[f"G{i}" for i in range(20_000)])
    known = {ids.format(1000 + i) for i in range(60)}
    started = time.process_time()
    assert column_of_ids(genes, known, genes.index) is None
    used = time.process_time() - started
    genes["case"] = sorted(known) if ids == "P{}" else [1000.0 + i for i in range(60)]
    assert column_of_ids(genes, known, genes.index) == "case"
    assert used < 1.5  # seconds; 0.1 on a processor that is not shared


def test_column_of_ids_takes_any_type_of_column():
    known = {f"P{i}" for i in range(50)}
    names = [f"P{i}" for i in range(50)]
    for values in (names, pd.Categorical(names), pd.array(names, dtype="string")):
        frame = pd.DataFrame({"gene": np.arange(50.0), "case": values})
        assert column_of_ids(frame, known, frame.index) == "case"
    frame["case"] = pd.array([1000 + i for i in range(49)] + [None], dtype="Int64")
    assert column_of_ids(frame, {str(1000 + i) for i in range(50)}, frame.index) == "case"
    doubled = pd.concat([frame[["case"]], frame[["case"]]], axis=1)
    assert column_of_ids(doubled, {str(1000 + i) for i in range(50)}, frame.index) is None
