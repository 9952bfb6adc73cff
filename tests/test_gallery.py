"""Every example of the gallery runs, is short, and draws a picture."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GALLERY = sorted((ROOT / "examples" / "gallery").glob("plot_*.py"))


def test_gallery_has_the_thirteen_short_examples_of_the_changelog():
    changes = " ".join((ROOT / "CHANGELOG.md").read_text("utf-8").split())
    assert "a gallery of thirteen short examples" in changes
    assert len(GALLERY) == 13
    lines = {path.name: len(path.read_text("utf-8").splitlines()) for path in GALLERY}
    assert max(lines.values()) < 40, lines


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("path", GALLERY, ids=lambda path: path.stem)
def test_example_runs_and_draws(path, tmp_path, monkeypatch):
    matplotlib = pytest.importorskip("matplotlib")
    if "genes" in path.stem:
        pytest.importorskip("shap")
    matplotlib.use("agg")
    from matplotlib import pyplot

    pyplot.close("all")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    runpy.run_path(str(path))
    assert any(figure.axes for figure in map(pyplot.figure, pyplot.get_fignums()))
    pyplot.close("all")
