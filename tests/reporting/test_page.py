"""The page: its contents, escaping of names, reasons for sections that are not filled."""

import html
import re
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import make_bags
from quick import quick
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from sk_momkd import (
    BagPooling,
    InstanceStandardizer,
    compare,
    evaluate_external,
    patient_bags,
    report,
)
from sk_momkd.reporting.displays.attention_map import AttentionMapDisplay
from sk_momkd.reporting.html import model_sections
from sk_momkd.reporting.html.blocks import photograph, table

EVERYTHING = (
    "In short",
    "Cohort",
    "Results",
    "Calibration and threshold",
    "Memory during training",
)
EVERYTHING += ("Prototypes", "Attention maps", "Gene attributions", "Predictions")


@pytest.fixture(scope="module")
def page(demo_page):
    return demo_page.read_text(encoding="utf-8")


def sections(page):
    parts = re.split(r'<section id="\w+"[^>]*>', page)[1:]
    return {re.search("<h2[^>]*>(.*?)</h2>", part).group(1): part for part in parts}


def why_missing(page):
    found = {}
    for title, part in sections(page).items():
        if (line := re.search(r'<p class="missing">(.*?)</p>', part, re.DOTALL)) is not None:
            found[title] = line.group(1)
    return found


def test_page_of_an_evaluation_with_its_cohort_fills_every_section(page, demo):
    assert why_missing(page) == {}
    assert set(EVERYTHING) < set(sections(page))
    value = demo.result.summary.loc["auroc", "value"]
    assert f"<b>{value:.3f}</b>" in page
    assert sections(page)["Attention maps"].count("<img") == 3  # best, worst, unsure
    assert "20 slides in the table or in the folder" in page
    assert f"percentiles (95% of {demo.result.bootstrap.n_draws} draws, seed 0)" in page


def test_page_has_no_script_and_loads_nothing(page):
    assert "<script" not in page
    assert not re.findall(r"<(?:iframe|object|embed|base|form)\b", page)
    targets = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(targets) > 20
    assert all(t.startswith(("data:image/", "#")) or t == "data:," for t in targets)
    assert "url(" not in page
    assert "@import" not in page


def test_page_shows_names_of_users_as_text(page):
    assert "&lt;script&gt;document.title" in sections(page)["Cohort"]
    assert "&lt;img src=x onerror=" in sections(page)["Predictions"]
    assert "&lt;img src=x onerror=" in sections(page)["Attention maps"]
    assert "<img src=x" not in page
    assert "A &amp; B &lt;i&gt;fund&lt;/i&gt;" in sections(page)["Checklist for the paper"]


def test_page_written_twice_is_the_same(demo, tmp_path):
    model = demo.result.models[0]  # with a figure of its memory
    pages = [report(model, tmp_path / name, join=demo.join) for name in "ab"]
    assert b"data:image/svg" in pages[0].read_bytes()
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_page_of_a_result_alone_says_what_would_fill_the_gaps(demo, tmp_path):
    page = report(demo.result, tmp_path / "report.html").read_text(encoding="utf-8")
    missing = why_missing(page)
    assert set(missing) == {"Cohort", "Prototypes", "Attention maps", "Gene attributions"}
    assert "join=" in missing["Cohort"]
    assert "bags=" in missing["Prototypes"]
    assert "omics=" in missing["Gene attributions"]


def test_page_of_an_estimator_claims_no_performance(demo, tmp_path):
    model = demo.result.models[0]
    page = report(model, tmp_path / "r.html", bags=demo.bags, n_slides=1).read_text("utf-8")
    missing = why_missing(page)
    assert {"Results", "Calibration and threshold", "Predictions"} < set(missing)
    assert "evaluate(...)" in missing["Results"]
    assert "evaluate(...)" in missing["In short"]
    assert "AUROC" not in page
    assert sections(page)["Attention maps"].count("<img") == 1
    assert "&lt;script&gt;document.title" in sections(page)["Attention maps"]


def test_page_of_a_classifier_without_memory_or_coordinates_says_so(tmp_path):
    bags, y = make_bags()
    clf = quick("ABMILClassifier", max_epochs=1).fit([b.features for b in bags], y)
    page = report(clf, tmp_path / "r.html", bags=[b.features for b in bags]).read_text("utf-8")
    assert "ABMILClassifier has no memory" in why_missing(page)["Memory during training"]
    assert "has no coordinates" in sections(page)["Attention maps"]


def test_page_of_an_external_evaluation_shows_the_ensemble(demo, tmp_path):
    bags = demo.bags.replace(
        type(b)(b.features, b.coords, bag_id=f"X{i}", patient_id=f"X{i}")
        for i, b in enumerate(demo.bags)
    )
    external = evaluate_external(demo.result, bags, demo.y, n_bootstrap=50)
    page = report(external, tmp_path / "r.html", bags=bags).read_text(encoding="utf-8")
    assert f"<b>{external.summary.loc['auroc', 'ensemble']:.3f}</b>" in page
    assert "AUROC of the ensemble of" in page
    assert external.headline in html.unescape(page)
    assert f"AUROC {external.summary.loc['auroc', 'ensemble']:.3f}" in external.headline
    for metric in ("sensitivity", "specificity"):
        assert f"{metric} (positive class: {external.classes[1]})" in html.unescape(page)
    assert "percentiles (95% of 50 draws, seed 0)" in page
    assert "model=" in why_missing(page)["Attention maps"]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_page_of_a_comparison_is_about_the_better_method(demo, tmp_path):
    arms = {"one": quick("ABMILClassifier"), "two": quick("ABMILClassifier", max_epochs=1)}
    comparison = compare(arms, demo.bags, demo.y, cv=2, n_bootstrap=20)
    page = report(comparison, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Paired differences" in page
    assert "The rest of this page describes &#39;two&#39;" in page
    assert "keep_models=True" in why_missing(page)["Memory during training"]


def test_map_of_a_patient_is_of_its_first_slide_as_the_classifier_sees_it(monkeypatch):
    bags, y = make_bags(patients=[f"P{i // 2}" for i in range(24)])
    steps = make_pipeline(InstanceStandardizer(), quick("ABMILClassifier", max_epochs=1))
    steps.fit(patient_bags(bags), y[::2] ^ (np.arange(12) % 2))
    patient, drawn = patient_bags(bags)[0], []
    monkeypatch.setattr(
        AttentionMapDisplay, "from_estimator", lambda *given, **options: drawn.extend(given)
    )
    monkeypatch.setattr(model_sections, "photograph", lambda draw, *words: draw())
    context = SimpleNamespace(images=None, mpp=None)
    model_sections._map(context, steps, "P0", patient, "")
    seen = steps[0].transform([patient])[0].load()
    np.testing.assert_array_equal(drawn[1].features, seen.features[seen.slide_index == 0])
    assert drawn[0] is steps[-1]


def test_long_tables_open_in_parts_and_say_what_they_leave_out():
    block = table(pd.DataFrame({"x": np.arange(2_500)}), "rows")
    assert [name for name, _ in block.parts][:2] == ["1 to 100", "101 to 200"]
    assert len(block.parts) == 20
    assert block.closed
    assert "the first 2000 of 2500 rows" in block.caption


def test_heavy_picture_gets_by_with_256_colours():
    from matplotlib.figure import Figure

    class Noise:
        figure_ = Figure(figsize=(6, 6))

    picture = np.random.default_rng(0).random((700, 700, 3))
    Noise.figure_.add_axes((0, 0, 1, 1)).imshow(picture)
    found = photograph(lambda: Noise, "noise")
    assert len(found.source) < 1_300_000
    assert (found.width, found.height) == (576, 576)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_slides": 0}, "n_slides must be at least 1"),
        ({"y": [0]}, "y has 1 labels, but there are 20 bags"),
    ],
)
def test_unusable_arguments_are_refused(demo, tmp_path, change, said):
    with pytest.raises(ValueError, match=said):
        report(demo.result, tmp_path / "r.html", **({"bags": demo.bags} | change))
    assert not (tmp_path / "r.html").exists()


def test_something_else_than_a_result_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"Expected the result of evaluate.*got dict"):
        report({}, tmp_path / "r.html")


def test_classifier_that_is_not_fitted_is_told_so(tmp_path):
    with pytest.raises(TypeError, match="got ABMILClassifier, which is not fitted"):
        report(quick("ABMILClassifier"), tmp_path / "r.html")


def test_folder_in_place_of_a_file_is_refused_before_anything_is_drawn(demo, tmp_path):
    with pytest.raises(IsADirectoryError, match=r"is a folder\. Pass the name.*report\.html"):
        report(demo.result, tmp_path)


def test_page_of_a_classifier_without_attention_says_so_once(tmp_path):
    bags, y = make_bags()
    clf = make_pipeline(BagPooling(), LogisticRegression()).fit(bags, y)
    page = report(clf, tmp_path / "new" / "r.html", bags=bags).read_text(encoding="utf-8")
    assert "LogisticRegression has no attention" in why_missing(page)["Attention maps"]
    assert page.count("has no attention") == 1


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_missing_package_is_named_with_what_installs_it(demo, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"{package}.*pip install '{package}"):
        report(demo.result, tmp_path / "r.html")
