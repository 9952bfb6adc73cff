"""The code of docs/inspection.md runs as it stands."""

import re
from pathlib import Path

import pandas as pd

TEXT = (Path(__file__).parents[2] / "docs" / "inspection.md").read_text(encoding="utf-8")


def test_code_of_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL))
    exec(compile(code, "docs/inspection.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "Memory usage of 24 bags, 4 components per class" in printed
    assert "patches in 24 bags are background" in printed
    assert len(pd.read_csv(tmp_path / "patient-preds.csv")) == 24
    assert {"slide.geojson", "slide.h5ad", "cohort.h5ad"} <= {p.name for p in tmp_path.iterdir()}
