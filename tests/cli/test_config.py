"""Run files: what is read, what is refused, and what is written."""

import re
from dataclasses import asdict
from pathlib import Path

import pytest

pytest.importorskip("typer")

from sk_momkd.cli.config import (
    parsed_parameters,
    read_run_file,
    resolve,
    values_of,
    write_run_file,
)
from sk_momkd.cli.keys import SECTIONS, Run, names_of
from sk_momkd.cli.problems import UsageProblem

PAGE = (Path(__file__).parents[2] / "docs" / "command_line.md").read_text(encoding="utf-8")


def written(folder, text):
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_run_file_is_read_by_section_with_paths_relative_to_it(tmp_path):
    path = written(tmp_path, "cohort:\n  table: a/slides.csv\n  label: her2\nevaluation: {cv: 3}\n")
    run = resolve(path, {})
    assert run.cohort.table == tmp_path / "a" / "slides.csv"
    assert (run.cohort.label, run.evaluation.cv, run.model.method) == ("her2", 3, "momkd")


def test_options_override_the_run_file_and_add_to_its_parameters(tmp_path):
    path = written(tmp_path, "model:\n  random_state: 1\n  parameters: {a: 1, b: 1}\n")
    run = resolve(path, {"model": {"random_state": 2, "parameters": {"b": 2}}})
    assert run.model.random_state == 2
    assert run.model.parameters == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cohort:\n  lable: x\n", "Did you mean 'label'"),
        ("cohrot:\n  label: x\n", "Did you mean 'cohort'"),
        ("label: x\n", "key of the section cohort"),
        ("model:\n  label: x\n", "key of the section cohort, not of model"),
        ("cohort:\n  label: x\n  label: y\n", "duplicate key"),
        ("cohort: 3\n", "must hold keys and values"),
        ("- 1\n", "must hold sections"),
        ("evaluation:\n  cv: five\n", "evaluation.cv must be a whole number, got 'five'"),
        ("evaluation:\n  cv: true\n", "must be a whole number, got True"),
        ("model:\n  scale: 1\n", "must be true or false"),
        ("model:\n  parameters: 3\n", "must be a mapping"),
        ("cohort:\n  unit: bag\n", "must be one of slide, patient"),
        ("cohort: [\n", "no valid YAML"),
        ("cohort:\n\tlabel: x\n", "with spaces, not with tabs"),
        ("cohort: !!python/object/apply:os.getcwd []\n", "no valid YAML"),
    ],
)
def test_unusable_run_file_is_refused_with_the_place(tmp_path, text, said):
    with pytest.raises(UsageProblem, match=said):
        resolve(written(tmp_path, text), {})


def test_missing_run_file_says_how_to_write_one(tmp_path):
    with pytest.raises(UsageProblem, match="sk-momkd init"):
        read_run_file(tmp_path / "run.yaml")
    (tmp_path / "run.yaml").symlink_to("gone.yaml")
    with pytest.raises(UsageProblem, match=r"link to gone\.yaml, which does not exist"):
        read_run_file(tmp_path / "run.yaml")


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_run_file_of_another_encoding_says_so(tmp_path, encoding):
    (tmp_path / "run.yaml").write_text("# größe\n", encoding=encoding)
    with pytest.raises(UsageProblem, match="save it as UTF-8"):
        read_run_file(tmp_path / "run.yaml")


def test_yes_and_no_are_text_as_labels_are(tmp_path):
    path = written(tmp_path, "cohort:\n  label: her2\n  positive: yes\n  negative: [no, off]\n")
    cohort = resolve(path, {}).cohort
    assert (cohort.positive, cohort.negative) == ("yes", ["no", "off"])


def test_mapping_of_labels_keeps_excluded_values(tmp_path):
    path = written(tmp_path, "cohort:\n  positive: {Pos: 1, Neg: 0, Equivocal: null}\n")
    assert resolve(path, {}).cohort.positive == {"Pos": 1, "Neg": 0, "Equivocal": None}


def test_resolved_run_is_the_same_run_when_it_is_read_again(tmp_path):
    run = resolve(None, {"cohort": {"table": Path("slides.csv")}, "model": {"method": "abmil"}})
    write_run_file(values_of(run), tmp_path / "run.yaml")
    again = resolve(tmp_path / "run.yaml", {})
    run.cohort.table, run.output.out = run.cohort.table.absolute(), run.output.out.absolute()
    assert asdict(again) == asdict(run)
    assert again.model.preset == "unified"


def test_parameters_of_the_line_are_read_as_yaml():
    found = parsed_parameters(["max_epochs=5", "learning_rate=1e-3", "training__clip=global"])
    assert found == {"max_epochs": 5, "learning_rate": 0.001, "training__clip": "global"}
    with pytest.raises(UsageProblem, match="NAME=VALUE"):
        parsed_parameters(["max_epochs"])


def test_every_key_has_one_section_apart_from_those_of_the_card():
    names = [name for section in SECTIONS if section != "card" for name in names_of(section)]
    assert len(names) == len(set(names))
    assert set(asdict(Run())) == set(SECTIONS)


def test_page_of_the_command_line_lists_every_key():
    rows = dict(re.findall(r"^\| `(\w+)` \| `([\w, ]+)`", PAGE, flags=re.MULTILINE))
    assert {s: names.split(", ") for s, names in rows.items()} == {s: names_of(s) for s in SECTIONS}


def test_run_file_of_the_page_is_read(tmp_path):
    [text] = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    run = resolve(written(tmp_path, text), {})
    assert run.model.parameters == {"max_epochs": 25, "training__average_after": 0.5}
    assert run.cohort.site == "hospital"
