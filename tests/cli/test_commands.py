"""What every command has: help, options of the run file, exit codes, output and messages."""

import inspect
import json
import logging
import subprocess
import sys
import warnings
from dataclasses import fields

import pytest

pytest.importorskip("typer")

import typer
from cli.conftest import cohort_options, run

import sk_momkd
from sk_momkd.cli.app import app
from sk_momkd.cli.commands import simulate
from sk_momkd.cli.examples import EXAMPLES
from sk_momkd.cli.keys import SECTIONS
from sk_momkd.cli.problems import SomeFailed, UsageProblem, nearest
from sk_momkd.exceptions import OmicsError, TrainingError

COMMANDS = [name for name in EXAMPLES if name != "sk-momkd"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_explains_it_and_ends_with_examples(command):
    outcome = run(*command.split(), "--help")
    assert outcome.code == 0, outcome
    assert "--debug" in outcome.out
    for example in EXAMPLES[command]:
        assert " ".join(example.split()[:3]) in outcome.out


def test_every_command_of_the_application_has_examples():
    group = typer.main.get_command(app)
    names = set()
    for name, command in group.commands.items():
        inner = getattr(command, "commands", {})
        names |= {f"{name} {own}" for own in inner} or {name}
    assert names == set(COMMANDS)


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_of_a_run_file_is_an_option_of_a_command(section):
    commands = typer.main.get_command(app).commands.values()
    options = {o for command in commands for p in command.params for o in p.opts}
    keys = {f.name for f in fields(SECTIONS[section])} - {"parameters"}
    assert {f"--{key.replace('_', '-')}" for key in keys} <= options
    assert "--set" in options


def test_options_of_simulate_are_those_of_the_function():
    own = {
        name: p.default
        for name, p in inspect.signature(sk_momkd.simulate_cohort).parameters.items()
        if name not in ("folder", "random_state")
    }
    command = inspect.signature(simulate._simulate).parameters
    assert {name: p.default for name, p in command.items() if name in own} == own


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["evaluate", "--lable", "x"], 2, "lable"),
        (["evaluate", "no.yaml"], 2, "sk-momkd init"),
        (["evaluate"], 2, "--table, --features, --label"),
        (["evaluate", "--method", "momk"], 2, "Did you mean 'momkd'"),
        (["evaluate", "--preset", "smal"], 2, "Did you mean 'small'"),
        (["evaluate", "--set", "max_epoch=3"], 2, "Did you mean 'max_epochs'"),
        (["evaluate", "--threshold", "best"], 2, "youden"),
        (["compare", "--methods", "momkd,abmi"], 2, "Did you mean 'abmil'"),
        (["predict", "model.zip", "--out", "x.txt"], 2, ".parquet"),
        (["predict", "model.zip", "slides"], 3, "model.zip"),
        (["card", "model.zip"], 3, "model.zip"),
        (["init", "nowhere"], 2, "does not exist"),
    ],
)
def test_wrong_use_is_refused_without_a_traceback(here, arguments, code, said):
    outcome = run(*arguments)
    assert outcome.code == code, outcome
    assert said in outcome.err.replace("\n", "")
    assert outcome.out == ""
    assert "Traceback" not in outcome.err


def test_input_that_is_refused_names_the_option(here, demo):
    outcome = run("inspect", "--table", demo.table, "--features", demo.features, "--label", "no")
    assert outcome.code == 3
    assert "--slide-id" in outcome.err
    assert "slide_id=" not in outcome.err


def test_debug_shows_the_traceback(here, demo):
    options = ["--table", demo.table, "--features", demo.features, "--label", "no"]
    assert "Traceback" in run("inspect", *options, "--debug").err


def test_inspect_writes_its_result_alone_to_standard_output(here, demo):
    outcome = run("inspect", *cohort_options(demo, omics=True))
    assert outcome.code == 0, outcome
    assert "16 of 16 slides in use" in outcome.out
    assert "no patient is in two folds" in outcome.out
    assert "16 rows of 20 genes, whole numbers" in outcome.out
    assert outcome.err == ""


def test_inspect_as_json_holds_the_tables(here, demo):
    found = json.loads(run("inspect", *cohort_options(demo), "--json").out)
    assert len(found["slides"]) == len(found["geometry"]) == 16
    assert found["slides"][0]["status"] == "used"


def test_quiet_leaves_notes_out(here, demo):
    outcome = run("init", demo.table.parent, "--quiet")
    assert outcome.code == 0
    assert (outcome.out, outcome.err) == ("run.yaml\n", "")


def test_session_leaves_the_logger_as_it_was(here):
    logger = logging.getLogger("sk_momkd")
    before = (logger.level, list(logger.handlers))
    run("card", "model.zip")
    assert (logger.level, list(logger.handlers)) == before


def test_warning_of_every_fit_is_one_line_without_a_path(here, monkeypatch):
    def facts():
        for _ in range(3):
            with warnings.catch_warnings():  # after which Python forgets that it has warned
                warnings.warn("3 genes are constant.", stacklevel=1)
        return {}

    monkeypatch.setattr("sk_momkd.versions.facts", facts)
    assert run("versions").err == "warning: 3 genes are constant.\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageProblem("no such key"), 2),
        (OmicsError("no ids"), 3),
        (FileNotFoundError("no file"), 3),
        (ImportError("no package"), 3),
        (SomeFailed("one fold"), 4),
        (TrainingError("not finite"), 1),
        (RuntimeError("CUDA error"), 1),
    ],
)
def test_exit_code_says_what_went_wrong(here, monkeypatch, error, code):
    def fails():
        raise error

    monkeypatch.setattr("sk_momkd.versions.facts", fails)
    outcome = run("versions")
    assert outcome.code == code
    assert str(error) in outcome.err


@pytest.mark.parametrize("error", [KeyError("p_1"), TypeError("of a bug"), AttributeError("x")])
def test_bug_is_no_refused_input(here, monkeypatch, error):
    def fails():
        raise error

    monkeypatch.setattr("sk_momkd.versions.facts", fails)
    outcome = run("versions")
    assert outcome.code == 1
    assert outcome.exception is error  # which the program itself reports as not expected


def test_versions_name_methods():
    assert "momkd" in run("versions").out
    assert "abmil" in json.loads(run("versions", "--json").out)["methods"]


def test_nearest_prefers_exchanged_letters():
    assert "'label'" in nearest("lable", ["table", "label"], "key")
    assert "there are 'table'" in nearest("xyz", ["table"], "key")


@pytest.mark.slow
def test_help_loads_nothing_heavy():
    code = (
        "import sys, sk_momkd.cli.app\n"
        "print(sorted({'torch', 'sklearn', 'pandas', 'anndata', 'scipy'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.slow
def test_command_without_its_packages_says_how_to_install_them():
    code = "import sys\nsys.modules['typer'] = None\nfrom sk_momkd.cli import main\nmain()"
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert outcome.returncode == 2
    assert "pip install" in outcome.stderr
    assert "Traceback" not in outcome.stderr
