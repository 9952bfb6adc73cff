"""Maps of memory components: values, best matches and refusals."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from sk_momkd import (
    Bag,
    ComponentMapDisplay,
    PrototypeDisplay,
    choose_components,
    memory_usage,
    patch_affinities,
)
from sk_momkd.exceptions import BagError

PAIRS = [("indolent", 1), ("indolent", 0)]


@pytest.fixture
def model(demo):
    return demo.result.models[0]


def test_map_of_a_component_shows_its_cosines_and_outlines_the_best(demo, model):
    bag = demo.bags[2]
    display = ComponentMapDisplay.from_estimator(model, bag, PAIRS, n_top=2)
    affinities = patch_affinities(model, demo.bags[2:3])
    for panel, (label, j) in zip(display.axes_, PAIRS, strict=True):
        expected = affinities[:, affinities.var_names == f"memory_{label}_{j}"].X.ravel()
        values, top = panel.collections
        np.testing.assert_allclose(values.get_array(), expected, rtol=1e-6)
        best = affinities.obsm["spatial"][np.argsort(-expected, kind="stable")[:2]]
        corners = [path.vertices.min(axis=0) for path in top.get_paths()]
        np.testing.assert_allclose(corners, best)
    titles = [panel.get_title() for panel in display.axes_]
    assert titles == ["class indolent, component 1", "class indolent, component 0"]


def test_map_takes_chosen_components_and_axes(demo, model):
    chosen = choose_components(memory_usage(model, demo.bags, demo.y))
    panels = Figure().subplots(1, 2)
    display = ComponentMapDisplay.from_estimator(model, demo.bags[2], chosen, ax=panels)
    assert list(panels) == display.axes_


def test_map_of_what_is_not_there_is_refused(demo, model):
    for pairs, message in (
        ([("indolent", 99)], "no component 99 of class 'indolent'"),
        ([("nothing", 0)], "no component 0 of class 'nothing'"),
        ([], "components is empty"),
    ):
        with pytest.raises(ValueError, match=message):
            ComponentMapDisplay.from_estimator(model, demo.bags[2], pairs)
    bare = Bag(np.asarray(demo.bags[2].features), bag_id="bare")
    with pytest.raises(BagError, match="bare"):
        ComponentMapDisplay.from_estimator(model, bare, PAIRS)


def test_prototypes_of_chosen_components_are_those_alone(demo, model):
    display = PrototypeDisplay.from_estimator(model, demo.bags[:3], n=2, components=PAIRS)
    assert display.patches["component"].to_list() == [1, 1, 0, 0]
    with pytest.raises(ValueError, match="no component 99"):
        PrototypeDisplay.from_estimator(model, demo.bags[:3], components=[("indolent", 99)])
