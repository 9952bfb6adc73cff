"""Folders that cannot be written, full disks, and slides of which there is no map."""

import logging
import os
import shutil
from pathlib import Path

import h5py
import pytest

pytest.importorskip("typer")

from cli.conftest import cohort_options, run

from sk_momkd.cli.problems import message_of
from sk_momkd.cli.session import LOGGER, Session
from sk_momkd.io import atomic


@pytest.fixture
def read_only(monkeypatch):
    """No file can be made in a folder of this name, also for the superuser of a container."""
    create = atomic.tempfile.TemporaryFile

    def refused(*, dir):  # noqa: A002 (name of tempfile)
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
    with pytest.raises(OSError, match="No space") as caught, atomic.atomic_write(tmp_path / "p.csv"):
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
