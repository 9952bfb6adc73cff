"""TCGA barcodes: patients, sites, sample types and aliquots, alone and in a cohort."""

import warnings

import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from sk_momkd import (
    Bag,
    BagSequence,
    PatientStratifiedKFold,
    check_leakage,
    load_cohort,
    omics_by_patient,
    tissue_source_site,
)
from sk_momkd.exceptions import CohortError, CohortWarning, OmicsError
from sk_momkd.io.tcga import choose_aliquots, patient_of, read_slide_barcodes

UUID = "9B3EF0C4-1E0B-4A2E-9F5D-6D6C3A2E7A11"
SLIDES = (
    f"TCGA-A2-A04P-01Z-00-DX1.{UUID}",
    "TCGA-A2-A04P-01A-01-TS1",
    "TCGA-BH-A0B3-01Z-00-DX1",
    "TCGA-BH-A0B3-11A-01-TS1",
    "TCGA-E9-A1R7-06Z-00-DX1",
    "TCGA-OL-A5RW-01Z-00-DX1",
)
ALIQUOTS = (
    "TCGA-OL-A5RW-01A-11R-A41B-07",
    "TCGA-A2-A04P-01A-11R-A034-07",
    "TCGA-A2-A04P-01A-31R-A034-07",
    "TCGA-A2-A04P-11A-31R-A034-07",
    "TCGA-BH-A0B3-11A-31R-A056-07",
    "TCGA-E9-A1R7-06A-11R-A14M-07",
    "TCGA-XX-ZZZZ-01A-11R-A14M-07",
)


@pytest.fixture
def features(tmp_path):
    folder = tmp_path / "features"
    folder.mkdir()
    for i, slide in enumerate(SLIDES):
        with h5py.File(folder / f"{slide}.h5", "w") as file:
            file["features"] = np.full((2, 3), i)
    return folder


@pytest.fixture
def table():
    return pd.DataFrame({"slide_id": SLIDES, "er": list("++--+-")})


def samples(*barcodes):
    adata = AnnData(np.arange(len(barcodes), dtype=np.float32)[:, None])
    adata.obs_names = list(barcodes)
    return adata


def load(*args, **kwargs):
    """A TCGA cohort; what is left out is looked up in the report."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CohortWarning)
        return load_cohort(*args, label="er", barcodes="tcga", **kwargs)


def omics_in_form(form, folder):
    adata = samples(*ALIQUOTS)
    frame = pd.DataFrame({"G1": adata.X[:, 0], "G2": 0.0}, adata.obs_names)
    if form == "h5ad":
        adata.write_h5ad(folder / "rna.h5ad")
        return folder / "rna.h5ad"
    if form in ("rows", "columns"):
        (frame if form == "rows" else frame.T).to_csv(folder / "rna.csv")
        return folder / "rna.csv"
    return adata if form == "anndata" else frame


@pytest.mark.parametrize("form", ["anndata", "frame", "h5ad", "rows", "columns"])
def test_load_aliquots_of_any_form_join_by_patient(table, features, tmp_path, form):
    bags, y, omics, report = load(table, features, omics_in_form(form, tmp_path))
    assert bags.ids.tolist() == [SLIDES[i] for i in (0, 1, 2, 5)]
    assert bags.patient_ids.tolist() == [f"TCGA-{p}" for p in ("A2-A04P",) * 2] + [
        "TCGA-BH-A0B3",
        "TCGA-OL-A5RW",
    ]
    assert y.tolist() == ["+", "+", "-", "-"]
    assert omics.obs_names.tolist() == ["TCGA-A2-A04P", "TCGA-OL-A5RW"]
    assert omics.obs["barcode"].tolist() == [ALIQUOTS[2], ALIQUOTS[0]]
    assert np.asarray(omics.X)[:, 0].tolist() == [2, 0]
    assert report.slides["has_omics"].tolist() == [True, True, False, False, False, True]
    assert report.unmatched_omics == [ALIQUOTS[6]]


def test_load_barcodes_report_counts_every_exclusion_with_its_reason(table, features):
    report = load(table, features, samples(*ALIQUOTS)).report
    assert report.slides["site"].tolist() == ["A2", "A2", "BH", "BH", "E9", "OL"]
    assert report.by_site().loc["A2"].to_dict() == {"+": 2, "-": 0}
    assert report.left_out["status"].tolist() == [
        "sample type 11, not 01",
        "sample type 06, not 01",
    ]
    assert report.omics_left_out["id"].tolist() == [ALIQUOTS[i] for i in (1, 3, 4, 5)]
    said = str(report).splitlines()
    assert said[1:7] == [
        f"3 slides with omics, 1 histology only, 1 omics rows without a slide in use "
        f"('{ALIQUOTS[6]}')",
        "1 omics rows left out, another aliquot of the patient is used: "
        "'TCGA-A2-A04P-01A-11R-A034-07'",
        "1 omics rows left out, sample type 06, not 01: 'TCGA-E9-A1R7-06A-11R-A14M-07'",
        "2 omics rows left out, sample type 11, not 01: 'TCGA-A2-A04P-11A-31R-A034-07', "
        "'TCGA-BH-A0B3-11A-31R-A056-07'",
        "1 left out, sample type 06, not 01: 'TCGA-E9-A1R7-06Z-00-DX1'",
        "1 left out, sample type 11, not 01: 'TCGA-BH-A0B3-11A-01-TS1'",
    ]


def test_load_slides_of_another_type_are_left_out_with_a_warning(table, features):
    said = r"2 slides of the table were left out: 1 sample type 11, not 01, 1 sample type 06"
    with pytest.warns(CohortWarning, match=said):
        load_cohort(table, features, label="er", barcodes="tcga")


def test_barcodes_with_an_unreadable_sample_type_are_named():
    names = ["TCGA-A2-A04P-1", "TCGA-A2-A04Q", "TCGA-A2-A04R-01A"]
    with pytest.warns(CohortWarning, match=r"1 obs_names have no sample type .*'TCGA-A2-A04P-1'"):
        assert set(choose_aliquots(names, "01")["status"]) == {"used"}
    slides = pd.DataFrame({"slide_id": names})
    with pytest.warns(CohortWarning, match=r"1 slide ids have no sample type .*'TCGA-A2-A04P-1'"):
        read_slide_barcodes(slides, "01")
    with warnings.catch_warnings(action="error"):
        read_slide_barcodes(slides, None)


def test_load_sample_type_given_is_the_one_in_use(table, features):
    cohort = load(table, features, samples(*ALIQUOTS), sample_type="06")
    assert cohort.bags.ids.tolist() == [SLIDES[4]]
    assert cohort.omics.obs["barcode"].tolist() == [ALIQUOTS[5]]


def test_load_all_sample_types_prefers_tumour_omics(table, features):
    cohort = load(table, features, samples(*ALIQUOTS), sample_type=None)
    assert len(cohort.bags) == 6
    assert cohort.omics.obs["barcode"].tolist() == [ALIQUOTS[i] for i in (2, 4, 5, 0)]


def test_load_layer_of_aliquots_is_taken(table, features):
    adata = samples(*ALIQUOTS)
    adata.layers["counts"] = adata.X + 10
    omics = load(table, features, adata, layer="counts").omics
    assert omics.X[:, 0].tolist() == [12, 10]
    assert adata.X[:, 0].tolist() == [*range(7)]


def test_load_barcodes_by_patient_and_slide_without_uuid_report_both(table, features):
    table["slide_id"] = [s.split(".")[0] for s in SLIDES]
    report = load(table, features).report
    assert "1 by name without UUID: 'TCGA-A2-A04P-01Z-00-DX1'" in str(report).splitlines()
    assert report.slides["matched_by"].tolist() == ["name without UUID", *["id"] * 5]


def test_load_patient_column_of_other_ids_is_replaced_and_of_barcodes_must_agree(table, features):
    bags = load(table.assign(case_id=[UUID, None, *"abcd"]), features).bags
    assert bags.patient_ids[0] == "TCGA-A2-A04P"
    same = [s[:12].lower() for s in SLIDES]
    assert load(table.assign(case_id=same), features).bags.patient_ids[0] == "TCGA-A2-A04P"
    said = r"1 slides are of another patient.*'TCGA-E9-A1R7-06Z-00-DX1' of patient 'TCGA-OL-A5RW'"
    same[4] = "TCGA-OL-A5RW"
    with pytest.raises(CohortError, match=said):
        load(table.assign(case_id=same), features)


def test_load_site_column_comes_before_the_barcode(table, features):
    report = load(table.assign(centre=list("xxyyzz")), features, site="centre").report
    assert report.slides["site"].tolist() == list("xxyyzz")


def test_load_many_sites_print_the_largest_alone(tmp_path):
    slides = [f"TCGA-{i:02d}-A{i:03d}-01Z-00-DX1" for i in range(20)]
    slides += [f"TCGA-07-B{i:03d}-01Z-00-DX1" for i in range(3)]
    for slide in slides:
        (tmp_path / f"{slide}.h5").touch()
    report = load(pd.DataFrame({"slide_id": slides, "er": "+"}), tmp_path).report
    assert str(report).endswith("and 8 smaller sites, see report.by_site()")
    assert len(report.by_site()) == 20


def test_load_unit_patient_with_barcodes_unites_slides(table, features):
    bags, y, _, _ = load(table, features, unit="patient")
    assert bags.ids.tolist() == ["TCGA-A2-A04P", "TCGA-BH-A0B3", "TCGA-OL-A5RW"]
    assert y.tolist() == ["+", "-", "-"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"barcodes": "gdc"}, "barcodes must be 'tcga' or None, got 'gdc'"),
        ({"barcodes": "tcga", "sample_type": "1"}, "two digits such as '01'.*got '1'"),
        ({"barcodes": "tcga", "sample_type": 1}, "two digits.*got 1"),
        ({"sample_type": "06"}, "sample_type='06' needs barcodes='tcga'"),
        ({"sample_type": None}, "sample_type=None needs barcodes='tcga'"),
    ],
)
def test_load_wrong_barcode_options_raise(table, features, options, said):
    with pytest.raises(CohortError, match=said):
        load_cohort(table, features, label="er", **options)


def test_load_other_ids_with_barcodes_raise_naming_them(table, features):
    table.loc[2, "slide_id"] = "C3L-00001-21"
    with pytest.raises(CohortError, match=r"1 slide ids are no TCGA barcodes: 'C3L-00001-21'"):
        load(table, features)
    with pytest.raises(OmicsError, match="1 obs_names are no TCGA barcodes: 'P1'"):
        load(table.drop(index=2), features, samples("P1", ALIQUOTS[0]))


@pytest.mark.slow
def test_load_real_cohort_by_barcodes_equals_the_table(data_folder):
    folder = data_folder / "tcga_brca"
    parts = (folder / "labels.csv", folder / "features", folder / "omics.h5ad")
    with pytest.warns(CohortWarning, match="1 no label in 'pam50'"):
        by_table = load_cohort(*parts, label="pam50", site="site")
    with pytest.warns(CohortWarning, match="1 no label in 'pam50'"):
        by_barcode = load_cohort(*parts, label="pam50", barcodes="tcga")
    assert by_barcode.bags.patient_ids.tolist() == by_table.bags.patient_ids.tolist()
    assert by_barcode.report.by_site().equals(by_table.report.by_site())
    np.testing.assert_array_equal(by_barcode.omics.X, by_table.omics.X)


def test_patient_of_other_names_is_the_name():
    assert patient_of("tcga-a2-a04p-01A") == "TCGA-A2-A04P"
    assert patient_of("ESR1") == "ESR1"


def test_omics_by_patient_takes_tumour_and_the_last_aliquot():
    adata = samples(
        "TCGA-A2-A04P-01A-11R-A034-07",
        "TCGA-A2-A04P-01A-31R-A034-07",
        "TCGA-A2-A04P-11A-31R-A034-07",
        "TCGA-BH-A0B3-01A-11R-A056-07",
    )
    patients = omics_by_patient(adata)
    assert list(patients.obs_names) == ["TCGA-A2-A04P", "TCGA-BH-A0B3"]
    assert patients.X.ravel().tolist() == [1, 3]
    assert patients.uns["omics_by_patient"] == {"other_sample_type": 1, "further_aliquots": 1}
    assert omics_by_patient(adata, sample_type="11").X.ravel().tolist() == [2]


def test_omics_by_patient_refuses_other_ids_and_absent_types():
    with pytest.raises(OmicsError, match="1 obs_names are no TCGA barcodes: 'P1'"):
        omics_by_patient(samples("TCGA-A2-A04P", "P1"))
    with pytest.raises(OmicsError, match=r"'06'.*\['01'\]"):
        omics_by_patient(samples("TCGA-A2-A04P-01A"), sample_type="06")


def test_omics_by_patient_of_all_types_takes_tumour_before_normal():
    adata = samples("TCGA-A2-A04P-11A-11R", "TCGA-A2-A04P-01A-11R", "TCGA-A2-A04P-01A-21R")
    patients = omics_by_patient(adata, sample_type=None)
    assert patients.obs["barcode"].tolist() == ["TCGA-A2-A04P-01A-21R"]
    assert patients.uns["omics_by_patient"] == {"other_sample_type": 0, "further_aliquots": 2}


def test_omics_by_patient_barcode_without_sample_is_kept_where_no_aliquot_is():
    adata = samples("TCGA-A2-A04P", "TCGA-BH-A0B3", "TCGA-BH-A0B3-01A-11R")
    assert omics_by_patient(adata).X.ravel().tolist() == [0, 2]


def bags_of(patients):
    return BagSequence(Bag(np.ones((1, 2)), patient_id=p) for p in patients)


@pytest.mark.parametrize(
    "barcode",
    ["TCGA-A2-A04P", "TCGA-A2-A04P-01Z-00-DX1.0123-ABCD", "tcga-a2-a04p", "TCGA-A2-A04P.svs"],
)
def test_tissue_source_site_is_characters_six_and_seven(barcode):
    assert tissue_source_site([barcode]).tolist() == ["A2"]


@pytest.mark.parametrize("wrong", ["P1", "", None, "TCGA-A2", "TCGA-A2X-A04P", "xTCGA-A2-A04P"])
def test_tissue_source_site_of_another_id_raises_naming_the_first(wrong):
    said = f"Id {str(wrong)!r} at position 1 is no TCGA barcode"
    with pytest.raises(ValueError, match=said):
        tissue_source_site(["TCGA-A2-A04P", wrong, "other"])


def test_tissue_source_site_of_nothing_is_empty():
    assert tissue_source_site([]).shape == (0,)


def test_tcga_sites_match_the_table_and_stay_whole(data_folder):
    table = pd.read_csv(data_folder / "tcga_brca" / "labels.csv", dtype={"site": str})
    table = table.dropna(subset=["her2"])
    sites = tissue_source_site(table["case_id"])
    assert sites.tolist() == table["site"].tolist()
    bags, y = bags_of(table["case_id"]), table["her2"].astype(int).to_numpy()
    splitters = [PatientStratifiedKFold(5, random_state=seed) for seed in range(5)]
    splits = [list(splitter.split_three(bags, y, groups=sites)) for splitter in splitters]
    for folds in splits:
        check_leakage(folds, bags)
        for split in folds:
            parts = [set(sites[part]) for part in split]
            assert sum(map(len, parts)) == len(set(sites))
            assert all(len(set(y[part])) == 2 for part in split)
    sizes, rates = (
        np.array([[of(part) for part in split] for folds in splits for split in folds])
        for of in (len, lambda part: y[part].mean())
    )
    # Over 25 folds: under scikit-learn 1.7 a single one can be far from it.
    assert (abs(rates - y.mean()).mean(axis=0) < 0.08).all()
    assert (abs(sizes.mean(axis=0) / len(y) - [0.7, 0.1, 0.2]) < 0.03).all()
