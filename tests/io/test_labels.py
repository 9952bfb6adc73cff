"""Labels of a column: classes are named or alone, missing and excluded are two things."""

import h5py
import numpy as np
import pandas as pd
import pytest

from sk_momkd import load_cohort
from sk_momkd.exceptions import CohortError, CohortWarning
from sk_momkd.io.labels import map_labels, parse_text


def labels_of(values, positive=None, negative=None):
    return map_labels(pd.Series(values, dtype=object), positive, negative, "her2")


def in_file(tmp_path, values, name="slides.csv"):
    """A cohort whose table is a file with these labels, as they are written."""
    slides = [f"S{i}" for i in range(len(values))]
    for slide in slides:
        with h5py.File(tmp_path / f"{slide}.h5", "w") as file:
            file["features"] = np.ones((2, 3))
    table = pd.DataFrame({"slide_id": slides, "case_id": slides, "her2": values})
    if name.endswith("xlsx"):
        table.to_excel(tmp_path / name, index=False)
    else:
        table.to_csv(tmp_path / name, index=False)
    return tmp_path / name, tmp_path


@pytest.mark.parametrize("name", ["slides.csv", "slides.tsv", "slides.xlsx"])
def test_word_none_is_a_class_in_every_kind_of_table(tmp_path, name):
    values = ["High", "None", "None", "High"]
    path, folder = in_file(tmp_path, values, "slides.csv" if name != "slides.xlsx" else name)
    if name == "slides.tsv":
        path = path.rename(tmp_path / name)
        path.write_text(path.read_text().replace(",", "\t"))
    assert load_cohort(path, folder, label="her2").y.tolist() == values
    assert load_cohort(path, folder, label="her2", positive="High").y.tolist() == [1, 0, 0, 1]
    frame = pd.read_csv(path, sep="\t") if name == "slides.tsv" else None
    assert frame is None or frame["her2"].isna().sum() == 2  # what pandas makes of it


@pytest.mark.parametrize("word", ["NA", "N/A", "nan", "NULL", "<NA>", "#N/A"])
def test_words_for_missing_are_missing_and_said(tmp_path, word):
    path, folder = in_file(tmp_path, ["+", word, "-"])
    with pytest.warns(
        CohortWarning, match=f"1 no label in 'her2', but '{word}'; the first is 'S1'"
    ):
        cohort = load_cohort(path, folder, label="her2", positive="+")
    assert cohort.y.tolist() == [1, 0]
    mapped = load_cohort(path, folder, label="her2", positive={"+": 1, "-": 0, word: 0})
    assert mapped.y.tolist() == [1, 0, 0]
    assert load_cohort(path, folder, label="her2", positive="+", negative=["-", word]).y.tolist() \
        == [1, 0, 0]  # fmt: skip


MISSING_AT_GDC = ["Not Reported", "[Not Available]", "--", "not evaluated", "Indeterminate", "'--"]


@pytest.mark.parametrize("other", MISSING_AT_GDC)
def test_third_value_is_never_negative_by_itself(other):
    values = ["Positive", "Negative", "Negative", other]
    said = (
        r"holds 'Negative' \(2\), 'Positive' \(1\), .* \(1\); with positive='Positive'.*negative="
    )
    with pytest.raises(CohortError, match=said):
        labels_of(values, "Positive")
    named = labels_of(values, "Positive", "Negative")
    assert named.values.tolist() == [1, 0, 0, None]
    assert named.status.iloc[3] == f"excluded by its label {other!r} in 'her2'"


@pytest.mark.parametrize("other", ["Not Reported", "unknown", "[Not Evaluated]", "equivocal", "?"])
def test_unknown_as_the_only_other_value_needs_negative(other):
    with pytest.raises(CohortError, match="but is no negative"):
        labels_of(["Positive", other], "Positive")
    assert labels_of(["Positive", other], "Positive", other).values.tolist() == [1, 0]


def test_several_positives_and_negatives_are_named():
    labels = labels_of(["3+", "2+", "1+", "0", "x"], ["3+", "2+"], ["1+", "0"])
    assert labels.values.tolist() == [1, 1, 0, 0, None]
    assert labels_of(["3+", "2+", "0"], ["3+", "2+"]).values.tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("positive", "negative", "said"),
    [
        ("positive", None, r"'Positive' \(2\), 'Negative' \(1\); none of them is positive='pos"),
        ("Positive", "negative", "none of them is negative='negative'"),
        ("Positive", ["Positive"], "'Positive' would be both positive and negative"),
        (None, "Negative", "negative='Negative' needs positive="),
        ({"Positive": 1, "Negative": 0}, "Negative", "negative= is for a positive= that is"),
        ({"Positive": 1}, None, r"does not map: 'Negative' \(1\)"),
    ],
)
def test_values_that_are_not_there_raise_with_counts(positive, negative, said):
    with pytest.raises(CohortError, match=said):
        labels_of(["Positive", "Positive", "Negative"], positive, negative)


@pytest.mark.parametrize(
    "values", [["1", "1.0"], ["1", 1], ["01", "1"], [True, "True"], ["a", "A "]]
)
def test_one_value_in_two_ways_raises_with_types(values):
    with pytest.raises(CohortError, match=r"holds both .* \((str|bool)\) and .* \((str|int)\)"):
        labels_of([*values, "0"])
    mapped = labels_of([*values, "0"], dict.fromkeys(values, 1) | {"0": 0})
    assert mapped.values.tolist() == [1, 1, 0]


@pytest.mark.parametrize("positive", [1, "1", 1.0, "1.0"])
@pytest.mark.parametrize("values", [["1", "0"], ["1.0", "0.0"], [1, 0], [1.0, 0.0]])
def test_numbers_are_compared_as_numbers(values, positive):
    assert labels_of(values, positive).values.tolist() == [1, 0]
    assert labels_of(values, {positive: "yes", 0: "no"}).values.tolist() == ["yes", "no"]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (["1", "", "0"], [1, "", 0]),
        (["1.0", "", "0.0"], [1, "", 0]),
        (["0.5", "NA", "2"], [0.5, "NA", 2.0]),
        (["TRUE", "", "false"], [True, None, False]),
        (["01", "02"], ["01", "02"]),
        (["1", "1.0"], ["1", "1.0"]),
        (["1", "x"], ["1", "x"]),
        (["inf", "1"], ["inf", "1"]),
        (["", ""], ["", ""]),
    ],
)
def test_text_of_a_file_is_numbers_where_all_of_it_is(written, expected):
    parsed = parse_text(pd.Series(written)).tolist()
    assert [None if pd.isna(v) else v for v in parsed] == expected
    assert [type(v) for v in parsed if v == v] == [type(v) for v in expected if v is not None]


def test_excluded_and_missing_are_two_things_in_report_warning_and_status(tmp_path):
    path, folder = in_file(tmp_path, ["Positive", "Negative", "Equivocal", None])
    mapping = {"Positive": 1, "Negative": 0, "Equivocal": None}
    said = r"1 excluded by its label 'Equivocal' in 'her2', 1 no label in 'her2'"
    with pytest.warns(CohortWarning, match=said):
        cohort = load_cohort(path, folder, label="her2", positive=mapping)
    assert cohort.y.tolist() == [1, 0]
    printed = str(cohort.report).splitlines()
    assert "1 left out, excluded by its label 'Equivocal' in 'her2': 'S2'" in printed
    assert "1 left out, no label in 'her2': 'S3'" in printed


def test_labels_of_a_file_have_the_type_of_their_values(tmp_path):
    path, folder = in_file(tmp_path, ["1.0", "", "0.0"])
    with pytest.warns(CohortWarning, match="1 no label"):
        y = load_cohort(path, folder, label="her2").y
    assert y.tolist() == [1, 0]
    assert y.dtype.kind == "i"


def test_cohort_without_labels_holds_every_slide(tmp_path):
    path, folder = in_file(tmp_path, ["+", "", "Equivocal"])
    bags, y, omics, report = load_cohort(path, folder, label=None)
    assert bags.ids.tolist() == ["S0", "S1", "S2"]
    assert y is None
    assert omics is None
    assert str(report).startswith("3 of 3 slides in use, 3 patients, no labels")
    table = pd.read_csv(path)[["slide_id", "case_id"]].assign(case_id=["A", "A", "B"], site="x")
    cohort = load_cohort(table, folder, label=None, unit="patient", site="site")
    assert cohort.bags.ids.tolist() == ["A", "B"]
    assert cohort.y is None
    assert cohort.report.by_site().to_numpy().tolist() == [[3]]


def test_masked_and_nullable_columns_keep_their_missing_values():
    nullable = pd.Series([1, None, 0], dtype="Int64")
    assert map_labels(nullable, None, None, "er").values.dropna().tolist() == [1, 0]
    category = pd.Series(["+", np.nan, "-"], dtype="category")
    assert map_labels(category, "+", None, "er").values.dropna().tolist() == [1, 0]


def test_codes_of_many_digits_are_told_apart():
    codes = pd.Series(["254837009", "254837001", "254837009"])
    mapped = map_labels(parse_text(codes), {"254837009": 1, "254837001": 0}, None, "code")
    assert mapped.values.tolist() == [1, 0, 1]
    assert map_labels(parse_text(codes), None, None, "code").values.nunique() == 2


def test_true_and_false_are_named_in_any_case():
    values = parse_text(pd.Series(["TRUE", "FALSE"]))
    assert map_labels(values, "TRUE", None, "mutated").values.tolist() == [1, 0]


def test_categorical_columns_are_read_as_their_values(tmp_path):
    path, folder = in_file(tmp_path, ["+", "-", "+", "-"])
    frame = pd.read_csv(path).astype("category")
    assert load_cohort(frame, folder, label="her2", positive="+").y.tolist() == [1, 0, 1, 0]
    assert load_cohort(frame, folder, label="her2").y.tolist() == ["+", "-", "+", "-"]


@pytest.mark.parametrize("several", [np.array, pd.Index, pd.Series])
def test_values_of_a_class_may_be_in_an_array(several):
    found = labels_of(["3+", "2+", "0"], several(["3+", "2+"]), several(["0"]))
    assert found.values.tolist() == [1, 1, 0]
