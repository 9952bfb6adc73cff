"""scikit-learn's whole battery, with the number of checks asserted."""

import pytest
from conftest import quick_classifier
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

# Small, and quick to learn blobs of 300 bags with one instance each.
ESTIMATORS = [quick_classifier(batch_size=32, learning_rate=0.02)]


@parametrize_with_checks(ESTIMATORS)
def test_sklearn_check(estimator, check):
    check(estimator)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_sklearn_battery_is_complete_and_nothing_is_expected_to_fail(estimator):
    names = [check.func.__name__ for _, check in estimator_checks_generator(estimator)]
    # scikit-learn itself skips one, check_array_api_input, where SCIPY_ARRAY_API is not set.
    assert len([name for name in names if name != "check_array_api_input"]) >= 59
    for name in ("check_methods_sample_order_invariance", "check_methods_subset_invariance"):
        assert name in names
    assert not estimator.__sklearn_tags__()._skip_test
