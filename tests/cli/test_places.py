"""Folders that cannot be written, full disks, and slides of which there is no map."""

import logging
import os
import re
import shutil
from pathlib import Path

import h5py
import pandas as pd
import pytest

pytest.importorskip("typer")

from cli.conftest import cohort_options, run

from sk_momkd import Bag, read_bags
from sk_momkd.cli.keys import SECTIONS
from sk_momkd.cli.pages import warn_without_images
from sk_momkd.cli.problems import message_of
from sk_momkd.cli.session import LOGGER, Session, _WarningLines
from sk_momkd.io import atomic


@pytest.fixture
def read_only(monkeypatch):
    """No file can be made in a folder of this name, also for the superuser of a container."""
    create = atomic.tempfile.TemporaryFile

    def refused(*, dir):
        if Path(dir).name == "locked":
            raise PermissionError(13, os.strerror(13), str(Path(dir) / "tmp"))
        return create(dir=dir)

    monkeypatch.setattr(atomic.tempfile, "TemporaryFile", refused)


def test_place_that_cannot_be_written_is_told_before_any_work(here, demo, logistic, read_only):
    features = demo.features
    for arguments in (
        ["evaluate", *cohort_options(demo), "--method", "logistic", "--out", "locked"],
        ["predict", logistic, features, "--out", "locked/p.csv"],
        ["convert", "bags", features, "locked"],
    ):
        outcome = run(*arguments)
        assert outcome.code == 3, outcome
        assert "locked: Permission denied. Unlock it" in outcome.err
        assert "16 of 16 slides" not in outcome.err


@pytest.mark.parametrize(
    "arguments", [["evaluate", "--out", "a"], ["convert", "bags", "{features}", "a"]]
)
def test_file_in_place_of_a_folder_is_told_as_such(here, demo, arguments):
    Path("a").write_text("")
    arguments = [a.format(features=demo.features) for a in arguments]
    if arguments[0] == "evaluate":
        arguments += cohort_options(demo)
    outcome = run(*arguments)
    assert outcome.code == 3, outcome
    assert "a: File exists. It is no folder" in outcome.err


def test_folder_in_place_of_predictions_is_refused(here, demo, logistic):
    Path("p.csv").mkdir()
    outcome = run("predict", logistic, demo.features, "--out", "p.csv")
    assert (outcome.code, os.listdir()) == (2, ["p.csv"]), outcome


def test_error_of_the_system_names_the_file_that_was_to_be_written(tmp_path):
    with (
        pytest.raises(OSError, match="No space") as caught,
        atomic.atomic_write(tmp_path / "p.csv"),
    ):
        raise OSError(28, os.strerror(28))
    said = message_of(caught.value, [])
    assert said.startswith(f"{tmp_path / 'p.csv'}: No space left on device. Free some space")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_log_on_a_full_disk_ends_with_one_warning(here, capfd):
    Path("log.txt").symlink_to("/dev/full")
    output, records = Session(quiet=False, as_json=False, debug=False), []
    seen = logging.Handler()
    seen.emit = records.append
    LOGGER.addHandler(seen)
    try:
        output.log_to(Path("log.txt"))
        LOGGER.warning("one")
        LOGGER.warning("two")
        output._close()
    finally:
        LOGGER.removeHandler(seen)
    said = [record.getMessage() for record in records]
    assert said.count("one") == said.count("two") == 1
    assert sum("is not written any more: No space left" in text for text in said) == 1
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("lacks", ["coords", "size"])
def test_slides_that_cannot_be_drawn_are_named_and_the_rest_is_written(here, demo, model, lacks):
    Path("features").mkdir()
    for path in sorted(demo.features.iterdir())[:2]:
        shutil.copy(path, "features")
        with h5py.File(Path("features") / path.name, "r+") as file:
            if lacks == "coords":
                del file["coords"]
            for name in list(file["coords"].attrs) if lacks == "size" else []:
                del file["coords"].attrs[name]
    outcome = run("explain", model, "features", "--out", "ex", "--n-slides", "1")
    assert outcome.code == 0, outcome
    written = {path.suffix for path in Path("ex").iterdir()}
    assert Path("ex/patches.csv").exists()
    assert Path("ex/prototypes.csv").exists()
    if lacks == "size":  # the step between patches is their width
        assert written == {".csv", ".png", ".geojson"}
    else:
        assert written == {".csv"}
        assert "There is no map of bag" in outcome.err
        assert "has no coordinates" in outcome.err


@pytest.mark.slow
def test_image_that_is_damaged_is_named_and_the_rest_is_written(here, demo, model):
    pytest.importorskip("tiffslide")
    files = sorted(demo.features.iterdir())[:2]
    Path("images").mkdir()
    for path in files:
        (Path("images") / path.name).with_suffix(".tif").write_bytes(b"no slide" * 100)
    outcome = run("explain", model, *files, "--out", "ex", "--images", "images")
    assert outcome.code == 0, outcome
    assert f"There is no map of bag '{files[0].stem}', bag '{files[1].stem}'" in outcome.err
    assert f"{files[0].stem}.tif cannot be opened as a slide" in outcome.err
    assert len(list(Path("ex").glob("*.geojson"))) == 2
    assert {path.name for path in Path("ex").glob("*.csv")} == {"patches.csv", "prototypes.csv"}


def test_home_folder_that_the_shell_leaves_is_resolved(here, demo, logistic, monkeypatch):
    monkeypatch.setenv("HOME", str(here))
    shutil.copytree(demo.features, "features")
    outcome = run("predict", logistic, "~/features", "--out", "~/p.csv")
    assert outcome.code == 0, outcome
    assert Path("p.csv").exists()
    assert not Path("~").exists()
    outcome = run("inspect", f"--table={demo.table}", "--features=~/features", "--label=subtype")
    assert outcome.code == 0, outcome


def test_name_that_begins_as_a_home_folder_stays(here):
    Path("~$slides.csv").write_text("slide_id,case_id\n")
    outcome = run("inspect", "--table", "~$slides.csv", "--features", ".")
    assert "no rows below them" in outcome.err, outcome


def test_no_command_replaces_what_it_reads(here, demo, logistic):
    shutil.copy(demo.table, "slides.csv")
    before = Path("slides.csv").read_bytes()
    features = ["--features", demo.features]
    outcome = run("predict", logistic, "--table", "slides.csv", *features, "--out", "slides.csv")
    assert (outcome.code, Path("slides.csv").read_bytes()) == (2, before), outcome
    outcome = run("convert", "bags", demo.features, demo.features)
    assert outcome.code == 2, outcome
    assert "would be replaced" in outcome.err
    Path("slides.csv").write_text("slide,patient\nS1,P1\n")
    outcome = run("simulate", ".", "--n-patients", "3")
    assert outcome.code == 3, outcome
    assert Path("slides.csv").read_text() == "slide,patient\nS1,P1\n"
    assert not Path("features").exists()


def test_unreadable_file_ends_a_run_before_its_training(here, demo):
    shutil.copytree(demo.features, "features")
    broken = sorted(Path("features").iterdir())[0]
    broken.write_bytes(b"")
    options = ["--table", demo.table, "--features", "features", "--label", "subtype"]
    outcome = run("evaluate", *options, "--method", "logistic", "--no-page")
    assert outcome.code == 3, outcome
    assert f"error: 1 files cannot be read (\"bag '{broken.stem}'\")" in outcome.err
    assert not Path("results/fits").exists()
    assert run("inspect", *options).code == 0  # which is how one looks at them


def test_converted_files_state_what_the_first_ones_did(here, demo):
    Path("features").mkdir()
    path = sorted(demo.features.iterdir())[0]
    shutil.copy(path, "features")
    with h5py.File(Path("features") / path.name, "r+") as file:
        file["features"].attrs["encoder"] = "uni_v2"
        file["coords"].attrs.update(target_magnification=10, patch_size=128)
    for to in ("trident", "h5ad"):
        outcome = run("convert", "bags", "features", to, "--to", to)
        assert outcome.code == 0, outcome
        before, after = (read_bags(Path(folder))[0].info for folder in ("features", to))
        for name in ("encoder", "magnification", "patch_pixels", "patch_size", "unit"):
            assert getattr(after, name) == getattr(before, name), name
    outcome = run("convert", "bags", "features", "x", "--patch-size-level0", 256)
    assert outcome.code == 3, outcome
    assert "its file states 512, but --patch-size-level0 is 256" in outcome.err


def test_converted_file_without_a_magnification_says_what_it_states_now(here, demo):
    Path("features").mkdir()
    path = sorted(demo.features.iterdir())[0]
    shutil.copy(path, "features")
    with h5py.File(Path("features") / path.name, "r+") as file:
        for name in list(file["coords"].attrs):
            del file["coords"].attrs[name]
    asked = ["convert", "bags", "features", "x", "--patch-size-level0", 256]
    outcome = run(*asked)
    assert "1 slides state no magnification" in outcome.err, outcome
    outcome = run(*asked, "--magnification", 40)
    assert "magnification" not in outcome.err, outcome
    assert read_bags("x")[0].info.magnification == 40


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--dtype", "int8", "must be float32 or float16"),
        ("--magnification", 0, "above 0"),
        ("--patch-size-level0", -5, "above 0"),
    ],
)
def test_conversion_that_would_spoil_features_is_refused(here, demo, option, value, said):
    outcome = run("convert", "bags", demo.features, "x", option, value)
    assert outcome.code == 2, outcome
    assert said in outcome.err


def test_folder_without_a_model_and_a_model_named_twice_are_told_as_such(here, other, logistic):
    Path("results").mkdir()
    outcome = run("card", "results")
    assert outcome.code == 3, outcome
    assert "results is a folder without a model" in outcome.err
    outcome = run("external", logistic, logistic, *cohort_options(other), "--no-page")
    assert outcome.code == 2, outcome
    assert "is named twice" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["evaluate", "--images", "nowhere"], "--images must be a folder, but nowhere does not"),
        (["evaluate", "--mpp", "-1"], "--mpp must be above 0, got -1"),
        (["evaluate", "--n-slides", "0"], "--n-slides must be above 0, got 0"),
        (["report", "--images", "nowhere"], "--images must be a folder"),
        (["compare", "--methods", "abmil,logistic", "--mpp", "nan"], "--mpp must be above 0"),
        (["compare", "--methods", "abmil,ABMIL"], "names abmil twice"),
        (["evaluate", "--set", "max_epochs=0"], "'max_epochs' parameter .* It is a parameter of"),
        (["evaluate", "--method", "logistic", "--set", "C=-1"], "'C' parameter"),
    ],
)
def test_what_would_end_a_run_after_its_training_is_refused_before(here, demo, arguments, said):
    outcome = run(*arguments, *cohort_options(demo))
    assert outcome.code == 2, outcome
    assert re.search(said, outcome.err), outcome
    assert os.listdir() == []


def test_single_class_is_refused_before_training(here, demo):
    table = pd.read_csv(demo.table).assign(subtype="x")
    table.to_csv("slides.csv", index=False)
    options = ["--table", "slides.csv", "--features", demo.features, "--label", "subtype"]
    outcome = run("fit", *options, "--method", "logistic")
    assert outcome.code == 3, outcome
    assert "All 16 slides in use have the label 'x' in 'subtype'" in outcome.err


def test_folder_without_images_of_the_slides_is_said(recwarn):
    Report = SECTIONS["report"]
    warn_without_images([Bag([[1.0]], bag_id="S1")], Report(images=Path(__file__).parent))
    assert "No file in" in str(recwarn.pop().message)
    warn_without_images([Bag([[1.0]], bag_id="S1")], Report())
    assert not recwarn


def test_note_of_an_error_is_a_sentence_of_its_own():
    error = OSError("Torch not compiled with CUDA enabled")
    error.add_note("This was fold 0.")
    assert message_of(error, []) == "Torch not compiled with CUDA enabled. This was fold 0."


@pytest.mark.slow
def test_maps_are_of_slides_whatever_made_bags_of_patients(here, demo, model):
    table = pd.read_csv(demo.table)
    table.loc[1, "case_id"] = table.loc[0, "case_id"]
    table.to_csv("slides.csv", index=False)
    Path("run.yaml").write_text(
        f"cohort:\n  table: slides.csv\n  features: {demo.features}\n  unit: patient\n"
    )
    asked = ["explain", model, "--config", "run.yaml", "--out", "ex"]
    outcome = run(*asked, "--slide", table["case_id"][0])
    assert outcome.code == 2, outcome
    first, second = table["slide_id"][:2]
    assert f"is a patient, whose slides are: --slide {first} --slide {second}" in outcome.err
    outcome = run(*asked, "--slide", second)
    assert Path(f"ex/{second}_attention.png").exists(), outcome


def test_parts_of_a_killed_process_are_removed_where_the_next_one_writes(tmp_path):
    orphan = tmp_path / ".sk_momkd-0123456789abcdef.part"
    orphan.write_bytes(b"half")
    atomic.require_writable(tmp_path)
    assert os.listdir(tmp_path) == []


def test_arguments_with_a_value_that_is_left_open_are_options():
    said = message_of(ValueError("Name the column, id_column=..., or"), ["id_column"])
    assert said == "Name the column, --id-column ..., or"


def test_characters_that_no_picture_shows_are_one_warning(here, monkeypatch):
    lines = _WarningLines()
    records = []
    monkeypatch.setattr(LOGGER, "warning", lambda _, text: records.append(text))
    for glyph in ("26085 (\\N{CJK UNIFIED IDEOGRAPH-65E5})", "9 (\t)", "10 (\n)"):
        lines(f"Glyph {glyph} missing from font(s) DejaVu Sans.", UserWarning)
    assert records == ["Pictures show boxes for characters of names that are not in their font."]
