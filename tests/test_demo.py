"""`make demo` and its options for files of one's own, with a small model."""

import sys
from pathlib import Path

import pytest

from sk_momkd import MoMKDClassifier, load_model, simulate_cohort

sys.path.append(str(Path(__file__).parents[1] / "examples"))
import demo


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


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_demo_on_ones_own_files_leaves_a_model_and_a_report(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")

    def quick(random_state=0):
        return MoMKDClassifier(hidden_dim=8, max_epochs=1, batch_size=16, random_state=0)

    monkeypatch.setattr(demo, "make_model", quick)
    monkeypatch.setattr(demo, "fit", lambda bags, y, omics: quick().fit(bags, y, omics=omics))
    paths = simulate_cohort(tmp_path / "cohort", n_patients=30, n_patches=6, n_features=8)
    own = ["--table", paths.table, "--features", paths.features, "--omics", paths.omics]
    own += ["--label", "subtype", "--map", "aggressive=1", "indolent=0"]
    demo.main(options(monkeypatch, *own, "--out", tmp_path / "out"))
    assert load_model(tmp_path / "out" / "model.zip").classes_.tolist() == [0, 1]
    assert "<html" in (tmp_path / "out" / "report.html").read_text("utf-8")
    assert (tmp_path / "out" / "cross_validation").is_dir()
    assert "Does omics help" in capsys.readouterr().out
