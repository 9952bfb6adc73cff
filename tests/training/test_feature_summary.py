"""Distance of slides from those of training: known numbers, no false alarms, what is noticed."""

import warnings

import numpy as np
import pytest
import torch

from sk_momkd import BagError, FeatureShiftWarning, as_bags
from sk_momkd.nn.blocks import Blocks
from sk_momkd.training.batches import BagDataset, GraphSpec
from sk_momkd.training.feature_scale import UnlikeTraining
from sk_momkd.training.feature_summary import FeatureSummary


def slides(n, size=40, width=6, seed=0):
    """Bags with features of mean 5, standard deviation 1 between slides and 2 within."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(5, 1, size=(n, 1, width))
    return (centres + rng.normal(0, 2, size=(n, size, width))).astype(np.float32)


def summary_of(bags):
    means, within = bags.mean(axis=1), bags.var(axis=1).mean(axis=0)
    return FeatureSummary.of(means, within, np.full(len(bags), bags.shape[1]))


def messages_of(bags, summary, *, strict=False, largest=100.0):
    unlike = UnlikeTraining(largest, summary, strict=strict)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for i, bag in enumerate(bags):
            unlike.look_at(torch.from_numpy(np.ascontiguousarray(bag)), f"bag 'S{i}'")
        unlike.warn()
    assert all(warning.category is FeatureShiftWarning for warning in caught)
    return [str(warning.message) for warning in caught]


def test_distance_is_that_of_a_computation_without_each_slide():
    bags = slides(14)
    means, found = bags.mean(axis=1).astype(np.float64), []
    for i in range(len(means)):
        rest = np.delete(means, i, axis=0)
        spreads = np.abs(means[i] - rest.mean(axis=0)) / rest.std(axis=0, ddof=1)
        found.append(np.sqrt((np.minimum(spreads, 8) ** 2).mean()))
    summary = summary_of(bags)
    assert summary.usual == pytest.approx(np.quantile(found, 0.9), rel=1e-5)
    spreads = np.minimum(np.abs(3 - means.mean(axis=0)) / means.std(axis=0, ddof=1), 8)
    expected = np.sqrt((spreads**2).mean())
    assert summary.distance(np.full(6, 3.0), 40) == pytest.approx(expected, rel=1e-5)


def test_small_bag_may_differ_by_the_variance_within_slides():
    bags = slides(20)
    summary = summary_of(bags)
    far = np.full(6, 8.0)
    spread, within = bags.mean(axis=1).std(axis=0, ddof=1), bags.var(axis=1).mean(axis=0)
    wider = np.sqrt(spread**2 + (1 - 1 / 40) * within)
    spreads = np.minimum(np.abs(far - bags.mean(axis=(0, 1))) / wider, 8)
    expected = np.sqrt((spreads**2).mean())
    assert summary.distance(far, 1) == pytest.approx(expected, rel=1e-4)
    assert summary.distance(far, 1) < summary.distance(far, 40) == summary.distance(far, 400)


def test_features_that_never_vary_count_only_where_they_differ():
    bags = slides(20)
    bags[..., :3] = [0.0, 7.0, 1e4]
    summary = summary_of(bags)
    like, unlike = bags[0].mean(axis=0), bags[0].mean(axis=0)
    unlike[0] = 1.0
    assert summary.distance(unlike, 40) > summary.distance(like, 40)
    assert summary.distance(like, 40) < 2


@pytest.mark.parametrize("seed", range(3))
def test_slides_of_the_same_population_do_not_warn(seed):
    bags = slides(120, seed=seed)
    for n_training in (10, 30, 60):
        assert messages_of(bags[n_training:], summary_of(bags[:n_training])) == []


def test_slides_of_another_scale_or_encoder_are_named_with_the_figure():
    bags = slides(40)
    summary = summary_of(bags[:30])
    (message,) = messages_of(bags[30:] * 3, summary)
    assert "10 slides lie together far" in message
    assert f"90 % of the training slides are within {summary.usual:.2g}" in message
    (message,) = messages_of([*bags[30:39], -bags[39]], summary)
    assert "1 of 10 slides lie far from those of training: bag 'S9' (7" in message
    assert "same encoder and scaling" in message


def test_a_large_slide_is_judged_by_its_first_block():
    bags = slides(30)
    unlike = UnlikeTraining(100.0, summary_of(bags))
    blocks = [bags[0][:20] - 12, bags[0][20:]]
    unlike.look_at(Blocks((40, 6), torch.float32, lambda: iter(blocks)), "bag 'A'")
    with pytest.warns(FeatureShiftWarning, match=r"1 of 1 slides lie far.*bag 'A'"):
        unlike.warn()


def test_with_strict_a_slide_is_refused_before_the_next_is_read():
    bags = slides(30)
    unlike = UnlikeTraining(100.0, summary_of(bags), strict=True)
    unlike.look_at(torch.from_numpy(bags[0]), "bag 'near'")
    with pytest.raises(BagError, match=r"bag 'far' \(8\)"):
        unlike.look_at(torch.from_numpy(bags[1] + 30), "bag 'far'")
    with pytest.raises(BagError, match="all zero"):
        messages_of([np.zeros((3, 6), dtype=np.float32)], summary_of(bags), strict=True)
    with pytest.raises(BagError, match="5 slides lie together"):
        messages_of(bags[:5] + 4.5, summary_of(bags), strict=True)


def test_features_whose_variance_overflows_give_no_summary_and_no_nan():
    assert FeatureSummary.of(np.full((20, 2), 1e20), np.full(2, np.inf), np.full(20, 5)) is None
    assert FeatureSummary.of(np.full((20, 2), np.nan), np.ones(2), np.full(20, 5)) is None
    bags = slides(20) * np.float32(1e18)
    assert np.isfinite(summary_of(bags).distance(bags[0].mean(axis=0), 3))


def test_with_strict_a_model_that_does_not_know_its_features_says_so():
    with pytest.raises(ValueError, match="training__strict=True, but this model does not know"):
        UnlikeTraining(None, None, strict=True)
    assert messages_of(slides(3), None, largest=None) == []


def test_slides_are_looked_at_by_what_a_dataset_knows_of_them():
    near, far = slides(30), slides(4) + 30
    bags = as_bags([*near[:3], *far], bag_ids=[f"S{i}" for i in range(7)])
    dataset = BagDataset(bags, np.zeros(7, dtype=int), GraphSpec("none"), 6)
    seen = UnlikeTraining(100.0, summary_of(near))
    seen.look_at_all(dataset)
    one_by_one = UnlikeTraining(100.0, summary_of(near))
    for i, bag in enumerate(bags):
        one_by_one.look_at(torch.from_numpy(bag.features), bags.name(i))
    np.testing.assert_allclose(seen.distances, one_by_one.distances, rtol=1e-5)
    with pytest.raises(BagError, match="bag 'S3'"):
        UnlikeTraining(100.0, summary_of(near), strict=True).look_at_all(dataset)


def test_fewer_than_ten_slides_give_no_summary():
    assert summary_of(slides(9)) is None
    assert messages_of(slides(9) * 5, None) == []
