"""Messages name nothing that someone else could own."""

import re
from importlib import metadata
from pathlib import Path

import sk_momkd
from sk_momkd.messages import install_hint

SOURCES = Path(sk_momkd.__file__).parent


def test_no_message_installs_from_an_index_under_our_own_name():
    named = [
        path.name
        for path in SOURCES.rglob("*.py")
        if re.search(r"pip install ['\"]?sk_momkd", path.read_text(encoding="utf-8"))
    ]
    assert named == []


def test_hint_has_the_versions_that_the_package_asks_for(monkeypatch):
    asked = ["zarr>=3.0 ; extra == 'formats'", "numpy>=1.26"]
    monkeypatch.setattr("sk_momkd.messages.requires", lambda name: asked)
    assert install_hint("zarr", "jinja2") == "pip install 'zarr>=3.0' 'jinja2'"


def test_hint_of_a_package_that_is_not_installed_is_the_name(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("sk_momkd.messages.requires", missing)
    assert install_hint("shap") == "pip install 'shap'"
