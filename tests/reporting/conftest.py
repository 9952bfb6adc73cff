"""A small evaluated cohort whose names are hostile, and a way to open pages in a browser."""

import dataclasses
import os
import shutil
import warnings

import numpy as np
import pytest
from conftest import quick_classifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_momkd import (
    Bag,
    BagPooling,
    BagSequence,
    InstanceTransformer,
    evaluate,
    load_cohort,
    report,
    simulate_cohort,
)

SCRIPT = "<script>document.title='hit'</script>"
POSITIVE = "<img src=x onerror=\"document.title='hit'\">"


@pytest.fixture(autouse=True)
def _no_windows():
    import matplotlib

    matplotlib.use("agg")
    yield
    from matplotlib import pyplot

    pyplot.close("all")


def tiny_model(**overrides):
    settings = {"max_epochs": 2, "batch_size": 8, "validation_fraction": 0.3}
    return make_pipeline(
        InstanceTransformer(StandardScaler()), quick_classifier(**(settings | overrides))
    )


@dataclasses.dataclass
class Demo:
    """What a report is made of."""

    result: object
    bags: BagSequence
    y: np.ndarray
    omics: object
    join: object

    @property
    def cohort(self):
        return {"bags": self.bags, "y": self.y, "omics": self.omics, "join": self.join}


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """Twenty simulated patients; a slide and the positive class have markup in their names."""
    paths = simulate_cohort(
        tmp_path_factory.mktemp("simulated"),
        n_patients=20,
        n_patches=20,
        n_features=8,
        n_genes=30,
        n_signature=6,
        random_state=0,
    )
    bags, y, omics, join = load_cohort(*paths, label="subtype")
    first = bags[0]
    hostile = Bag(first.features, first.coords, bag_id=f"{SCRIPT}-1", patient_id=first.patient_id)
    bags = BagSequence([hostile, *list(bags)[1:]])
    y = np.where(y == "aggressive", POSITIVE, y)
    slides = join.slides.copy()
    slides.loc[0, ["slide_id", "status"]] = [f"{SCRIPT}-1", f"no file {SCRIPT}"]
    join = dataclasses.replace(join, slides=slides)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        result = evaluate(
            tiny_model(),
            bags,
            y,
            omics=omics,
            cv=2,
            n_repeats=2,
            pos_label=POSITIVE,
            n_bootstrap=50,
            keep_models=True,
        )
    return Demo(result, bags, y, omics, join)


@pytest.fixture(scope="session")
def demo_page(demo, tmp_path_factory):
    """The page of the demo with all that can be passed."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    notes = {"Funding": "A & B <i>fund</i>"}
    options = {"mpp": 0.25, "n_slides": 1, "notes": notes, "title": SCRIPT}
    return report(demo.result, path, **demo.cohort, **options)


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium; where there is none, the tests skip."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    path = path or shutil.which("google-chrome")
    if path is None:
        if os.environ.get("SK_MOMKD_REQUIRE_BROWSER"):
            pytest.fail("a browser is required here and there is no chromium on the path")
        pytest.skip("no chromium on the path")
    from playwright.sync_api import sync_playwright

    quiet = ["background-networking", "component-update", "sync", "gpu", "quic"]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=path,
            args=["--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in quiet)],
        )
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def three_classes():
    """Evaluation of a logistic regression on three classes."""
    random, y = np.random.default_rng(0), np.arange(36) % 3
    bags = BagSequence(
        Bag(random.normal(size=(5, 3)) + np.eye(3)[c], patient_id=f"P{i}") for i, c in enumerate(y)
    )
    return evaluate(make_pipeline(BagPooling(), LogisticRegression()), bags, y, n_bootstrap=20)
