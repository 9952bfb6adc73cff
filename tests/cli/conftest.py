"""Commands run in this process, in a folder of their own."""

import contextlib
import os

import pytest

pytest.importorskip("typer")

from typer.testing import CliRunner

import sk_momkd
from sk_momkd.cli import options as cli_options
from sk_momkd.cli.app import app
from sk_momkd.cli.keys import SECTIONS

QUICK = ["--set", "max_epochs=2", "--set", "hidden_dim=8", "--set", "projection_dim=4"]
QUICK += ["--set", "n_components=2", "--cv", "2", "--n-bootstrap", "50"]
LOGISTIC = ["--method", "logistic", "--cv", "2", "--n-bootstrap", "50"]
NO_PAGE = "--no-page"


class Outcome:
    """Exit code, standard output and standard error of a command."""

    def __init__(self, result):
        self.code, self.out, self.err = result.exit_code, result.stdout, result.stderr
        self.exception = result.exception

    def __repr__(self):
        return f"code {self.code}\n{self.out}\n{self.err}\n{self.exception!r}"


def run(*arguments):
    """Run `sk-momkd` with the arguments."""
    return Outcome(CliRunner().invoke(app, [str(a) for a in arguments], prog_name="sk-momkd"))


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """Paths of a tiny cohort."""
    folder = tmp_path_factory.mktemp("demo")
    sizes = {"n_patients": 16, "n_patches": 8, "n_features": 6, "n_genes": 20, "n_signature": 5}
    return sk_momkd.simulate_cohort(folder, **sizes, n_sites=2, random_state=0)


@pytest.fixture(scope="session")
def model(tmp_path_factory, demo):
    """A MoMKD that `fit` has saved."""
    out = tmp_path_factory.mktemp("fit")
    options = [*cohort_options(demo, omics=True), *QUICK, "--include-omics", "--out", out]
    outcome = run("fit", *options, "--threshold", 0.4)
    assert outcome.code == 0, outcome
    return out / "model.zip"


@pytest.fixture(scope="session")
def logistic(tmp_path_factory, demo):
    """A logistic regression that `fit` has saved, which takes no training of a network."""
    out = tmp_path_factory.mktemp("logistic")
    outcome = run("fit", *cohort_options(demo), *LOGISTIC, "--out", out)
    assert outcome.code == 0, outcome
    return out / "model.zip"


@pytest.fixture(scope="session")
def other(tmp_path_factory):
    """Paths of a tiny cohort of another hospital."""
    folder = tmp_path_factory.mktemp("other")
    sizes = {"n_patients": 8, "n_patches": 8, "n_features": 6, "prefix": "B"}
    return sk_momkd.simulate_cohort(folder, **sizes, n_sites=2, random_state=1)


@pytest.fixture
def here(tmp_path):
    """An empty folder, which is the current one."""
    with contextlib.chdir(tmp_path):
        yield tmp_path
    assert os.path.isdir(tmp_path)


def cohort_options(demo, *, omics=False):
    """Options that name the cohort."""
    options = ["--table", demo.table, "--features", demo.features, "--label", "subtype"]
    options += ["--positive", "aggressive"]
    return [*options, "--omics", demo.omics] if omics else options


def declared(command):
    """Keys that a command has options for, as (section, key)."""
    [function] = [c.callback for c in app.registered_commands if c.name == command]
    return {(section, name) for section, names in function.uses.items() for name in names}


@pytest.fixture
def reads(monkeypatch):
    """Keys of the run that a command reads, as (section, key)."""
    found = set()

    def recording(section):
        class Recording(SECTIONS[section]):
            def __getattribute__(self, name):
                if name in SECTIONS[section].__dataclass_fields__:
                    found.add((section, name))
                return super().__getattribute__(name)

        return Recording

    resolve = cli_options.resolve

    def recorded(*arguments, **keywords):
        run = resolve(*arguments, **keywords)
        for section in SECTIONS:
            getattr(run, section).__class__ = recording(section)
        return run

    monkeypatch.setattr(cli_options, "resolve", recorded)
    return found
