"""Memory usage per epoch of one run, several runs and an ensemble."""

import numpy as np
import pytest
from conftest import make_bags, quick_classifier
from matplotlib.figure import Figure

from sk_momkd import (
    MemoryUsageDisplay,
)


def test_memory_of_one_run_has_a_line_per_class(demo):
    model = demo.result.models[0]
    ever, active, perplexity = MemoryUsageDisplay.from_estimator(model).axes_
    history = model[-1].history_
    for panel, column in ((ever, "memory_ever_used"), (active, "memory_active_ratio")):
        np.testing.assert_array_equal(panel.lines[0].get_ydata(), history[column].to_numpy())
        assert "paper: more than 75 %" in panel.get_legend_handles_labels()[1]
    labels = perplexity.get_legend_handles_labels()[1]
    assert len([label for label in labels if label.startswith("class ")]) == 2
    assert labels[-1] == "validation part"


def test_memory_of_several_runs_has_their_geometric_mean(demo):
    runs = {f"fold {i}": m for i, m in enumerate(demo.result.models[:2])}
    display = MemoryUsageDisplay.from_estimator(runs)
    history = demo.result.models[0][-1].history_
    columns = [c for c in history if c.startswith("memory_perplexity_")]
    expected = np.sqrt(history[columns[0]] * history[columns[1]])
    np.testing.assert_allclose(display.axes_[2].lines[0].get_ydata(), expected)
    labels = display.axes_[2].get_legend_handles_labels()[1]
    assert labels[:2] == ["fold 0", "fold 1"]


def test_memory_of_an_ensemble_is_that_of_its_first_model():
    bags, y = make_bags()
    clf = quick_classifier(n_models=2, max_epochs=2, early_stopping=False).fit(bags, y)
    _, active, _ = MemoryUsageDisplay.from_estimator(clf).axes_
    assert len(clf.history_) == 4
    assert active.lines[0].get_xdata().tolist() == [1, 2]


def test_memory_in_one_axes_is_refused(demo):
    with pytest.raises(ValueError, match="ax must hold 3 axes, got 1"):
        MemoryUsageDisplay.from_estimator(demo.result.models[0], ax=Figure().subplots())
