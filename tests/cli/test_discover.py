"""`init`: what is found in files and folders of several tools."""

import shutil

import h5py
import numpy as np
import pandas as pd
import pytest

pytest.importorskip("typer")

from cli.conftest import run

from sk_momkd.cli.config import resolve
from sk_momkd.cli.discover import discover, positive_of
from sk_momkd.cli.problems import UsageProblem


def slide(path, *, key="features"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file[key] = np.ones((4, 3), dtype=np.float32)
        file["coords"] = np.arange(8).reshape(4, 2)


def test_folder_of_a_simulated_cohort_is_found_whole(demo):
    found = discover([demo.table.parent])
    assert (found.table, found.features, found.omics) == tuple(demo)
    assert (found.slide_id, found.patient_id, found.site) == ("slide_id", "case_id", "site")
    assert found.labels == {"subtype": {"aggressive": 8, "indolent": 8}}
    assert (found.n_files, found.n_slides, found.n_patients) == (16, 16, 16)
    assert "16 of them of the cohort" in found.omics_note


def test_files_are_taken_in_any_order(demo):
    found = discover([demo.omics, demo.features, demo.table])
    assert (found.table, found.features, found.omics) == tuple(demo)


def test_run_file_of_init_is_read_as_it_was_meant(here, demo):
    outcome = run("init", demo.table.parent, "--json")
    assert outcome.code == 0, outcome
    found = resolve(here / "run.yaml", {})
    assert (found.cohort.table, found.cohort.omics) == (demo.table, demo.omics)
    assert (found.cohort.label, found.cohort.positive) == ("subtype", "indolent")
    assert (found.cohort.site, found.model.preset) == ("site", "small")
    text = (here / "run.yaml").read_text()
    assert "CHECK: guessed" in text


def test_init_replaces_no_file_unless_it_is_told_to(here, demo):
    (here / "run.yaml").write_text("mine")
    assert run("init", demo.table.parent).code == 2
    assert (here / "run.yaml").read_text() == "mine"
    assert run("init", demo.table.parent, "--overwrite").code == 0


def test_label_that_is_no_column_is_refused_with_the_nearest(here, demo):
    outcome = run("init", demo.table.parent, "--label", "subtyp")
    assert outcome.code == 2
    assert "'subtype'" in outcome.err


def test_other_names_of_columns_are_found(tmp_path):
    for i in range(6):
        slide(tmp_path / "h5_files" / f"S{i}.h5")
    table = pd.DataFrame({"grp": list("ababab"), "image": [f"S{i}.svs" for i in range(6)]})
    table["Patient"] = [f"P{i // 2}" for i in range(6)]
    table.to_csv(tmp_path / "clinical.csv", index=False)
    (tmp_path / "notes.txt").write_text("only text\n")
    found = discover([tmp_path])
    assert (found.slide_id, found.patient_id, found.omics) == ("image", "Patient", None)
    assert (found.n_patients, list(found.labels)) == (3, ["grp"])


def test_tables_of_stamp_are_joined(tmp_path):
    for i in range(4):
        slide(tmp_path / "feats" / f"S{i}.h5", key="feats")
    patients = [f"P{i}" for i in range(4)]
    clini = pd.DataFrame({"PATIENT": patients, "isMSIH": ["MSIH", "nonMSIH"] * 2})
    clini.to_csv(tmp_path / "clini.csv", index=False)
    files = pd.DataFrame({"PATIENT": patients, "FILENAME": [f"S{i}.h5" for i in range(4)]})
    files.to_csv(tmp_path / "slide.csv", index=False)
    found = discover([tmp_path])
    assert (found.table.name, found.slide_table.name) == ("clini.csv", "slide.csv")
    assert (found.slide_id, found.patient_id) == ("slide_id", "case_id")


def test_barcodes_are_read_only_where_no_column_holds_patients(tmp_path):
    names = [f"TCGA-A2-A0{i}P-01Z-00-DX1" for i in range(4)]
    for name in names:
        slide(tmp_path / "features" / f"{name}.h5")
    pd.DataFrame({"slide": names, "er": list("0101")}).to_csv(tmp_path / "t.csv", index=False)
    found = discover([tmp_path])
    assert (found.barcodes, found.patient_id) == ("tcga", "case_id")


def test_several_encoders_are_listed(tmp_path, demo):
    for encoder in ("uni", "conch"):
        shutil.copytree(demo.features, tmp_path / "trident" / f"features_{encoder}")
    with pytest.raises(UsageProblem, match=r"features_conch.*features_uni"):
        discover([tmp_path, demo.table])


def test_what_lacks_is_named(tmp_path, demo):
    with pytest.raises(UsageProblem, match="No folder with feature files"):
        discover([demo.table])
    (tmp_path / "other.csv").write_text("slide_id,label\nX1,1\n")
    with pytest.raises(UsageProblem, match="No table names the slides"):
        discover([demo.features, tmp_path / "other.csv"])


def test_tables_that_the_package_has_written_are_not_those_of_the_slides(tmp_path, demo):
    shutil.copytree(demo.features, tmp_path / "my features")
    shutil.copy(demo.table, tmp_path)
    slides = pd.read_csv(demo.table)["slide_id"]
    written = pd.DataFrame({"bag_id": slides, "patient_id": "", "p_1": 0.5, "predicted": 1})
    written.to_csv(tmp_path / "a.csv", index=False)
    assert discover([tmp_path]).table == tmp_path / "slides.csv"
    outcome = run("init", tmp_path, "--write", tmp_path / "a run.yaml")
    assert f"sk-momkd inspect '{tmp_path}/a run.yaml'" in outcome.err, outcome


def test_column_of_patients_without_a_name_in_it_is_none(tmp_path, demo):
    table = pd.read_csv(demo.table).rename(columns={"case_id": "person"}).assign(patient="")
    table.to_csv(tmp_path / "slides.csv", index=False)
    found = discover([tmp_path / "slides.csv", demo.features])
    assert (found.patient_id, found.n_patients) == ("person", 16)


@pytest.mark.parametrize(
    ("values", "positive"),
    [
        (["0", "1"], "1"),
        (["mut", "wt"], "mut"),
        (["HER2+", "HER2-"], "HER2+"),
        (["yes", "no"], "yes"),
        (["a", "b"], "b"),
        (["a", "b", "c"], None),
    ],
)
def test_positive_one_of_two_values_is_guessed(values, positive):
    assert positive_of(values) == positive


def test_slides_of_few_patients_are_counted_one_by_one_in_folds_of_patients(here):
    for i in range(12):
        slide(here / "features" / f"S{i}.h5")
    table = pd.DataFrame({"slide_id": [f"S{i}" for i in range(12)], "label": list("01") * 6})
    table.assign(case_id=list("AAAABBBBCCCC")).to_csv("slides.csv", index=False)
    assert run("init", ".").code == 0
    found = resolve(here / "run.yaml", {})
    assert (found.cohort.patient_id, found.cohort.site) == ("slide_id", "case_id")
    assert (found.evaluation.keep_sites, found.evaluation.cv) == (True, 3)
    outcome = run("inspect", "run.yaml")
    assert outcome.code == 0, outcome
    assert outcome.out.count("2 x 0, 2 x 1") == 3


@pytest.mark.parametrize("content", [b"no hdf5 at all", None])
def test_damaged_expression_is_refused_by_name(here, demo, content):
    path = here / "rna.h5ad"
    if content is None:
        with h5py.File(path, "w") as file:
            file["other"] = 1
    else:
        path.write_bytes(content)
    outcome = run("init", demo.table, demo.features, path)
    assert outcome.code == 3, outcome
    assert "rna.h5ad" in outcome.err.replace("\n", "")
