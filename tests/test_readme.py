"""The code of README.md, the user guide and some pages runs, on a small simulated cohort."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

import sk_momkd

ROOT = Path(__file__).parents[1]
AFTER_THE_GUIDE = ("does_my_omics_help", "models", "resuming")  # they use its names
PAGES = [
    ROOT / "README.md",
    *(ROOT / "docs" / f"{name}.md" for name in ("index", "quickstart", *AFTER_THE_GUIDE)),
    *sorted(ROOT.glob("docs/guide/*.md")),
]
BLOCK = re.compile(r"```python\n(.*?)```", flags=re.DOTALL)
CLASSIFIER = re.compile(r"(\w+Classifier(?:\.preset)?\((?![a-z]*student)[^()]*\))")
WITH_CODE = [page for page in PAGES if BLOCK.search(page.read_text(encoding="utf-8"))]


def made_quick(code):
    """`code` with classifiers of one epoch; what is tested here is that it runs."""
    code = CLASSIFIER.sub(r"\1.set_params(max_epochs=1, batch_size=16)", code)
    return re.sub(r"(cv|n_repeats)=\d", r"\1=2", code).replace("n_jobs=2", "n_jobs=1")


def write_files(folder):
    """What the pages read: a table, features and expression, and a second cohort without omics."""
    size = {"n_patches": 8, "n_features": 8}
    for name, features, prefix in [("slides", "features", "S"), ("other", "other_features", "E")]:
        paths = sk_momkd.simulate_cohort(
            folder / f"cohort_{name}", n_patients=30, prefix=prefix, random_state=0, **size
        )
        table = pd.read_csv(paths.table).rename(columns={"subtype": "her2"})
        table["her2"] = table["her2"].map({"aggressive": "Positive", "indolent": "Negative"})
        table["site"] = [f"hospital {number % 6}" for number in range(len(table))]
        table.to_csv(folder / f"{name}.csv", index=False)
        shutil.copytree(paths.features, folder / features)
        if name == "slides":
            shutil.copy(paths.omics, folder / "expression.h5ad")


@pytest.fixture
def names_of_the_guide(tmp_path, monkeypatch):
    """Names that each page of the guide goes on from, in a folder with the files."""
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "guide" / "index.md").read_text(encoding="utf-8")
    names = {}
    exec(made_quick("\n".join(BLOCK.findall(text))), names)
    return names


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.stem)
def test_code_of_the_page_runs(page, names_of_the_guide, capsys):
    pytest.importorskip("shap")
    pytest.importorskip("matplotlib")
    code = made_quick("\n".join(BLOCK.findall(page.read_text(encoding="utf-8"))))
    exec(compile(code, page.name, "exec"), names_of_the_guide)
    if page.name == "README.md":
        assert "<html" in Path("report.html").read_text(encoding="utf-8")
        assert Path("her2.zip").stat().st_size > 0
        assert "AUROC" in capsys.readouterr().out
    if page.stem == "reading_the_memory":
        assert Path("slide.geojson").stat().st_size > 0


@pytest.mark.fast
def test_readme_is_short_and_has_code():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert len(BLOCK.findall(text)) >= 2
    assert len(WITH_CODE) >= 12
