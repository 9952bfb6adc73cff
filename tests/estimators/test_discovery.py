"""Finding the estimators."""

import pytest

import sk_momkd
from sk_momkd import all_estimators


def test_all_estimators_are_public_and_complete():
    found = dict(all_estimators())
    assert all(getattr(sk_momkd, name) is cls for name, cls in found.items())
    exported = {name for name in sk_momkd.__all__ if hasattr(getattr(sk_momkd, name), "fit")}
    assert set(found) == exported
    assert list(found) == sorted(found)


def test_all_estimators_by_kind():
    classifiers = [name for name, _ in all_estimators("classifier")]
    assert len(classifiers) == 9
    assert all(name.endswith("Classifier") for name in classifiers)
    assert "MoMKDClassifier" in dict(all_estimators("transformer"))
    assert "ABMILClassifier" not in dict(all_estimators("transformer"))
    assert [name for name, _ in all_estimators("meta")] == ["PrivilegedClassifier"]
    with pytest.raises(ValueError, match="'regressor'"):
        all_estimators("regressor")
