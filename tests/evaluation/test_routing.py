"""Omics, groups and seeds reach the classifier inside pipelines and searches."""

import numpy as np
import pytest
from conftest import quick_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline

from sk_momkd import InstanceStandardizer, PatientStratifiedKFold
from sk_momkd.evaluation.routing import (
    accepts,
    final_estimator,
    fit_arguments,
    set_seeds,
    warn_if_patients_are_split,
)


def names(estimator):
    return set(fit_arguments(estimator, "omics", np.zeros(3), np.zeros(3)))


def test_arguments_of_a_classifier(recorder):
    assert names(recorder) == {"omics", "groups"}
    assert names(quick_classifier()) == {"omics", "groups"}


def test_arguments_of_a_pipeline_go_to_its_last_step(recorder):
    assert names(make_pipeline("passthrough", recorder)) == {"recorder__omics", "recorder__groups"}


def test_arguments_of_a_search_go_through_it(recorder):
    search = GridSearchCV(recorder, {}, cv=PatientStratifiedKFold(2))
    assert names(search) == {"omics", "groups"}  # these groups are for its own folds
    piped = GridSearchCV(make_pipeline("passthrough", recorder), {}, cv=2)
    assert names(piped) == {"recorder__omics", "recorder__groups"}
    assert names(make_pipeline("passthrough", search)) == {
        "gridsearchcv__omics",
        "gridsearchcv__groups",
    }


def test_search_keeps_patients_whole_where_there_are_no_sites(recorder):
    search = GridSearchCV(recorder, {}, cv=PatientStratifiedKFold(2))
    found = fit_arguments(search, None, None, np.array([4, 4, 5]))
    assert found["groups"].tolist() == [4, 4, 5]


def test_arguments_pass_a_calibrator(recorder):
    assert names(CalibratedClassifierCV(recorder)) == {"omics", "groups"}


def test_omics_that_nobody_takes_is_an_error(pooled_lr):
    assert not accepts(pooled_lr, "omics")
    with pytest.raises(TypeError, match=r"LogisticRegression is not trained with omics"):
        fit_arguments(pooled_lr, "omics", None, None)
    assert fit_arguments(pooled_lr, None, np.zeros(2), np.zeros(2)) == {}


def test_final_estimator_is_the_classifier_inside():
    search = GridSearchCV(make_pipeline("passthrough", LogisticRegression()), {})
    assert isinstance(final_estimator(make_pipeline("passthrough", search)), LogisticRegression)


def test_seeds_reach_every_random_state():
    pipe = make_pipeline(InstanceStandardizer(), quick_classifier())
    one = set_seeds(pipe, 3).get_params()["momkdclassifier__random_state"]
    assert one == set_seeds(pipe, 3).get_params()["momkdclassifier__random_state"]
    assert one != set_seeds(pipe, 4).get_params()["momkdclassifier__random_state"]


def test_seeds_reach_the_shuffled_folds_of_a_search(recorder):
    unseeded = PatientStratifiedKFold(3)
    search = make_pipeline("passthrough", GridSearchCV(recorder, {}, cv=unseeded))
    seeds = [set_seeds(search, s)[-1].cv.random_state for s in (3, 3, 4)]
    assert seeds[0] is not None
    assert unseeded.random_state is None
    given = GridSearchCV(recorder, {}, cv=PatientStratifiedKFold(3, random_state=7))
    assert set_seeds(given, 3).cv.random_state == 7
    assert set_seeds(GridSearchCV(recorder, {}, cv=KFold(3)), 3).cv.random_state is None


def test_search_that_separates_slides_warns(recorder, recwarn):
    with pytest.warns(UserWarning, match="separates the slides"):
        warn_if_patients_are_split(GridSearchCV(recorder, {}, cv=3), 10, 5)
    recwarn.clear()
    with pytest.warns(UserWarning, match="CalibratedClassifierCV splits by StratifiedKFold"):
        warn_if_patients_are_split(CalibratedClassifierCV(recorder), 10, 5)
    recwarn.clear()
    warn_if_patients_are_split(GridSearchCV(recorder, {}, cv=PatientStratifiedKFold()), 10, 5)
    warn_if_patients_are_split(CalibratedClassifierCV(recorder, cv=PatientStratifiedKFold()), 10, 5)
    warn_if_patients_are_split(GridSearchCV(recorder, {}, cv=3), 5, 5)
    warn_if_patients_are_split(recorder, 10, 5)
    assert not recwarn.list
