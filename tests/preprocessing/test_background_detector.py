"""Background planted among tissue is found, tissue is left alone."""

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from sk_momkd import BackgroundDetector


@parametrize_with_checks([BackgroundDetector()])
def test_sklearn_check(estimator, check):
    check(estimator)


def planted(n_tissue, n_glass, width=32, spread=0.05, seed=0):
    """Tissue of several kinds, and patches of glass that hardly differ."""
    random = np.random.default_rng(seed)
    kinds = 2 * random.normal(size=(4, width))
    tissue = kinds[random.integers(4, size=n_tissue)] + random.normal(size=(n_tissue, width))
    glass = random.normal(size=width) + spread * random.normal(size=(n_glass, width))
    return np.concatenate([tissue, glass]), np.repeat([1, -1], [n_tissue, n_glass])


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.7])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_planted_background_is_found_and_no_tissue(share, dtype):
    X, truth = planted(1000, round(1000 * share / (1 - share)))
    np.testing.assert_array_equal(BackgroundDetector().fit(X.astype(dtype)).predict(X), truth)


def test_two_kinds_of_background_have_two_centers():
    X, truth = planted(500, 60)
    black = np.full((60, 32), -3.0) + 0.01 * np.random.default_rng(1).normal(size=(60, 32))
    X, truth = np.concatenate([X, black]), np.concatenate([truth, [-1] * 60])
    detector = BackgroundDetector().fit(X)
    assert detector.centers_.shape == (2, 32)
    np.testing.assert_array_equal(detector.predict(X), truth)


def test_tissue_alone_is_kept_whole():
    X, truth = planted(1000, 0)
    detector = BackgroundDetector().fit(X)
    assert detector.centers_.shape == (0, 32)
    np.testing.assert_array_equal(detector.predict(X), truth)


def test_new_slide_without_background_is_kept_whole():
    X, _ = planted(500, 100)
    new = np.random.default_rng(5).normal(size=(300, 32))
    assert (BackgroundDetector().fit(X).predict(new) == 1).all()


def test_background_rarer_than_n_neighbors_is_not_seen():
    X, _ = planted(500, 10)
    assert (BackgroundDetector().fit(X).predict(X) == 1).all()
    assert (BackgroundDetector(n_neighbors=5).fit(X).predict(X) == -1).sum() == 10


def test_repeated_patches_of_a_bootstrap_are_no_background():
    X, _ = planted(300, 0)
    assert (BackgroundDetector().fit(np.repeat(X, 5, axis=0)).predict(X) == 1).all()


def test_exact_copies_are_background():
    X, truth = planted(300, 50, spread=0)
    np.testing.assert_array_equal(BackgroundDetector().fit(X).predict(X), truth)


def test_smaller_max_distance_is_more_cautious():
    X, _ = planted(500, 200, spread=0.2)
    found = [(BackgroundDetector(d).fit(X).predict(X) == -1).sum() for d in (0.05, 0.15, 0.3)]
    assert found[0] == 0
    assert found == sorted(found)
    assert found[2] == 200


def test_fit_on_copies_alone_raises():
    with pytest.raises(ValueError, match="Three quarters of 40 patches have 10 exact copies"):
        BackgroundDetector().fit(np.ones((40, 3)))


@pytest.mark.parametrize("parameters", [{"max_distance": 0}, {"n_neighbors": 0}])
def test_fit_wrong_parameter_raises(parameters):
    with pytest.raises(ValueError, match=next(iter(parameters))):
        BackgroundDetector(**parameters).fit(np.eye(20))


def colours_of(image, side=48):
    """Mean, spread, percentiles and gradients of the colours in each square of an image."""
    rows, columns = image.shape[0] // side, image.shape[1] // side
    cut = image[: rows * side, : columns * side].astype(np.float32)
    patches = cut.reshape(rows, side, columns, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3)
    pixels = patches.reshape(len(patches), -1, 3)
    percentiles = np.concatenate(np.percentile(pixels, [5, 25, 50, 75, 95], axis=1), axis=1)
    gradients = [np.abs(np.diff(patches, axis=axis)).mean((1, 2)) for axis in (1, 2)]
    return np.concatenate([pixels.mean(1), pixels.std(1), percentiles, *gradients], axis=1)


@pytest.mark.slow
def test_glass_of_a_scanned_slide_is_found_and_nothing_stained(data_folder):
    pillow = pytest.importorskip("PIL.Image")
    slide = data_folder / "wsi" / "CMU-1-Small-Region.svs"
    if not slide.exists():
        pytest.skip("the scanned slide is absent")
    features = colours_of(np.asarray(pillow.open(slide).convert("RGB")))
    brightness = features[:, :3].mean(axis=1)
    dropped = BackgroundDetector().fit(features).predict(features) == -1
    assert brightness[dropped].min() > 235
    assert dropped[brightness > 235].mean() > 0.9
