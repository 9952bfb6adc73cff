"""Expression far from all others: the limits, what they leave alone, and the warning."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtri
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from sk_momkd import ABMILClassifier, Bag, BagPooling, ExpressionClipper, PrivilegedClassifier
from sk_momkd.exceptions import ExpressionScaleWarning, OmicsError
from sk_momkd.preprocessing.expression_outliers import (
    check_expression,
    clip_outliers,
    robust_deviation,
    warn_of_outliers,
)
from sk_momkd.preprocessing.omics import default_omics_transformer

POOLED = make_pipeline(BagPooling(), LogisticRegression())


def expression(n=200, n_genes=12, seed=0):
    """Log expression of shape (n, n_genes), with patients and genes named."""
    values = np.random.default_rng(seed).normal(5, 1, size=(n, n_genes))
    names = [f"P{i}" for i in range(n)], [f"G{j}" for j in range(n_genes)]
    return pd.DataFrame(values, *names)


def column(*values):
    return np.array(values, dtype=float)[:, None]


def warned(frame):
    with pytest.warns(ExpressionScaleWarning) as caught:
        warn_of_outliers(frame)
    assert len(caught) == 1
    return str(caught[0].message)


def assert_silent(frame):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_outliers(frame)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_check_estimator_passes_every_check():
    results = check_estimator(ExpressionClipper())
    assert [r["check_name"] for r in results if r["status"] not in ("passed", "skipped")] == []


def test_deviation_by_hand():
    values = column(*range(-10, 11), 1e9)  # median .5, distances .5 to 10.5 and 1e9
    median, deviation = robust_deviation(values)
    assert median[0] == 0.5
    np.testing.assert_allclose(deviation[0], 9.5 / 1.6448536, rtol=1e-6)  # the 19th of 22


@pytest.mark.parametrize("n", [1, 2, 7, 8])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_deviation_is_from_the_median_of_numpy_and_leaves_values_as_they_are(n, dtype):
    values = np.random.default_rng(n).normal(size=(n, 20)).astype(dtype)
    given = values.copy()
    median, deviation = robust_deviation(values)
    np.testing.assert_array_equal(median, np.median(values.astype(np.float64), axis=0))
    distance = np.sort(np.abs(values.astype(np.float64) - median), axis=0)
    differing = (distance > 0).sum(axis=0)
    place = np.where(differing < 5, n - 1, n - differing + 9 * (differing - 1) // 10)
    np.testing.assert_array_equal(deviation, distance[place, np.arange(20)] / ndtri(0.95))
    np.testing.assert_array_equal(values, given)


def test_deviation_of_a_normal_gene_is_its_standard_deviation():
    values = np.random.default_rng(0).normal(3, 2, size=(20_000, 1))
    assert robust_deviation(values)[1][0] == pytest.approx(2, rel=0.03)


@pytest.mark.parametrize("n", [11, 20, 50, 200])
def test_deviation_is_kept_by_less_than_a_tenth_of_outliers(n):
    values = ndtri((np.arange(n) + 0.5) / n)  # as normal as n values can be
    values[: (n - 1) // 10] = 1e30
    assert 0.7 < robust_deviation(values[:, None])[1][0] < 2


@pytest.mark.parametrize(
    ("values", "clipped"),
    [
        ([0] * 95 + [3, 4, 5, 6, 8], [0] * 95 + [3, 4, 5, 6, 8]),  # expressed in a few: unchanged
        ([0] * 195 + [1] * 5, [0] * 195 + [1] * 5),  # a rare mutation
        ([0] * 199 + [1], [0] * 199 + [1]),
        ([2.5] * 20, [2.5] * 20),
        ([0] * 94 + [3, 4, 5, 6, 8, 4e4], [0] * 94 + [3, 4, 5, 6, 8, 6 * 8 / 1.6448536]),
    ],
)
def test_gene_of_which_most_values_are_equal_keeps_its_few_others(values, clipped):
    np.testing.assert_allclose(clip_outliers(column(*values)), column(*clipped), rtol=1e-6)


def test_values_inside_the_limits_are_unchanged_and_keep_their_type():
    values = expression().to_numpy(np.float32)
    values[:, 3] = np.repeat([0.0, 8.0], 100)  # two states
    values[:, 4] = np.abs(np.random.default_rng(1).normal(size=200))
    out = ExpressionClipper().fit_transform(values)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, values)


def test_limits_are_those_of_fit_in_any_order_of_patients():
    frame = expression()
    clipper = ExpressionClipper(limit=3).fit(frame)
    shuffled = ExpressionClipper(limit=3).fit(frame.sample(frac=1, random_state=0))
    np.testing.assert_array_equal(clipper.deviation_, shuffled.deviation_)
    far = frame.iloc[:2].add([1e30, -4e4], axis=0)
    bound = 3 * clipper.deviation_
    np.testing.assert_allclose(clipper.transform(far)[0], clipper.median_ + bound)
    np.testing.assert_allclose(clipper.transform(far)[1], clipper.median_ - bound)


def test_gene_that_is_constant_in_fit_stays_so():
    clipper = ExpressionClipper().fit(column(*[2.0] * 9))
    np.testing.assert_array_equal(clipper.transform(column(2, 4e4)), column(2, 2))


@pytest.mark.parametrize("limit", [0, -1, "6"])
def test_limit_that_is_no_positive_number_raises(limit):
    with pytest.raises(ValueError, match="limit"):
        ExpressionClipper(limit=limit).fit(column(1, 2))


@pytest.mark.parametrize("outlier", [4e4, -4e4, 1e30])
@pytest.mark.parametrize("n", [12, 200])
def test_default_transformer_scales_the_other_patients_as_without_the_outlier(outlier, n):
    frame, y = expression(n), np.arange(n) % 2
    clean = StandardScaler().fit_transform(frame)
    frame.iloc[5, 2] = outlier
    out = default_omics_transformer(99).fit_transform(frame, y)
    assert np.abs(out).max() < 7
    others = np.arange(n) != 5
    assert np.corrcoef(out[others, 2], clean[others, 2])[0, 1] > 0.999
    assert out[others, 2].std() > 0.4  # 0.0001 where the outlier sets the scale


def test_default_transformer_on_clean_data_is_selection_and_scaling_to_the_bit():
    frame = expression().astype(np.float32)
    out = default_omics_transformer(99).fit_transform(frame, np.arange(200) % 2)
    np.testing.assert_array_equal(out, StandardScaler().fit_transform(frame.to_numpy()))


def test_warning_names_gene_and_patient():
    frame = expression()
    frame.iloc[7, 3] = 36893.3
    message = warned(frame)
    assert "value 36893.3 of gene 'G3' for patient 'P7'" in message
    assert f"(median {frame['G3'].median():g})" in message
    assert "more" not in message


def test_warning_counts_further_values_and_patients():
    frame = expression()
    frame.iloc[7, 3], frame.iloc[8, :2], frame.iloc[9, 5] = 1e30, 4e4, -4e4
    message = warned(frame)
    assert "value 1e+30 of gene 'G3' for patient 'P7'" in message
    assert "So do 3 more values, of 3 patients in all." in message


def test_warning_of_a_single_value_in_a_gene_that_is_constant_otherwise():
    frame = expression()
    frame["G4"] = 0.0
    frame.iloc[0, 4] = 12.0
    assert_silent(frame)
    frame.iloc[0, 4] = 4e4
    assert "gene 'G4' for patient 'P0'" in warned(frame)


def test_warning_of_counts_goes_by_their_logarithm():
    counts = pd.DataFrame(np.random.default_rng(0).negative_binomial(2, 0.01, size=(100, 30)))
    counts.iloc[3, 4] *= 1000
    assert_silent(counts)
    counts.iloc[3, 4] = 2**50
    assert "gene 4 for patient 3" in warned(counts)


@pytest.mark.parametrize("n", [15, 200])
def test_warning_of_patients_in_another_unit_or_library_size(n):
    frame = expression(n)
    frame.iloc[2] = np.round(2 ** frame.iloc[2] * 3)  # counts among logarithms
    assert "expression of 1 patients is unlike" in warned(frame)
    assert "'P2'" in warned(frame)
    counts = np.round(2 ** expression(n, 40) * 8)
    counts.iloc[4] *= 1000
    assert "'P4'" in warned(counts)


@pytest.mark.parametrize("n", [1, 2, 3, 6, 15, 200])
def test_no_warning_of_ordinary_expression(n):
    for seed in range(5):
        assert_silent(expression(n, seed=seed))
        assert_silent(np.round(2 ** expression(n, seed=seed)))
        assert_silent(pd.DataFrame(np.random.default_rng(seed).integers(2, size=(n, 9))))
        assert_silent(expression(n, seed=seed) - 5)


def in_two_units(other, n=24, n_genes=80):
    """Counts of the first half of the patients, and `other` of counts of the second half."""
    random = np.random.default_rng(0)
    counts = random.poisson(random.lognormal(4, 1, size=(n, n_genes))).astype(float)
    values = np.where(np.arange(n)[:, None] < n // 2, counts, other(counts))
    return pd.DataFrame(values, [f"P{i}" for i in range(n)], [f"G{j}" for j in range(n_genes)])


@pytest.mark.parametrize(
    "other",
    [lambda x: np.log2(x + 1), lambda x: (x - x.mean(axis=0)) / x.std(axis=0), lambda x: x * 100.5],
    ids=["log2", "z-scores", "scaled"],
)
def test_warning_of_half_of_the_patients_in_another_unit(other):
    said = warned(in_two_units(other))
    assert "12 patients are of another size" in said
    assert "'P12', 'P13'" in said or "'P0', 'P1'" in said


def test_warning_of_a_patient_without_any_value():
    frame = in_two_units(lambda x: x)
    assert_silent(frame)
    said = warned(frame * (frame.index != "P3")[:, None])
    assert "All values are 0 for 1 patients" in said
    assert "unlike" not in said


def test_expression_in_which_no_gene_differs_raises():
    check_expression(expression(3))
    check_expression(expression(1))
    with pytest.raises(OmicsError, match=r"No gene differs between the 5 training patients.*'G0'"):
        check_expression(expression(5) * 0)


@pytest.mark.parametrize("by", [ABMILClassifier(lambda_teacher=0.5), PrivilegedClassifier(POOLED)])
def test_classifiers_with_a_teacher_alone_look_at_the_expression(by):
    bags = [Bag(np.eye(2) + i, patient_id=f"P{i}") for i in range(6)]
    with pytest.raises(OmicsError, match="No gene differs"):
        by.fit(bags, [0, 1] * 3, omics=expression(6) * 0)
