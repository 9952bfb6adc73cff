"""The code of README.md runs as it is printed, on a small simulated cohort."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

import sk_momkd

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
CLASSIFIER = re.compile(r"(\w+Classifier(?:\.preset)?\([^()]*\))")


def made_quick(code):
    """`code` with classifiers of one epoch; what is tested here is that it runs."""
    code = CLASSIFIER.sub(r"\1.set_params(max_epochs=1, batch_size=16)", code)
    code = code.replace("MoMKDClassifier(random_state=0)", "MoMKDClassifier(hidden_dim=16)")
    return re.sub(r"(cv|n_repeats)=\d", r"\1=2", code).replace("n_jobs=2", "n_jobs=1")


@pytest.fixture
def files_of_the_readme(tmp_path, monkeypatch):
    """The three files that the first block reads, in the current folder."""
    paths = sk_momkd.simulate_cohort(
        tmp_path / "cohort", n_patients=30, n_patches=8, n_features=8, random_state=0
    )
    monkeypatch.chdir(tmp_path)
    table = pd.read_csv(paths.table).rename(columns={"subtype": "her2"})
    table["her2"] = table["her2"].map({"aggressive": "Positive", "indolent": "Negative"})
    table.to_csv("slides.csv", index=False)
    shutil.copytree(paths.features, "features")
    shutil.copy(paths.omics, "expression.h5ad")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_code_of_the_readme_runs(files_of_the_readme, capsys):
    pytest.importorskip("shap")
    code = made_quick("\n".join(BLOCKS))
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["clf"].predict_proba(names["bags"]).shape == (30, 2)
    assert Path("slide.geojson").stat().st_size > 0
    assert "<html" in Path("report.html").read_text(encoding="utf-8")
    assert "MoMKDClassifier" in capsys.readouterr().out


def test_readme_has_code_and_every_file_that_it_links():
    assert len(BLOCKS) >= 5
    linked = re.findall(r"\]\(((?!http)[^)#]+)", README.read_text(encoding="utf-8"))
    assert [path for path in linked if not (README.parent / path).exists()] == []
