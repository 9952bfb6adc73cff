"""Ids of a cohort: written in many ways, counted rows, samples, sites, and folders of TRIDENT."""

import json
import warnings

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from sk_momkd import (
    Bag,
    BagSequence,
    MoMKDClassifier,
    PatientStratifiedKFold,
    TissueMaskFilter,
    align_omics,
    compare_omics,
    evaluate,
    load_cohort,
    omics_by_patient,
    read_bags,
    read_splits,
    tissue_source_site,
)
from sk_momkd.data.omics import join_omics
from sk_momkd.exceptions import BagFileError, CohortError, CohortWarning, OmicsError

X = np.ones((2, 3))
N = 6


def features_of(folder, slides, suffix=".h5"):
    folder.mkdir(exist_ok=True, parents=True)
    for slide in slides:
        with h5py.File(folder / f"{slide}{suffix}", "w") as file:
            file["features"] = X
    return folder


def table_of(slides, patients, **columns):
    labels = ["+", "-"] * len(slides)
    return pd.DataFrame(
        {"slide_id": slides, "case_id": patients, "er": labels[: len(slides)], **columns}
    )


def expression(ids, **kwargs):
    """A row tells whose it is: the number in its id, times ten."""
    values = [[10.0 * int(str(i).strip("PX").split(".")[0]), 1.0] for i in ids]
    return pd.DataFrame(values, index=ids, columns=["ERBB2", "ESR1"], **kwargs)


def own_values(omics, bags):
    return [float(v) for v in np.asarray(omics[:, "ERBB2"].X).ravel()]


# --- one form of ids on every side ---------------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    [
        " {}",
        "{}.svs",
        "{}.OME.TIFF",
        "C:\\slides\\{}.czi",
        "/data/slides/{}.isyntax",
        "train/{}",
        "{}.0",
    ],
)
def test_slide_ids_of_any_form_find_their_files_and_are_reported(tmp_path, written):
    folder = features_of(tmp_path / "f", ["101", "102"])
    given = [written.format(i) for i in (101, 102)]
    cohort = load_cohort(table_of(given, ["P1", "P2"]), folder, label="er")
    assert [bag.source.path for bag in cohort.bags] == [str(folder / f"{i}.h5") for i in (101, 102)]
    if written != "train/{}":
        assert cohort.bags.ids.tolist() == ["101", "102"]
        changed = cohort.report.changed_ids
        assert changed[["column", "given", "id"]].to_numpy().tolist() == [
            ["slide_id", given[0], "101"],
            ["slide_id", given[1], "102"],
        ]
        assert "2 ids of slide_id are written otherwise" in str(cohort.report)


@pytest.mark.parametrize("side", ["table", "omics"])
@pytest.mark.parametrize(
    ("form", "plain"),
    [
        (["1001.0", "1002.0"], ["1001", "1002"]),
        ([" 1001", "1002\t"], ["1001", "1002"]),
        ([1001.0, 1002.0], [1001, 1002]),
        (["TCGA.A2.A04P", "TCGA.BH.A0B3"], ["TCGA-A2-A04P", "TCGA-BH-A0B3"]),
        (["Mu\u0308ller", "Sjo\u0308"], ["M\u00fcller", "Sj\u00f6"]),
    ],
)
def test_patients_in_another_form_meet_their_omics(tmp_path, side, form, plain):
    folder = features_of(tmp_path / "f", ["a", "b"])
    patients, rows = (form, plain) if side == "table" else (plain, form)
    rna = pd.DataFrame([[2.0], [1.0]], index=pd.Index(rows[::-1], name="case"), columns=["ERBB2"])
    cohort = load_cohort(table_of(["a", "b"], patients), folder, rna, label="er")
    assert np.asarray(cohort.omics.X).ravel().tolist() == [1.0, 2.0]
    assert cohort.omics.obs_names.tolist() == [str(p) for p in plain]
    table, positions = join_omics(cohort.omics, cohort.bags)
    assert table.rows(positions)["ERBB2"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("slides", "patients", "sites", "said"),
    [
        (["1.svs", "1.0"], ["A", "B"], ["x", "y"], r"values of slide_id.*'1\.svs' and '1\.0'"),
        (["1", "2"], ["A ", "A"], ["x", "x"], "values of patient_id.*'A ' and 'A'"),
        (["1", "2"], ["A", "B"], ["x", "x "], "values of site.*'x' and 'x '"),
    ],
)
def test_ids_that_become_one_raise_showing_both(tmp_path, slides, patients, sites, said):
    folder = features_of(tmp_path / "f", ["1", "2"])
    with pytest.raises(CohortError, match=said):
        load_cohort(table_of(slides, patients, site=sites), folder, label="er", site="site")


def test_omics_rows_that_become_one_raise_showing_both():
    bags = [Bag(X, patient_id="1001")]
    with pytest.raises(OmicsError, match=r"'1001' and '1001\.0'"):
        align_omics(expression(["1001", "1001.0"]), bags)


def test_splits_name_slides_in_any_form(tmp_path):
    bags = BagSequence(Bag(X, bag_id=i) for i in ("S1", "S2", "S3"))
    path = tmp_path / "splits_0.csv"
    path.write_text("train,val,test\nS1.svs,/data/S2.ndpi, S3\n")
    assert [p.tolist() for p in read_splits(path, bags)[0]] == [[0], [1], [2]]
    path.write_text("train,val,test\nS1.svs,S2,S3\nS1,,\n")
    with pytest.raises(CohortError, match=r"'S1\.svs' and 'S1'"):
        read_splits(path, bags)
    path.write_text("train,val,test,test\nS1,S2,S3,S3\n")
    with pytest.raises(CohortError, match="several columns of the name 'test'"):
        read_splits(path, bags)


# --- row numbers ---------------------------------------------------------------------------------

NUMBERED = BagSequence(Bag(X, bag_id=f"S{i}", patient_id=i) for i in range(8))
SHUFFLED = [3, 0, 7, 1, 2, 6, 4, 5]


def numbered_frame(**kwargs):
    """Patients 0 to 7 in another order; the index counts rows."""
    return pd.DataFrame({"case_id": SHUFFLED, "ERBB2": [10.0 * i for i in SHUFFLED]}, **kwargs)


@pytest.mark.parametrize("join", [align_omics, join_omics])
@pytest.mark.parametrize(
    "change",
    [
        lambda f: f,
        lambda f: f.sort_values("ERBB2"),
        lambda f: f.set_axis(range(1, 9)),
        lambda f: f.sort_values("ERBB2").set_axis([5, 3, 8, 1, 2, 7, 4, 6]),
        lambda f: f.drop(index=2),
        lambda f: f.set_axis([str(i) for i in range(8)]),
    ],
    ids=["default", "sorted", "from one", "permuted from one", "with a gap", "text"],
)
def test_frame_whose_index_counts_rows_is_refused_naming_the_column(join, change):
    with pytest.raises(
        OmicsError, match=r"counts the rows.*'case_id' holds ids.*id_column='case_id'"
    ):
        join(change(numbered_frame()), NUMBERED)


@pytest.mark.parametrize("join", [align_omics, join_omics])
def test_anndata_whose_obs_holds_the_ids_is_refused_naming_the_column(join):
    frame = numbered_frame()
    adata = AnnData(frame[["ERBB2"]].to_numpy(np.float32), obs=pd.DataFrame({
        "age": range(50, 58), "case_id": [str(i) for i in frame["case_id"]]},
        index=[str(i) for i in range(8)]))  # fmt: skip
    adata.var_names = ["ERBB2"]
    with pytest.raises(OmicsError, match=r"'case_id' holds ids of the bags.*id_column='case_id'"):
        join(adata, NUMBERED)
    table = align_omics(adata, NUMBERED, id_column="case_id")
    assert table.rows(np.arange(8))["ERBB2"].tolist() == [10.0 * i for i in range(8)]
    adata.obs_names = adata.obs["case_id"].to_numpy()
    assert align_omics(adata, NUMBERED).ids.tolist() == [str(i) for i in range(8)]


def test_index_that_is_set_or_named_is_taken():
    frame = numbered_frame()
    for omics in (
        frame.set_index("case_id"),
        frame[["ERBB2"]].set_axis(pd.Index(SHUFFLED, name="patient")),
    ):
        table, rows = join_omics(omics, NUMBERED)
        assert table.rows(rows)["ERBB2"].tolist() == [10.0 * i for i in range(8)]
    table = align_omics(frame, NUMBERED, id_column="case_id")
    assert table.rows(np.arange(8))["ERBB2"].tolist() == [10.0 * i for i in range(8)]
    assert table.genes.tolist() == ["ERBB2"]
    with pytest.raises(OmicsError, match="no column 'patient' of ids; it has 'case_id', 'ERBB2'"):
        align_omics(frame, NUMBERED, id_column="patient")


def numbered_cohort(tmp_path):
    slides = [f"S{i}" for i in range(8)]
    return table_of(slides, range(8)), features_of(tmp_path / "f", slides)


@pytest.mark.slow
@pytest.mark.parametrize(
    "form",
    ["frame", "csv", "csv_r", "csv_named_index", "h5ad", "anndata", "parquet", "xlsx"],
)
def test_cohort_refuses_row_numbers_and_takes_the_column(tmp_path, form):
    frame = numbered_frame().sort_values("ERBB2", ascending=False)
    omics = frame
    if form.startswith("csv"):
        omics = tmp_path / "rna.csv"
        named = frame.rename_axis("index" if form == "csv_named_index" else None)
        (named if form != "csv_r" else frame.set_axis(range(1, 9))).to_csv(omics)
    if form in ("parquet", "xlsx"):
        pytest.importorskip("pyarrow" if form == "parquet" else "openpyxl")
        omics = tmp_path / f"rna.{form}"
        (frame.to_parquet if form == "parquet" else frame.to_excel)(omics)
    if form in ("h5ad", "anndata"):
        adata = AnnData(frame[["ERBB2"]].astype(np.float32).set_axis([str(i) for i in range(8)]))
        adata.obs["case_id"] = frame["case_id"].astype(str).to_numpy()
        omics = adata
        if form == "h5ad":
            omics = tmp_path / "rna.h5ad"
            adata.write_h5ad(omics)
    table, folder = numbered_cohort(tmp_path)
    with pytest.raises(OmicsError, match=r"counts the rows.*id_column="):
        load_cohort(table, folder, omics, label="er")
    cohort = load_cohort(table, folder, omics, label="er", id_column="case_id")
    assert cohort.omics.obs_names.tolist() == [str(i) for i in range(8)]
    assert "" not in cohort.omics.var_names
    assert own_values(cohort.omics, cohort.bags) == [10.0 * i for i in range(8)]
    again, rows = join_omics(cohort.omics, cohort.bags)
    assert again.rows(rows)["ERBB2"].tolist() == [10.0 * i for i in range(8)]


def test_turned_table_whose_header_counts_from_zero_is_refused(tmp_path):
    table, folder = numbered_cohort(tmp_path)
    numbered_frame()[["ERBB2"]].T.to_csv(tmp_path / "rna.csv")
    with pytest.raises(OmicsError, match="the header has no name and counts the rows"):
        load_cohort(table, folder, tmp_path / "rna.csv", label="er")


def test_ids_in_a_named_column_are_text(tmp_path):
    patients = ["007", "7", "NA", "12"]
    folder = features_of(tmp_path / "f", list("abcd"))
    text = "ERBB2,case_id\n1,007\n,NA\n3,012\n"
    (tmp_path / "rna.csv").write_text(text)
    cohort = load_cohort(
        table_of(list("abcd"), patients),
        folder,
        tmp_path / "rna.csv",
        label="er",
        id_column="case_id",
    )
    assert cohort.omics.obs_names.tolist() == ["007", "NA"]
    np.testing.assert_array_equal(cohort.omics.X, [[1.0], [np.nan]])


def test_gene_table_without_gene_names_is_refused(tmp_path):
    table, folder = numbered_cohort(tmp_path)
    table["case_id"] = [f"P{i}" for i in range(8)]
    values = np.arange(16.0).reshape(2, 8) + 0.5
    pd.DataFrame(values, columns=table["case_id"]).to_csv(tmp_path / "rna.csv", index=False)
    with pytest.raises(OmicsError, match="first column is called 'P0', an id of the cohort"):
        load_cohort(table, folder, tmp_path / "rna.csv", label="er")


def test_genes_and_ids_called_na_are_kept(tmp_path):
    folder = features_of(tmp_path / "f", ["a", "b"])
    table = table_of(["a", "b"], ["NA", "None"])
    (tmp_path / "rna.csv").write_text("id,NA,nan,null\nNA,1,2,3\nNone,4,5,6\n")
    omics = load_cohort(table, folder, tmp_path / "rna.csv", label="er").omics
    assert omics.obs_names.tolist() == ["NA", "None"]
    assert omics.var_names.tolist() == ["NA", "nan", "null"]
    assert omics.X.tolist() == [[1, 2, 3], [4, 5, 6]]
    (tmp_path / "t.tsv").write_text("gene\tNA\tNone\nNA\t1\t4\nSEPT2\t2\tNA\n")
    turned = load_cohort(table, folder, tmp_path / "t.tsv", label="er").omics
    assert turned.var_names.tolist() == ["NA", "SEPT2"]
    np.testing.assert_array_equal(turned.X, [[1, 2], [4, np.nan]])


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (["X1001", "X1002"], "R has put an X before ids"),
        (["01001", "01002"], "differ in leading zeros"),
        (["TCGA-A2-A04P-01A-11R", "x"], "TCGA samples or aliquots"),
        (["tcga-a2-a04p", "x"], "differ in letter case"),
    ],
)
def test_no_overlap_shows_both_sides_and_the_reason(tmp_path, ids, said):
    patients = ["TCGA-A2-A04P", "P2"] if "tcga" in ids[0].lower() else ["1001", "1002"]
    rna = pd.DataFrame(np.eye(2), index=ids, columns=["A", "B"])
    bags = [Bag(X, bag_id=s, patient_id=p) for s, p in zip("ab", patients, strict=True)]
    with pytest.raises(OmicsError, match=f"{ids[0]}.*{patients[0]}.*{said}"):
        align_omics(rna, bags)
    folder = features_of(tmp_path / "f", ["a", "b"])
    with pytest.raises(CohortError, match=f"{ids[0]}.*{patients[0]}.*{said}"):
        load_cohort(table_of(["a", "b"], patients), folder, rna, label="er")


# --- rows that are no genes, samples, sites ------------------------------------------------------

NO_GENES = ["N_unmapped", "N_multimapping", "N_noFeature", "N_ambiguous", "__no_feature"]
NO_GENES += ["__too_low_aQual", "alignment_not_unique"]


@pytest.mark.parametrize("form", ["frame", "anndata", "backed", "cohort", "csv"])
def test_rows_that_are_no_genes_are_dropped_and_named(tmp_path, form):
    names = ["ERBB2", *NO_GENES, "NOTCH1", "N_MYC"]
    rna = pd.DataFrame(np.arange(2.0 * len(names)).reshape(2, -1), ["P1", "P2"], names)
    bags = [Bag(X, bag_id=f"S{i}", patient_id=f"P{i}") for i in (1, 2)]
    adata = AnnData(rna.astype(np.float32))
    adata.write_h5ad(tmp_path / "rna.h5ad")
    rna.T.to_csv(tmp_path / "rna.csv")
    said = r"7 columns of omics are no genes and are left out: 'N_unmapped', 'N_multimapping'"
    folder, table = features_of(tmp_path / "f", ["S1", "S2"]), table_of(["S1", "S2"], ["P1", "P2"])
    given = {"frame": rna, "cohort": adata, "csv": tmp_path / "rna.csv", "anndata": adata}
    given["backed"] = anndata.read_h5ad(tmp_path / "rna.h5ad", backed="r")

    def read():
        if form in ("cohort", "csv"):
            return load_cohort(table, folder, given[form], label="er").omics.to_df()
        return align_omics(given[form], bags).rows(np.arange(2))

    with pytest.warns(CohortWarning, match=said):
        result = read()
    assert result.columns.tolist() == ["ERBB2", "NOTCH1", "N_MYC"]
    assert result["NOTCH1"].tolist() == [8, 18]


def aliquots(*barcodes):
    adata = AnnData(np.arange(len(barcodes), dtype=np.float32)[:, None])
    adata.obs_names = list(barcodes)
    return adata


@pytest.mark.parametrize("order", [1, -1])
def test_frozen_vial_is_taken_before_the_one_in_formalin(order):
    barcodes = ["TCGA-A2-A04P-01B-11R-A034-07", "TCGA-A2-A04P-01A-11R-A034-07",
                "TCGA-A2-A04P-01A-21R-A034-07", "TCGA-A2-A04P-01C-99R-A034-07"]  # fmt: skip
    adata = aliquots(*barcodes[::order])
    assert omics_by_patient(adata).obs["barcode"].tolist() == ["TCGA-A2-A04P-01A-21R-A034-07"]
    assert omics_by_patient(aliquots(*barcodes[:1])).n_obs == 1


def test_barcodes_with_dots_of_r_are_read(tmp_path):
    slides = ["TCGA-A2-A04P-01Z-00-DX1", "TCGA-BH-A0B3-01Z-00-DX1"]
    folder = features_of(tmp_path / "f", slides)
    rna = aliquots("TCGA.BH.A0B3.01A.11R.A034.07", "TCGA.A2.A04P.01A.11R.A034.07")
    cohort = load_cohort(table_of(slides, ["", ""]), folder, rna, label="er", barcodes="tcga")
    assert np.asarray(cohort.omics.X).ravel().tolist() == [1, 0]


def test_diagnostic_and_frozen_slides_that_are_mixed_are_reported(tmp_path):
    slides = ["TCGA-A2-A04P-01Z-00-DX1", "TCGA-A2-A04P-01A-01-TS1", "TCGA-BH-A0B3-01A-01-BSA"]
    folder = features_of(tmp_path / "f", slides)
    patients = [s[:12] for s in slides]
    printed = str(load_cohort(table_of(slides, patients), folder, label="er").report)
    assert "1 diagnostic slides (DX) and 2 frozen sections (TS, MS, BS)" in printed
    alone = table_of(slides[1:], patients[1:])
    assert "frozen" not in str(load_cohort(alone, folder, label="er").report)


SAMPLES = ["TCGA-A2-A04P-01", "TCGA-A2-A04P-06", "TCGA-BH-A0B3-01A", "TCGA-BH-A0B4-01A"]


def test_sample_barcodes_as_patients_warn_of_the_leak(tmp_path):
    folder = features_of(tmp_path / "f", list("abcd"))
    said = (
        r"4 patient ids are barcodes of TCGA samples.*'TCGA-A2-A04P-01', 'TCGA-A2-A04P-06'.*1 pat"
    )
    with pytest.warns(CohortWarning, match=said):
        bags, y, _, _ = load_cohort(table_of(list("abcd"), SAMPLES), folder, label="er")
    with pytest.warns(CohortWarning, match=said):
        list(PatientStratifiedKFold(2, random_state=0).split(bags, y))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        patients = [s[:12] for s in SAMPLES]
        load_cohort(table_of(list("abcd"), patients, er=list("++--")), folder, label="er")


def test_patients_numbered_alike_at_two_sites_raise_with_the_remedy(tmp_path):
    folder = features_of(tmp_path / "f", list("abcd"))
    table = table_of(list("abcd"), ["1", "2", "1", "3"], site=["A", "A", "B", "B"])
    said = r"1 patients have slides at several sites: '1 \(A, B\)'.*table\['site'\] \+ '-'"
    with pytest.raises(CohortError, match=said):
        load_cohort(table, folder, label="er", site="site")
    table["case_id"] = table["site"] + "-" + table["case_id"]
    bags = load_cohort(table, folder, label="er", site="site").bags
    assert bags.patient_ids.tolist() == ["A-1", "A-2", "B-1", "B-3"]
    missing = table_of(list("ab"), ["1", "1"], site=["A", None])
    assert load_cohort(missing, folder, label="er", site="site").report.by_site().size


def test_sites_of_lower_case_barcodes():
    assert tissue_source_site(["tcga-a2-a04p"]).tolist() == ["A2"]


# --- folders -------------------------------------------------------------------------------------


def test_root_folder_of_trident_leads_to_its_features(tmp_path):
    root = tmp_path / "20x_256px_0px_overlap"
    features_of(root / "patches", ["a", "b"], "_patches.h5")
    folder = features_of(root / "features_uni_v2", ["a", "b"])
    cohort = load_cohort(table_of(["a", "b"], ["A", "B"]), tmp_path, label="er")
    assert cohort.bags[0].source.path == str(folder / "a.h5")
    features_of(root / "features_virchow2", ["a"])
    said = (
        r"2 folders below it do: '20x.*features_uni_v2 \(2 files\)', '.*virchow2 \(1 files\)'.*Name"
    )
    with pytest.raises(CohortError, match=said):
        load_cohort(table_of(["a", "b"], ["A", "B"]), tmp_path, label="er")


def test_read_bags_finds_the_features_below_a_folder(tmp_path):
    features_of(tmp_path / "features_uni" / "deeper", ["a", "b"], ".svs.h5")
    assert read_bags(tmp_path).ids.tolist() == ["a", "b"]
    features_of(tmp_path / "features_other", ["a"])
    with pytest.raises(BagFileError, match="2 folders below it do"):
        read_bags(tmp_path)


def test_folder_without_features_shows_what_it_holds(tmp_path):
    (tmp_path / "a.tfrecords").touch()
    with pytest.raises(CohortError, match=r"has files none of \.h5.*It has 'a\.tfrecords'"):
        load_cohort(table_of(["a"], ["A"]), tmp_path, label="er")


@pytest.mark.parametrize("suffix", [".geojson", ".svs.geojson", ".SVS.json"])
def test_masks_are_found_for_ids_of_any_form(tmp_path, suffix):
    ring = [[0, 0], [400, 0], [400, 400], [0, 400], [0, 0]]
    mask = {"type": "Polygon", "coordinates": [ring]}
    (tmp_path / f"S1{suffix}").write_text(json.dumps(mask))
    bag = Bag(np.ones((2, 3)), [[0, 0], [900, 0]], bag_id="/data/S1.ndpi")
    kept = TissueMaskFilter(tmp_path, patch_size=256).fit_transform([bag])
    assert kept[0].n_instances == 1


@pytest.mark.parametrize(
    "use",
    [
        lambda omics, y: MoMKDClassifier(max_epochs=1).fit(NUMBERED, y, omics=omics),
        lambda omics, y: evaluate(MoMKDClassifier(max_epochs=1), NUMBERED, y, omics=omics, cv=2),
        lambda omics, y: compare_omics(
            MoMKDClassifier(max_epochs=1), NUMBERED, y, omics=omics, cv=2
        ),
    ],
    ids=["fit", "evaluate", "compare_omics"],
)
def test_row_numbers_are_refused_before_training(use):
    omics = numbered_frame().sort_values("ERBB2")
    with pytest.raises(OmicsError, match="counts the rows"):
        use(omics, np.arange(8) % 2)
