"""Bags in an order of their own; patients, labels, positive class, omics."""

import h5py
import numpy as np
import pytest
from conftest import make_bags, make_omics
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from sk_momkd import Bag, BagPooling, BagSequence, align_omics, evaluate, read_bags
from sk_momkd.evaluation.study import as_study
from sk_momkd.exceptions import LeakageError, OmicsError


def test_study_does_not_depend_on_the_order_of_bags(noisy_cohort):
    bags, y, sites = noisy_cohort
    order = np.random.default_rng(0).permutation(len(y))
    one = as_study(bags, y, groups=sites)
    other = as_study(bags[order], y[order], groups=sites[order])
    assert one.bags.ids.tolist() == other.bags.ids.tolist()
    for name in ("y", "groups", "patient_of", "names", "labels"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert bags[order][other.order].ids.tolist() == other.bags.ids.tolist()


def test_patient_has_the_label_of_most_bags_and_the_mean_of_its_values():
    bags = [Bag(np.ones((1, 2)), bag_id=f"S{i}", patient_id=p) for i, p in enumerate("AAAB")]
    study = as_study(bags, [1, 1, 0, 0])
    assert study.names.tolist() == ["A", "B"]
    assert study.labels.tolist() == [1, 0]
    means = study.mean_over_bags(np.arange(4), np.array([[0.0], [0.3], [0.6], [1.0]]))
    np.testing.assert_allclose(means, [[0.3], [1.0]])


def test_bags_without_patient_are_their_own():
    study = as_study([Bag(np.ones((1, 2))) for _ in range(3)], [0, 1, 1])
    assert study.names.tolist() == ["bag 0", "bag 1", "bag 2"]


def test_positive_class_is_the_last_or_the_one_asked_for(noisy_cohort):
    bags, y, _ = noisy_cohort
    assert as_study(bags, y).classes == ["basal", "luminal"]
    study = as_study(bags, y, pos_label="basal")
    assert study.classes == ["luminal", "basal"]
    assert study.labels[0] == 1


def test_omics_is_joined_by_id_and_has_no_length():
    bags, y = make_bags(6)
    study = as_study(bags, y, omics=make_omics(y).iloc[::-1])
    assert not hasattr(study.omics, "__len__")
    joined = align_omics(make_omics(y), bags)
    assert study.omics.ids.tolist() == joined.ids.tolist()


def test_study_with_labels_gives_all_bags_of_a_patient_its_label(noisy_cohort):
    study = as_study(*noisy_cohort[:2])
    swapped = study.with_labels(1 - study.labels)
    assert (swapped.y != study.y).all()


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"y": [0, 0, 0, 0]}, ValueError, "two classes"),
        ({"y": [0, 1, None, 1]}, ValueError, "missing"),
        ({"pos_label": 5}, ValueError, "pos_label=5"),
        ({"groups": ["a", "b", "c", "c"]}, LeakageError, "several groups"),
        ({"omics": np.ones((4, 3))}, TypeError, "has no ids"),
        ({"omics": make_omics([0, 1]).rename(index=str.lower)}, OmicsError, "No omics row"),
    ],
)
def test_unusable_study_says_why(change, error, said):
    bags = [Bag(np.ones((1, 2)), bag_id=f"S{i}", patient_id=p) for i, p in enumerate("AABC")]
    arguments = {"y": [0, 0, 1, 1]} | change
    with pytest.raises(error, match=said):
        as_study(bags, arguments.pop("y"), **arguments)


def test_sites_without_patient_ids_are_refused():
    bags = BagSequence(Bag(np.ones((1, 2))) for _ in range(4))
    with pytest.raises(ValueError, match="patients and sites cannot be told apart"):
        as_study(bags, [0, 1, 0, 1], groups=["a", "a", "b", "b"])


class _Replacing(LogisticRegression):
    """After its first fit, one slide has another content."""

    path = None

    def fit(self, X, y):
        """Fit, and replace the file."""
        super().fit(X, y)
        with h5py.File(type(self).path, "r+") as file:
            file["features"][0, 0] += 1
        return self


def test_file_that_changes_between_folds_fails_the_fold(tmp_path):
    for i in range(8):
        with h5py.File(tmp_path / f"S{i}.h5", "w") as file:
            file["features"] = np.random.default_rng(i).normal(i % 2, 1, (3, 2)).astype(np.float32)
    bags = read_bags(tmp_path)
    _Replacing.path = tmp_path / "S0.h5"
    with pytest.warns(FitFailedWarning, match=r"S0\.h5 changed while it was in use"):
        result = evaluate(make_pipeline(BagPooling(), _Replacing()), bags, np.arange(8) % 2, cv=2)
    assert len(result.predictions) < 8
