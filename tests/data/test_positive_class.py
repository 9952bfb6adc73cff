"""The positive one of two classes: chosen, default, and names that mean the other one."""

import warnings

import numpy as np
import pytest

from sk_momkd.data.positive_class import means_the_first, positive_class
from sk_momkd.data.validation import network_order

AMBIGUOUS = [
    ("HER2+", "HER2-"),
    ("HER2 (+)", "HER2 (\N{MINUS SIGN})"),
    ("HER2+/ER-", "HER2-/ER-"),
    ("mut", "wt"),
    ("TP53_mut", "TP53_wt"),
    ("BRAF mutated", "BRAF wild type"),
    ("TP53mut", "TP53wt"),
    ("high", "low"),
    ("ROR-high", "ROR-low"),
    ("H", "L"),
    ("Yes", "no"),
    ("Y", "n"),
    ("Positive", "negative"),
    ("Pos", "neg"),
    ("Present", "absent"),
    ("Responder", "non-responder"),
    ("responder", "unresponsive"),
    ("True", "false"),
    ("case", "control"),
    ("MSI-H", "MSS"),
    ("amplified", "not amplified"),
    ("ja", "nein"),
    ("hoch", "niedrig"),
    ("mutiert", "wildtyp"),
    ("alto", "bajo"),
]
CLEAR = [
    ("negative", "positive"),
    ("HER2neg", "HER2pos"),
    ("wt", "zz_mut"),
    ("no", "yes"),
    ("absent", "present"),
    ("non-responder", "responder"),
    ("falsch", "wahr"),
    ("non", "oui"),
    ("faux", "vrai"),
    ("no", "s\u00ed"),
    ("LUAD", "LUSC"),
    ("A", "B"),
    ("N", "T"),
    ("grade 1", "grade 3"),
    (0, 1),
    (-1, 1),
    (False, True),
]


@pytest.mark.parametrize("pair", AMBIGUOUS, ids=" ".join)
def test_name_that_means_positive_sorts_first_warns_with_both_ways_out(pair):
    first, last = sorted(pair)
    with pytest.warns(UserWarning, match="sorts last") as caught:
        assert positive_class([first, last]) == last
    assert f"pos_label={first!r}" in str(caught[0].message)
    assert f"pos_label={last!r}" in str(caught[0].message)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("pair", CLEAR, ids=str)
def test_other_pairs_do_not_warn(pair):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert positive_class(sorted(pair)) == max(pair)
    assert not means_the_first(*sorted(pair))


@pytest.mark.parametrize("chosen", ["HER2+", "HER2-"])
def test_chosen_label_does_not_warn(chosen):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert positive_class(["HER2+", "HER2-"], chosen) == chosen


@pytest.mark.parametrize(
    ("classes", "pos_label", "message"),
    [
        ([0, 1], "1", r"pos_label='1' is no class of y. The classes are 0, 1."),
        (["a", "b"], "c", "classes are 'a', 'b'"),
        (["a", "b", "c"], "c", "two classes, but there are 3: 'a', 'b', 'c'"),
    ],
)
def test_unknown_label_or_a_third_class_lists_the_classes(classes, pos_label, message):
    with pytest.raises(ValueError, match=message):
        positive_class(classes, pos_label)


def test_three_classes_have_no_positive_one():
    assert positive_class(["high", "low", "medium"]) is None


@pytest.mark.parametrize(
    ("classes", "positive", "order"),
    [(["a", "b"], "a", [1, 0]), (["a", "b"], "b", [0, 1]), (["a", "b", "c"], None, [0, 1, 2])],
)
def test_network_order_puts_the_positive_class_last(classes, positive, order):
    assert network_order(np.array(classes), positive).tolist() == order
