"""Displays of results draw into new or given axes."""

import pandas as pd
import pytest
from matplotlib.figure import Figure

from sk_momkd import (
    ConfusionDisplay,
    DecisionCurveDisplay,
    PRDisplay,
    ReliabilityDisplay,
    ROCDisplay,
)

OF_RESULT = (
    ROCDisplay,
    PRDisplay,
    ReliabilityDisplay,
    DecisionCurveDisplay,
    ConfusionDisplay,
)


@pytest.mark.parametrize("display", OF_RESULT)
def test_display_of_a_result_draws_into_new_or_given_axes(demo, display):
    new = display.from_result(demo.result)
    assert new.figure_.axes[0] is new.ax_
    ax = Figure().subplots()
    given = display.from_result(demo.result, ax=ax)
    assert given.ax_ is ax
    assert ax.get_xlabel()
    assert given.plot().ax_ is not ax


@pytest.mark.parametrize("display", OF_RESULT)
def test_display_of_something_else_says_what_it_expects(display):
    with pytest.raises((TypeError, ValueError), match="Expected the result of evaluate"):
        display.from_result(pd.DataFrame({"classes": [0]}))
