"""Displays of results and of the memory: what is drawn is what was measured."""

import numpy as np
import pandas as pd
import pytest
from conftest import make_bags, quick_classifier
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score

from sk_momkd import (
    AttentionMapDisplay,
    Bag,
    BagPooling,
    BagSequence,
    ConfusionDisplay,
    DecisionCurveDisplay,
    GeneAttributionDisplay,
    MemoryUsageDisplay,
    PRDisplay,
    PrototypeDisplay,
    ReliabilityDisplay,
    ROCDisplay,
    evaluate,
    top_patches,
)
from sk_momkd.data.arrays import BagArrays
from sk_momkd.data.bag import BagInfo
from sk_momkd.exceptions import BagError
from sk_momkd.reporting.displays.curves import Curve
from sk_momkd.reporting.displays.decisions import net_benefit
from sk_momkd.reporting.displays.prototypes import image_of
from sk_momkd.reporting.displays.style import COLOURS
from sk_momkd.reporting.predicted import predicted

OF_RESULT = (
    ROCDisplay,
    PRDisplay,
    ReliabilityDisplay,
    DecisionCurveDisplay,
    ConfusionDisplay,
)


@pytest.fixture(scope="module")
def three_classes():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    random, y = np.random.default_rng(0), np.arange(36) % 3
    bags = BagSequence(
        Bag(random.normal(size=(5, 3)) + np.eye(3)[c], patient_id=f"P{i}") for i, c in enumerate(y)
    )
    return evaluate(make_pipeline(BagPooling(), LogisticRegression()), bags, y, n_bootstrap=20)


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


def test_roc_has_a_curve_per_repeat_with_its_area_and_the_interval(demo):
    display = ROCDisplay.from_result(demo.result)
    ((label, curves),) = display.curves.items()
    expected = [roc_auc_score(p.y, p.proba[:, 1]) for p in predicted(demo.result)]
    assert [c.area for c in curves] == pytest.approx(expected)
    row = demo.result.summary.loc["auroc"]
    assert label == f"AUROC {row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
    x, y = display.ax_.lines[0].get_data()
    assert np.trapezoid(y, x) == pytest.approx(expected[0])


def test_roc_and_pr_of_three_classes_have_a_curve_each(three_classes):
    assert len(ROCDisplay.from_result(three_classes).curves) == 3
    labels = list(PRDisplay.from_result(three_classes).curves)
    assert [label.split(",")[0] for label in labels] == [f"{c} against the rest" for c in range(3)]


def test_reliability_bins_hold_all_patients_and_give_the_calibration_error(demo):
    display = ReliabilityDisplay.from_result(demo.result)
    assert display.count.sum() == 20
    one = evaluate_first_repeat(demo.result)
    gap = np.abs(one.stated - one.observed) @ one.count / 20
    first = predicted(demo.result)[0]
    bins = np.clip((first.proba[:, 1] * 10).astype(int), 0, 9)
    excess = np.bincount(bins, first.proba[:, 1] - first.y)
    assert gap == pytest.approx(np.abs(excess).sum() / 20)


def evaluate_first_repeat(result):
    import dataclasses

    table = result.predictions
    alone = dataclasses.replace(result, predictions=table[table["repeat"] == 0])
    return ReliabilityDisplay.from_result(alone)


def test_decision_curve_by_hand_and_its_marks():
    positive = np.array([True, True, False, False])
    proba = np.array([0.9, 0.4, 0.6, 0.1])
    found = net_benefit(positive, proba, np.array([0.2, 0.5, 0.8]))
    np.testing.assert_allclose(found, [2 / 4 - 1 / 4 * 0.25, 1 / 4 - 1 / 4, 1 / 4])


def test_decision_curve_of_all_crosses_zero_at_the_share_of_positives(demo):
    display = DecisionCurveDisplay.from_result(demo.result)
    crossing = display.thresholds[np.argmin(np.abs(display.everyone))]
    assert crossing == pytest.approx(0.5, abs=0.011)
    assert set(display.chosen) == set(demo.result.folds["threshold"])


def test_decision_curve_of_three_classes_is_refused(three_classes):
    with pytest.raises(ValueError, match="needs two classes, the result has 3"):
        DecisionCurveDisplay.from_result(three_classes)


def test_confusion_counts_are_the_tuned_decisions(demo, three_classes):
    counts = ConfusionDisplay.from_result(demo.result).counts
    table = demo.result.predictions
    right = (table["y"] == table["predicted_tuned"]).sum() / 2  # repeats
    assert counts.trace() == right
    assert counts.sum() == 20
    untuned = ConfusionDisplay.from_result(three_classes)
    assert untuned.note == "the most probable class"
    assert untuned.counts.sum() == 36


def test_memory_of_one_run_has_a_line_per_class(demo):
    model = demo.result.models[0]
    active, perplexity = MemoryUsageDisplay.from_estimator(model).axes_
    history = model[-1].history_
    np.testing.assert_array_equal(
        active.lines[0].get_ydata(), history["memory_active_ratio"].to_numpy()
    )
    labels = perplexity.get_legend_handles_labels()[1]
    assert len([label for label in labels if label.startswith("class ")]) == 2
    assert labels[-1] == "validation part"


def test_memory_of_several_runs_has_their_geometric_mean(demo):
    runs = {f"fold {i}": m for i, m in enumerate(demo.result.models[:2])}
    display = MemoryUsageDisplay.from_estimator(runs)
    history = demo.result.models[0][-1].history_
    columns = [c for c in history if c.startswith("memory_perplexity_")]
    expected = np.sqrt(history[columns[0]] * history[columns[1]])
    np.testing.assert_allclose(display.axes_[1].lines[0].get_ydata(), expected)
    labels = display.axes_[1].get_legend_handles_labels()[1]
    assert labels[:2] == ["fold 0", "fold 1"]


def test_memory_of_an_ensemble_is_that_of_its_first_model():
    bags, y = make_bags()
    clf = quick_classifier(n_models=2, max_epochs=2, early_stopping=False).fit(bags, y)
    active, _ = MemoryUsageDisplay.from_estimator(clf).axes_
    assert len(clf.history_) == 4
    assert active.lines[0].get_xdata().tolist() == [1, 2]


def test_memory_in_one_axes_is_refused(demo):
    with pytest.raises(ValueError, match="ax must hold 2 axes, got 1"):
        MemoryUsageDisplay.from_estimator(demo.result.models[0], ax=Figure().subplots())


def test_prototype_pictures_mark_the_patch_in_its_slide(demo):
    model, bags = demo.result.models[0], demo.bags[:4]
    display = PrototypeDisplay.from_estimator(model, bags, n=2)
    best = top_patches(model, bags, n=2)
    assert len(display.pictures) == len(best) == 16
    place = {bag.bag_id: bag for bag in bags}
    for row, picture in zip(best.to_dict("records"), display.pictures, strict=True):
        coords = place[row["bag_id"]].coords
        low, width = coords.min(axis=0), np.ptp(coords, axis=0).max() + 512
        marked = np.argwhere((picture == (213, 94, 0)).all(axis=2)).mean(axis=0)[::-1] + 0.5
        expected = (np.array([row["x"], row["y"]]) - low + 256) * len(picture) / width
        assert np.abs(marked - expected).max() < 1.5


def test_prototype_pictures_are_cut_from_the_slide(data_folder, demo):
    image = data_folder / "wsi" / "CMU-1-Small-Region.svs"
    features = np.random.default_rng(0).normal(size=(12, 8))
    coords = np.array([[x, y] for y in range(3) for x in range(4)]) * 512
    bags = BagSequence([Bag(features, coords, bag_id="CMU")])
    display = PrototypeDisplay.from_estimator(
        demo.result.models[0], bags, n=1, images={"CMU": image}
    )
    from sk_momkd.reporting.displays.slide_image import open_slide

    first = display.patches.iloc[0]
    expected = open_slide(image).patch(first["x"], first["y"], 512, len(display.pictures[0]))
    np.testing.assert_array_equal(display.pictures[0], expected)


def test_prototypes_in_micrometres_are_cut_with_the_resolution_that_is_given(demo):
    from PIL import Image

    cut = []

    class Picture:
        dimensions, properties, level_downsamples = (4096, 4096), {}, (1.0,)

        def get_best_level_for_downsample(self, downsample):
            return 0

        def read_region(self, corner, level, size):
            cut.append((corner, size))
            return Image.new("RGBA", size)

    class Source:
        shape = (1, 8)

        def read(self):
            return BagArrays(np.ones((1, 8)), np.array([[256.0, 128.0]]), None)

        def info(self):
            return BagInfo("custom", unit="um", patch_size=128.0)

    bags = BagSequence([Bag(Source(), bag_id="S")])
    given = {"n": 1, "images": {"S": Picture()}}
    PrototypeDisplay.from_estimator(demo.result.models[0], bags, mpp=0.25, **given)
    assert set(cut) == {((1024, 512), (512, 512))}
    with pytest.raises(BagError, match=r"does not tell its resolution.*Give mpp="):
        PrototypeDisplay.from_estimator(demo.result.models[0], bags, **given)


def test_picture_of_an_id_too_long_for_a_file_is_none(tmp_path):
    (tmp_path / "S.svs").touch()
    assert image_of("S", tmp_path) == tmp_path / "S.svs"
    assert image_of("S" * 400, tmp_path) is None


def test_names_of_users_are_drawn_as_they_are_and_never_as_formulas(tmp_path):
    hostile = r"$\frac{$"
    tables = {
        "gene": [hostile, "_x"],
        "mean_abs": [2.0, 1.0],
        "direction__wt": [0.9, -0.4],
        f"direction_{hostile}": [-0.9, 0.4],
    }
    history = pd.DataFrame({"epoch": [1], "memory_active_ratio": 1, "memory_perplexity_0": 1})
    history[f"memory_perplexity_{hostile}"] = 1
    patches = pd.DataFrame({"class": hostile, "component": [0], "rank": 1, "affinity": 0.5})
    cell = np.zeros((88, 88, 3), dtype=np.uint8)
    curve = Curve(x=[0, 1], y=[0, 1], area=0.5, share=0.5)
    for display in (
        genes := GeneAttributionDisplay(pd.DataFrame(tables)).plot(),
        MemoryUsageDisplay({hostile: history, "_run": history}).plot(),
        MemoryUsageDisplay({"run": history}).plot(),
        PrototypeDisplay(patches, [cell]).plot(),
        ConfusionDisplay(np.eye(2), (hostile, "_wt")).plot(),
        ROCDisplay({hostile: [curve], "_wt": [curve]}).plot(),
        AttentionMapDisplay(np.eye(2), np.ones(2), 1, label=hostile, title=hostile).plot(),
    ):
        display.figure_.savefig(tmp_path / "figure.svg")
    shown = [text.get_text().strip() for text in genes.ax_.get_legend().get_texts()]
    assert shown == ["_wt", hostile.replace("$", r"\$")]


def test_prototypes_without_coordinates_say_so(demo):
    bags = BagSequence([Bag(np.ones((3, 8)), bag_id="S")])
    with pytest.raises(BagError, match="'S' has no coordinates"):
        PrototypeDisplay.from_estimator(demo.result.models[0], bags)


def test_gene_bars_have_the_colour_of_the_class_they_pull_toward():
    genes = pd.DataFrame(
        {
            "gene": ["A", "B", "C"],
            "mean_abs": [3.0, 2.0, 1.0],
            "direction_neg": [0.9, -0.4, 0.1],
            "direction_pos": [-0.9, 0.4, -0.1],
        }
    )
    display = GeneAttributionDisplay(genes, n_genes=2).plot()
    from matplotlib.colors import to_hex

    bars = sorted(display.ax_.patches, key=lambda bar: bar.get_y())
    assert [bar.get_width() for bar in bars] == [3, 2]
    assert [to_hex(bar.get_facecolor()).upper() for bar in bars] == list(COLOURS[:2])


def test_gene_table_of_components_is_refused():
    with pytest.raises(ValueError, match="no column direction_<class>; it has gene, toward"):
        GeneAttributionDisplay(pd.DataFrame({"gene": ["A"], "toward": [1.0]})).plot()
