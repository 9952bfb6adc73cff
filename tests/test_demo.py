"""`make demo` and its options for files of one's own, with a small model."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pandas as pd
import pytest

from sk_momkd import MoMKDClassifier, load_model, simulate_cohort

_PATH = Path(__file__).parents[1] / "examples/demo.py"  # benchmarks/ has a module of this name, too
_SPEC = spec_from_file_location("demo_of_examples", _PATH)
demo = module_from_spec(_SPEC)
_SPEC.loader.exec_module(demo)

SMALL = {"n_patches": 6, "n_features": 8, "n_genes": 60}


def options(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["demo.py", *map(str, arguments)])
    return demo.parse()


def test_files_of_ones_own_without_a_table_are_refused(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        options(monkeypatch, "--features", "features/", "--label", "her2")
    assert "--table must be given" in capsys.readouterr().err


def test_values_of_the_label_are_mapped(monkeypatch):
    own = ["--table", "t.csv", "--features", "f", "--label", "her2", "--site", "hospital"]
    given = options(monkeypatch, *own, "--map", "Positive=1", "Negative=0", "Equivocal=")
    columns = demo.columns_of(given)
    assert columns["positive"] == {"Positive": 1, "Negative": 0, "Equivocal": None}
    assert columns["site"] == "hospital"
    assert "negative" not in columns


@pytest.fixture
def quick(monkeypatch):
    """One epoch and small cohorts; everything else is what `make demo` runs."""
    pytest.importorskip("matplotlib")
    preset = MoMKDClassifier.preset
    one_epoch = {"max_epochs": 1, "hidden_dim": 8, "batch_size": 16}
    monkeypatch.setattr(
        MoMKDClassifier, "preset", lambda name, **given: preset(name, **given | one_epoch)
    )
    monkeypatch.setattr(
        demo,
        "simulate_cohort",
        lambda out, **given: simulate_cohort(out, **given | SMALL | {"n_patients": 30}),
    )


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_demo_compares_saves_and_reports_at_the_second_hospital(
    quick, tmp_path, monkeypatch, capsys
):
    demo.main(options(monkeypatch, "--out", tmp_path / "out"))
    table = pd.read_csv(tmp_path / "out" / "second_hospital.csv", index_col=0)
    assert table.index.tolist() == ["without omics", "with omics"]
    assert (table["low"] <= table["AUROC"]).all()
    assert (table["AUROC"] <= table["high"]).all()
    said = capsys.readouterr().out
    assert "Does omics help" in said
    assert "Second hospital, predicted from histology alone" in said
    model = load_model(tmp_path / "out" / "model.zip")
    assert list(model.named_steps) == ["instancetransformer", "momkdclassifier"]
    assert len(model[-1].genes_) > 0  # trained with omics
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "external" in page
    assert "instancetransformer" in page


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("with_omics", [True, False])
def test_demo_on_ones_own_files_leaves_a_model_and_a_report(
    with_omics, quick, tmp_path, monkeypatch, capsys
):
    paths = simulate_cohort(tmp_path / "cohort", n_patients=30, **SMALL)
    own = ["--table", paths.table, "--features", paths.features]
    own += ["--omics", paths.omics] if with_omics else []
    own += ["--label", "subtype", "--map", "aggressive=1", "indolent=0"]
    demo.main(options(monkeypatch, *own, "--out", tmp_path / "out"))
    assert load_model(tmp_path / "out" / "model.zip").classes_.tolist() == [0, 1]
    assert "<html" in (tmp_path / "out" / "report.html").read_text("utf-8")
    assert (tmp_path / "out" / "cross_validation").is_dir()
    assert not (tmp_path / "out" / "second_hospital.csv").exists()
    assert ("Does omics help" in capsys.readouterr().out) == with_omics
