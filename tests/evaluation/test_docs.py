"""The code of docs/evaluation.md runs as it stands."""

import re
from pathlib import Path

import pytest

import sk_momkd

TEXT = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
NAMES = set(re.findall(r"\w+", " ".join(re.findall(r"from sk_momkd import (.*)", TEXT))))


@pytest.mark.skipif(
    not set(sk_momkd.__all__) >= NAMES, reason="the names of the page are not exported yet"
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_code_of_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL))
    exec(compile(code, "docs/evaluation.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "4 folds x 2 repeats" in printed
    assert "4 fitted MoMKDClassifier on 30 external patients" in printed
    assert (tmp_path / "evaluation" / "summary.csv").is_file()
