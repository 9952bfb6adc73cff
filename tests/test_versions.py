import re
from importlib import metadata
from pathlib import Path

import sk_momkd
from sk_momkd import show_versions
from sk_momkd.nn.backend import numba_version


def test_show_versions_names_backend_and_packages(capsys, monkeypatch):
    show_versions()
    said = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert {"torch", "scikit-learn", "numba", "sk_momkd"} <= set(said)
    expected = "torch" if numba_version() is None else "numba"
    assert said["backend"].split() == ["auto", expected]


def test_show_versions_prints_the_version_of_the_imported_package(capsys, monkeypatch):
    monkeypatch.setattr(metadata, "version", lambda _: "0.0.1")  # as of a stale installation
    show_versions()
    assert f"sk_momkd         {sk_momkd.__version__}\n" in capsys.readouterr().out


def test_show_versions_without_numba_says_so(capsys, monkeypatch):
    monkeypatch.setattr("sk_momkd.nn.backend.numba_version", lambda: None)
    show_versions()
    out = capsys.readouterr().out
    assert "not used: absent" in out
    assert "backend auto     torch" in out


def test_citation_and_changelog_have_the_version_of_the_package():
    root = Path(__file__).parents[1]
    cited = re.search(r"^version: (\S+)$", (root / "CITATION.cff").read_text("utf-8"), re.MULTILINE)
    assert cited.group(1) == sk_momkd.__version__
    changes = (root / "CHANGELOG.md").read_text("utf-8")
    released = re.findall(r"^## \[(\d+)\.(\d+)\.(\d+)\]", changes, re.MULTILINE)[0]
    version = tuple(map(int, sk_momkd.__version__.split(".")[:3]))
    newest = tuple(map(int, released))
    pending = changes.index("## [Unreleased]") < changes.index(f"## [{'.'.join(released)}]")
    assert version > newest if pending else version == newest
