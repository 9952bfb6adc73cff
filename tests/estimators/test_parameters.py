"""Parameters: default, range and documentation agree; option objects are searched by name."""

import re

import numpy as np
import pytest
from conftest import make_bags
from estimators.shared_docstrings import (
    classifiers,
    docstring,
    entries,
    section,
    whole_docstring,
)
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from sk_momkd import (
    ABMILClassifier,
    LossOptions,
    MemoryOptions,
    MoMKDClassifier,
    NetworkOptions,
    TrainingOptions,
)

OPTIONS = [TrainingOptions, NetworkOptions, MemoryOptions, LossOptions]


@pytest.mark.parametrize("cls", classifiers(), ids=lambda cls: cls.__name__)
def test_docstring_in_the_source_holds_every_shared_parameter(cls):
    assert docstring(cls) == whole_docstring(cls)


@pytest.mark.parametrize("cls", [*classifiers(), *OPTIONS], ids=lambda cls: cls.__name__)
def test_docstring_documents_each_parameter_with_its_default(cls):
    documented = entries(section(docstring(cls), "Parameters"))
    params = cls().get_params(deep=False)
    assert set(documented) == set(params) == set(cls._parameter_constraints)
    for name, entry in documented.items():
        stated = re.search(r"default=(.*)$", entry.splitlines()[0]).group(1)
        assert eval(stated) == params[name]


def test_momkd_has_at_most_forty_parameters():
    assert len(MoMKDClassifier().get_params(deep=False)) <= 40


def test_get_params_deep_reaches_options_that_are_none():
    params = MoMKDClassifier(memory=MemoryOptions(momentum=0.5)).get_params()
    assert params["memory__momentum"] == 0.5
    assert params["loss__margin"] == 0.3
    assert params["training"] is None


def test_set_params_makes_an_option_object_of_its_own():
    clf, other = MoMKDClassifier(), MoMKDClassifier()
    clf.set_params(memory__momentum=0.9, training__monitor="loss")
    assert clf.memory.momentum == 0.9
    assert clf.training.monitor == "loss"
    assert other.memory is None
    assert clone(clf).memory.momentum == 0.9
    assert clone(clf).memory is not clf.memory


def test_set_params_of_an_unknown_option_is_refused():
    with pytest.raises(ValueError, match="Invalid parameter 'momentun' for estimator Memory"):
        MoMKDClassifier().set_params(memory__momentun=0.9)


def test_preset_leaves_the_given_options_alone():
    mine = TrainingOptions(monitor="loss")
    clf = MoMKDClassifier.preset("small", training=mine)
    assert clf.training is mine
    assert mine.lr_schedule == "auto"
    assert MoMKDClassifier.preset("small", network__n_heads=4).network.head_hidden_dim == 32


def test_auto_is_what_the_method_was_published_with():
    clf = ABMILClassifier(training=TrainingOptions(monitor="loss"), device="cpu")
    clf.device_ = "cpu"
    config = clf._training_config()
    assert (config.optimizer, config.lr_schedule, config.monitor) == ("adam", None, "loss")


def test_fit_bad_option_names_it(cohort):
    bags, y, _ = cohort
    clf = MoMKDClassifier(memory=MemoryOptions(momentum=2.0))
    with pytest.raises(ValueError, match="'momentum' parameter of MemoryOptions"):
        clf.fit(bags, y)


@pytest.mark.parametrize("widths", [(0,), (256, 1.5)])
def test_fit_bad_widths_of_the_embedding_are_named(cohort, widths):
    bags, y, _ = cohort
    with pytest.raises(ValueError, match=r"hidden_dims must be whole numbers of at least 1"):
        ABMILClassifier(hidden_dims=widths).fit(bags, y)


def test_grid_search_over_options(cohort):
    bags, y, omics = cohort
    clf = MoMKDClassifier(hidden_dim=8, projection_dim=4, max_epochs=1, random_state=0)
    grid = GridSearchCV(clf, {"memory__update": ["ema", "fixed"]}, cv=2, error_score="raise")
    grid.fit(bags, y, omics=omics)
    assert grid.best_estimator_.memory.update in {"ema", "fixed"}


def test_omics_for_a_classifier_of_histology_is_refused(cohort):
    bags, y, omics = cohort
    with pytest.raises(TypeError, match="learns from histology alone"):
        ABMILClassifier().fit(bags, y, omics=omics)


def test_validation_split_that_one_fit_uses_up_raises():
    bags, y = make_bags()
    splits = ((np.arange(4, 24), np.arange(4)) for _ in range(1))
    clf = ABMILClassifier(early_stopping=True).set_params(training__validation_split=splits)
    with pytest.raises(ValueError, match=r"validation_split is a generator.*list\(\.\.\.\)"):
        clf.fit(bags, y)
