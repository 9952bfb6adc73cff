"""Commands run in this process, in a folder of their own."""

import contextlib
import os

import pytest

pytest.importorskip("typer")

from typer.testing import CliRunner

import sk_momkd


class Outcome:
    """Exit code, standard output and standard error of a command."""

    def __init__(self, result):
        self.code, self.out, self.err = result.exit_code, result.stdout, result.stderr
        self.exception = result.exception

    def __repr__(self):
        return f"code {self.code}\n{self.out}\n{self.err}\n{self.exception!r}"


def run(*arguments):
    """Run `sk-momkd` with the arguments."""
    from sk_momkd.cli.app import app

    return Outcome(CliRunner().invoke(app, [str(a) for a in arguments], prog_name="sk-momkd"))


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """Paths of a tiny cohort."""
    folder = tmp_path_factory.mktemp("demo")
    sizes = {"n_patients": 16, "n_patches": 8, "n_features": 6, "n_genes": 20, "n_signature": 5}
    return sk_momkd.simulate_cohort(folder, **sizes, n_sites=2, random_state=0)


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
