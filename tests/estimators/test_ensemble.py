"""Several models in one estimator, averaged weights, thinned batches: through `fit`."""

import pickle

import numpy as np
import pytest
import torch
from quick import CLASSIFIERS, quick
from skorch.callbacks import Callback

from sk_momkd import MoMKDClassifier, TrainingOptions


def fit(bags, y, omics=None, name="MoMKDClassifier", **overrides):
    settings = {"max_epochs": 2, "early_stopping": False} | overrides
    known = {} if omics is None else {"omics": omics}
    return quick(name, **settings).fit(bags, y, **known)


def weights(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_first_model_is_that_of_a_single_fit_and_the_others_differ(cohort):
    bags, y, omics = cohort
    single, three = fit(bags, y, omics), fit(bags, y, omics, n_models=3)
    assert torch.equal(weights(three.modules_[0]), weights(single.module_))
    ends = [weights(module) for module in three.modules_]
    assert not torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[1], ends[2])
    again = fit(bags, y, omics, n_models=3)
    assert all(torch.equal(weights(m), end) for m, end in zip(again.modules_, ends, strict=True))


@pytest.mark.parametrize("name", sorted(CLASSIFIERS))
def test_logits_are_the_mean_over_the_models(name, cohort):
    bags, y, _ = cohort
    both = fit(bags, y, name=name, n_models=2)
    expected = both.decision_function(bags)
    first, second = both.modules_
    alone = []
    for module in (first, second):
        both.modules_ = [module]
        alone.append(both.decision_function(bags))
    np.testing.assert_allclose(expected, np.mean(alone, axis=0), atol=1e-6)


def test_history_numbers_the_models_and_callbacks_run_for_each(cohort):
    class Count(Callback):
        def on_train_begin(self, net, **kwargs):
            self.epochs_ = 0

        def on_epoch_end(self, net, **kwargs):
            self.epochs_ += 1

    bags, y, _ = cohort
    clf = fit(bags, y, n_models=2, training__callbacks=[Count()])
    assert clf.history_["model"].tolist() == [0, 0, 1, 1]
    assert [callback.epochs_ for callback in clf.callbacks_] == [2, 2]
    assert clf.n_iter_ == 2
    assert "model" not in fit(bags, y).history_


def test_transform_has_the_affinities_of_every_model(cohort):
    bags, y, _ = cohort
    clf = fit(bags, y, n_models=2)
    names = clf.get_feature_names_out()
    assert clf.transform(bags).shape == (24, len(names)) == (24, 16)
    assert (names[0], names[8]) == ("model0_memory_0_0", "model1_memory_0_0")
    np.testing.assert_array_equal(clf.transform(bags)[:, :8], fit(bags, y).transform(bags))


def test_ensemble_is_pickled_as_one_model(cohort):
    bags, y, _ = cohort
    clf = fit(bags, y, n_models=2)
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(clf)).predict_proba(bags), clf.predict_proba(bags)
    )


def test_average_after_is_the_mean_of_the_weights_of_the_last_epochs(cohort):
    class Keep(Callback):
        def on_train_begin(self, net, **kwargs):
            self.weights_ = []

        def on_epoch_end(self, net, **kwargs):
            self.weights_.append(weights(net.module_))

    bags, y, _ = cohort
    clf = fit(bags, y, max_epochs=4, training__average_after=0.5, training__callbacks=[Keep()])
    expected = torch.stack(clf.callbacks_[0].weights_[2:]).mean(dim=0)
    torch.testing.assert_close(weights(clf.module_), expected, rtol=1e-5, atol=1e-6)


def test_average_overrules_the_best_epoch(cohort):
    bags, y, _ = cohort
    stopped = {"early_stopping": True, "max_epochs": 4, "patience": 9}
    averaged = fit(bags, y, training__average_after=0.0, **stopped)
    assert not torch.equal(weights(averaged.module_), weights(fit(bags, y, **stopped).module_))
    assert averaged.validation_ is not None


def test_training_that_stops_before_the_average_keeps_its_best_epoch(cohort):
    bags, y, _ = cohort
    stopped = {
        "early_stopping": True,
        "max_epochs": 30,
        "training__monitor": "loss",
        "learning_rate": 1.0,
    }
    stopped |= {"patience": 1, "training__min_epochs": 1}
    best, averaged = fit(bags, y, **stopped), fit(bags, y, training__average_after=0.99, **stopped)
    assert best.n_iter_ < 30
    assert torch.equal(weights(averaged.module_), weights(best.module_))


def test_first_averaged_epoch_follows_its_share_of_the_epochs():
    config = MoMKDClassifier(
        training=TrainingOptions(average_after=0.29), max_epochs=100, device="cpu"
    )
    config.device_ = "cpu"
    assert config._training_config().first_averaged == 30


def test_groups_of_another_length_are_refused_without_a_split(cohort):
    bags, y, omics = cohort
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        quick("MoMKDClassifier", early_stopping=False).fit(bags, y, omics=omics, groups=[0, 1])


def test_teacher_history_of_several_models_is_the_first(cohort):
    bags, y, omics = cohort
    one = fit(bags, y, omics, name="TDCClassifier")
    two = fit(bags, y, omics, name="TDCClassifier", n_models=2)
    assert two.teacher_history_["train_loss"].equals(one.teacher_history_["train_loss"])


@pytest.mark.parametrize("name", sorted(CLASSIFIERS))
def test_input_and_instance_dropout_train_every_method_and_leaves_prediction_alone(name, cohort):
    bags, y, _ = cohort
    clf = fit(bags, y, name=name, input_dropout=0.3, instance_dropout=0.5)
    np.testing.assert_array_equal(clf.predict_proba(bags), clf.predict_proba(bags))
    assert not torch.equal(weights(clf.module_), weights(fit(bags, y, name=name).module_))


def test_small_preset_is_the_estimator_with_other_parameters(cohort):
    bags, y, omics = cohort
    clf = MoMKDClassifier.preset("small", max_epochs=2, memory__kmeans_samples=100, random_state=0)
    assert (clf.lambda_teacher, clf.pooled_share) == ("auto", 0.75)
    default = MoMKDClassifier.preset("default")
    assert (default.lambda_teacher, default.pooled_share) == (0, 0)
    proba = clf.fit(bags, y, omics=omics).predict_proba(bags)
    assert np.isfinite(proba).all()
