"""Parameters and functions are known again, in another process too."""

import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sk_momkd import ABMILClassifier
from sk_momkd.data.value_digest import array_digest, configuration, digest, value_text


def shifted(x, by=1):
    return x + by


def doubled(x, by=1):
    return 2 * x + by


def closed_over(value):
    return lambda x: x + value


DIFFERENT = [
    (1, 1.0),
    (1, True),
    ("1", 1),
    (None, "None"),
    ([1, 2], [2, 1]),
    ({"a": 1}, {"a": 2}),
    (np.zeros(2), np.zeros((2, 1))),
    (np.zeros(2), np.zeros(2, dtype=np.float32)),
    (np.array(["a", "b"], dtype=object), np.array(["ab", ""], dtype=object)),
    (shifted, doubled),
    (partial(shifted, by=2), partial(shifted, by=3)),
    (closed_over(1), closed_over(2)),
    (np.log1p, np.log),
    (LogisticRegression(C=1), LogisticRegression(C=2)),
    (LogisticRegression, DummyClassifier),
    (np.random.RandomState(0), np.random.RandomState(1)),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_values_that_differ_have_other_texts(one, other):
    assert value_text(one) != value_text(other)
    assert value_text(one) == value_text(one)


def test_order_counts_in_lists_and_not_in_mappings_and_sets():
    assert value_text({"a": 1, "b": 2}) == value_text({"b": 2, "a": 1})
    assert value_text({"a", "b", "c"}) == value_text({"c", "b", "a"})
    assert value_text(np.float64(0.5)) == value_text(0.5)


def test_configuration_names_each_parameter_once_and_leaves_out_what_has_no_effect():
    clf = make_pipeline(FunctionTransformer(shifted), LogisticRegression(C=0.5, n_jobs=2))
    known = configuration(clf)
    assert known["logisticregression__C"] == "0.5"
    assert "0.5" not in known["steps"] + known["logisticregression"]
    assert not any(name.endswith(("random_state", "n_jobs", "verbose")) for name in known)
    votes = VotingClassifier([("a", DummyClassifier()), ("b", LogisticRegression())])
    assert configuration(votes)["b__C"] == "1.0"


def test_configuration_leaves_out_what_has_no_effect_on_a_classifier_of_bags():
    def known(**training):
        clf = ABMILClassifier().set_params(**training)
        return configuration(make_pipeline(FunctionTransformer(), clf))

    same = {"training__cache_bytes": 5, "training__checkpoint_dir": "runs/{fit}", "verbose": 1}
    assert known() == known(**same)
    assert known() != known(training__monitor="loss")


def test_digest_of_an_array_is_that_of_its_content():
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert digest(values) == digest(array_digest(values)) == digest(values.copy(order="F"))
    assert len({digest(values), digest(values.T), digest(values.ravel()), digest("a")}) == 4
    for empty in (np.empty((0, 3)), np.array(1.5), np.array(["a"], dtype="U3")):
        assert digest(empty) == digest(empty.copy()) != digest(values)


def test_parameter_that_cannot_be_known_again_is_named():
    class Bound:
        def __reduce__(self):
            raise TypeError("cannot be pickled")

    with pytest.raises(TypeError, match=r"has the parameter C=.*cannot be known again"):
        configuration(LogisticRegression(C=Bound()))


@pytest.mark.slow
def test_text_is_the_same_in_a_process_with_other_hashes():
    code = (
        "from sk_momkd.data.value_digest import value_text\n"
        "def f(x):\n    return x in {'a', 'b', 'c', 'd'}\n"
        "print(value_text([f, {'a', 'b', 'c'}, {'x': 1, 'y': 2}]))"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(texts) == 1


def test_digest_of_an_array_does_not_depend_on_its_layout():
    values = np.arange(6.0).reshape(2, 3)
    assert array_digest(values) == array_digest(np.asfortranarray(values))
