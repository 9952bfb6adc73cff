"""A model knows its training patients again, by hashes from which ids are not read."""

import pickle
import time

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sk_momkd import Bag, BagPooling, BagSequence, patient_bags
from sk_momkd.data.training_patients import HashedIds, hashed_ids, meet


def bags_of(*ids):
    """Bags with these (slide, patient) ids."""
    return BagSequence(Bag(np.ones((1, 2)), bag_id=b, patient_id=p) for b, p in ids)


TRAINED = bags_of(*[(f"S{i}", f"TCGA-AA-{i:04d}") for i in range(12)])
Y = np.arange(12) % 2


def pooled(model=None):
    return make_pipeline(BagPooling(), LogisticRegression() if model is None else model)


AROUND = {
    "pipeline": pooled(),
    "nested pipeline": make_pipeline("passthrough", pooled()),
    "search": GridSearchCV(pooled(), {"logisticregression__C": [1.0, 2.0]}, cv=2),
    "calibrated": CalibratedClassifierCV(pooled(), cv=2),
    "calibrated once": CalibratedClassifierCV(pooled(), cv=2, ensemble=False),
    "calibrated frozen": CalibratedClassifierCV(FrozenEstimator(pooled().fit(TRAINED, Y)), cv=2),
    "stack": StackingClassifier([("a", pooled()), ("b", pooled())], cv=2),
    "voting": VotingClassifier([("a", pooled()), ("b", pooled())], voting="soft"),
    "bagging": pooled(BaggingClassifier(LogisticRegression(), n_estimators=2)),
    "threshold": FixedThresholdClassifier(pooled(), threshold=0.4),
    "one against the rest": pooled(OneVsRestClassifier(LogisticRegression())),
    "stack of searches": StackingClassifier(
        [("a", GridSearchCV(pooled(), {"bagpooling__statistics": ["max"]}, cv=2))], cv=2
    ),
}


@pytest.mark.parametrize("estimator", AROUND.values(), ids=AROUND)
def test_every_estimator_around_knows_its_patients_also_when_unpickled(estimator):
    fitted = clone(estimator).fit(TRAINED, Y)
    for model in (fitted, pickle.loads(pickle.dumps(fitted))):
        met = meet([model], bags_of(("new", "TCGA-BB-0001"), ("x", "TCGA-AA-0003")))
        assert met.names == ["TCGA-AA-0003"]
        assert met.unchecked == ""


@pytest.mark.parametrize("estimator", AROUND.values(), ids=AROUND)
def test_estimator_before_fit_knows_no_patients(estimator):
    assert hashed_ids(clone(estimator)) == [] or "FrozenEstimator" in str(estimator)


def test_fitted_estimator_that_a_search_cloned_is_not_asked():
    template = pooled().fit(bags_of(("A", "A"), ("B", "B")), [0, 1])
    search = GridSearchCV(template, {"logisticregression__C": [1.0]}, cv=2).fit(TRAINED, Y)
    assert meet([search], bags_of(("A", "A"))).names == []


@pytest.mark.parametrize(
    ("slide", "patient", "met"),
    [
        ("new", "TCGA-AA-0001.h5", ["TCGA-AA-0001"]),
        ("new", "TCGA.AA.0001", ["TCGA-AA-0001"]),
        ("new", " slides/TCGA-AA-0001.svs", ["TCGA-AA-0001"]),
        ("TCGA-AA-0001", None, ["bag 'TCGA-AA-0001'"]),
        ("S1.h5", None, ["bag 'S1'"]),
        ("S1", "renamed", ["renamed, by its slide S1"]),
        ("S99", "TCGA-AA-0099", []),
        ("TCGA-AA-0001", "P", []),  # the patient's id is only the name of another one's slide
        (None, None, []),
    ],
)
def test_ids_are_compared_in_one_form_by_patient_and_by_slide(slide, patient, met):
    assert meet([pooled().fit(TRAINED, Y)], bags_of((slide, patient))).names == met


def test_slides_of_a_patient_bag_are_known_and_met():
    slides = bags_of(("S1", "P"), ("S2", "P"), ("S3", "Q"))
    model = pooled().fit(patient_bags(slides), [0, 1])
    assert meet([model], bags_of(("S2", None))).names == ["bag 'S2'"]
    model = pooled().fit(slides, [0, 1, 0])
    joined = patient_bags(bags_of(("S2", "X"), ("new", "X"), ("S9", "Y")))
    assert meet([model], joined).names == ["X, by a slide"]
    assert meet([model], slides).names == ["P", "Q"]


def test_what_cannot_be_checked_is_said():
    plain = make_pipeline(FunctionTransformer(lambda bags: np.ones((len(bags), 1))))
    assert "Pipeline does not remember" in meet([plain], TRAINED).unchecked
    without = pooled().fit([np.ones((2, 2)), np.zeros((1, 2))], [0, 1])
    assert meet([without], TRAINED).unchecked == "training bags had no ids"
    table = pooled().fit(np.ones((2, 3)), [0, 1])
    assert meet([table], TRAINED).unchecked == "training bags had no ids"
    known = pooled().fit(TRAINED, Y)
    assert meet([known], bags_of((None, None))).unchecked == "bags have no ids"
    assert meet([known, plain], TRAINED).names == list(TRAINED.patient_ids)


def test_hashes_hold_no_id_and_differ_between_fits():
    first, second = HashedIds.of(TRAINED), HashedIds.of(TRAINED)
    assert b"TCGA" not in pickle.dumps(first)
    assert not np.intersect1d(first.patients, second.patients).size
    assert (np.diff(first.patients.astype(float)) > 0).all()  # not in the order of the cohort
    assert str(first) == "HashedIds of 12 patients and 12 slides"


def test_hashes_of_many_ids_take_no_time():
    many = bags_of(*[(f"S{i}", f"TCGA-AA-{i:05d}") for i in range(10_000)])
    start = time.process_time()
    ids = HashedIds.of(many)
    assert time.process_time() - start < 0.3
    assert len(ids.patients) == len(ids.slides) == 10_000
    assert ids.patients_met(many).all()


def test_ids_from_file_names_that_are_no_utf8_are_known():
    bags = BagSequence([Bag(np.ones((1, 2)), bag_id="slide\udce9")])
    assert HashedIds.of(bags).slides_met(bags).all()
