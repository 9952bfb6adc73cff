"""The code of docs/report.md runs as it stands, and its pictures are there."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "report.md").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_code_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL))
    exec(compile(code, "docs/report.md", "exec"), {})
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'class="missing"' not in page
    assert len(list(tmp_path.glob("*.png"))) == 4


def test_pictures_are_there_and_small():
    named = {DOCS / path for path in re.findall(r"\]\((images/[^)]*)\)", TEXT)}
    assert named == set((DOCS / "images").glob("*.png"))
    sizes = [path.stat().st_size for path in named]
    assert max(sizes) < 300_000
    assert sum(sizes) < 2_000_000
