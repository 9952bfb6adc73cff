"""The pictures of docs/report.md: heat maps, memory, and pages as a browser shows them.

    python benchmarks/pictures.py [--data DATA] [--only simulated cmu memory component ...]

`DATA` (or the environment variable SK_MOMKD_DATA) holds the real cohorts. Chromium has to be on
the path. The simulated cohort is that of the README's demo at a smaller size; the models of real
cohorts are small and quickly trained: pages to look at, not results to quote.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib import use
from PIL import Image
from playwright.sync_api import sync_playwright
from real_cohorts import RESULTS, read_task, scale_patches
from sklearn.pipeline import make_pipeline

from sk_momkd import (
    AttentionMapDisplay,
    BagSequence,
    ComponentMapDisplay,
    MemoryUsageDisplay,
    MoMKDClassifier,
    PatientStratifiedKFold,
    choose_components,
    evaluate,
    load_cohort,
    memory_usage,
    patch_affinities,
    report,
    simulate_cohort,
)
from sk_momkd.reporting.displays.slide_image import open_slide

IMAGES = Path(__file__).parents[1] / "docs" / "images"


def small_model(**overrides):
    """Scaled patches and a MoMKD that trains in seconds."""
    settings = {
        "hidden_dim": 64,
        "projection_dim": 32,
        "n_components": 8,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "max_epochs": 12,
        "training__monitor": "loss",
        "random_state": 0,
    }
    return make_pipeline(scale_patches(), MoMKDClassifier().set_params(**(settings | overrides)))


def smaller(path: Path, widest: int = 1280) -> None:
    """Rewrite a PNG with at most 256 colours, and no wider than that."""
    picture = Image.open(path).convert("RGB")
    picture.thumbnail((widest, 4000))
    picture.quantize(256, method=Image.Quantize.FASTOCTREE).save(path, optimize=True)
    print(f"{path.name}: {picture.size}, {path.stat().st_size / 1e3:.0f} kB", flush=True)


def saved(display, name: str) -> None:
    """Write the figure of a display."""
    display.figure_.savefig(IMAGES / name, dpi=110)
    smaller(IMAGES / name)


def photographed(page: Path, shots: dict[str, str], top: str | None = None) -> None:
    """Pictures of sections of a page (file name by selector), and of its first screen."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        tab = browser.new_page(viewport={"width": 1180, "height": 900})
        tab.goto(page.as_uri())
        if top is not None:
            tab.screenshot(path=IMAGES / top)
            smaller(IMAGES / top)
        for selector, name in shots.items():
            tab.locator(selector).screenshot(path=IMAGES / name)
            smaller(IMAGES / name)
        browser.close()


def simulated(_: Path) -> None:
    """A cross-validated simulated cohort: the page, and each figure of its result."""
    with tempfile.TemporaryDirectory() as name:
        paths = simulate_cohort(name, n_patients=80, n_patches=150, effect=0.5, random_state=1)
        bags, y, omics, join = load_cohort(*paths, label="subtype")
        pos = "aggressive"
        result = evaluate(
            small_model(), bags, y, omics=omics, cv=5, pos_label=pos, keep_models=True
        )
        print(result, flush=True)
        page = report(
            result,
            Path(name) / "report.html",
            bags=bags,
            y=y,
            omics=omics,
            join=join,
            mpp=0.25,
            title="Simulated cohort: aggressive or indolent",
        )
        shots = {"#slides": "slides.png", "#prototypes": "prototypes.png"}
        shots |= {"#genes": "genes.png", "#calibration": "calibration.png"}
        photographed(page, shots, top="page.png")


def cmu(data: Path) -> None:
    """How dark each patch of a real slide is, over its thumbnail."""
    path = data / "wsi" / "CMU-1-Small-Region.svs"
    slide, size = open_slide(path), 64
    xs, ys = (np.arange(0, side - size, size) for side in slide.size)
    corners = np.array([(x, y) for y in ys for x in xs])
    dark = np.array([255 - slide.patch(x, y, size, 16).mean() for x, y in corners])
    title = "CMU-1-Small-Region"
    display = AttentionMapDisplay(corners, dark, size, image=path, label="darkness", title=title)
    saved(display.plot(), "cmu.png")


def memory(_: Path) -> None:
    """The paper's Figure 3 from the fits of benchmarks/paper.py, mean over these."""
    table = pd.read_csv(RESULTS / "paper_tcga_brca_fig3.csv")
    table = table[table["method"] == "MoMKD"]
    names = {"her2": "HER2", "pr": "PR", "ror_high": "ROR-high"}
    runs = {name: table[table["task"] == label] for label, name in names.items()}
    saved(MemoryUsageDisplay(runs).plot(), "memory.png")


def component(data: Path) -> None:
    """The paper's Figure 4: the chosen component of each class over a slide that no model saw.

    The slide is the validation part's positive one of median size.
    """
    folder = data / "tcga_blca"
    bags, y, omics, _ = load_cohort(
        folder / "labels.csv",
        folder / "features",
        folder / "omics.h5ad",
        label="infiltrate_strong",
        positive=1,
    )
    y = np.asarray(y).astype(int)
    clf = small_model(max_epochs=8, memory__kmeans_samples=2000)
    clf.fit(bags, y, momkdclassifier__omics=omics)
    held_out = np.isin(bags.ids.astype(str), clf[-1].validation_["bag_id"].astype(str))
    chosen = choose_components(memory_usage(clf, bags[~held_out], y[~held_out]))
    positive = [bags[i] for i in np.flatnonzero(held_out & (y == 1))]
    slide = sorted(positive, key=lambda bag: bag.n_instances)[len(positive) // 2]
    print(chosen.to_string(), slide.bag_id, slide.n_instances, flush=True)
    cosines = patch_affinities(clf, BagSequence([slide]))
    lymphocytes = np.asarray(slide.features)[:, 0]  # mean of the published lymphocyte map
    for pair in chosen[["class", "component"]].itertuples(index=False, name=None):
        values = cosines[:, cosines.var_names == "memory_{}_{}".format(*pair)].X.ravel()
        print(pair, "correlation with lymphocytes", np.corrcoef(values, lymphocytes)[0, 1])
    saved(ComponentMapDisplay.from_estimator(clf, slide, chosen), "component.png")


def tcga_brca(data: Path) -> None:
    """Oestrogen receptor from compartments, five folds of whole sites."""
    table = pd.read_csv(data / "tcga_brca" / "labels.csv", dtype={"slide_id": str})
    folder = data / "tcga_brca"
    bags, y, omics, join = load_cohort(
        folder / "labels.csv", folder / "features", folder / "omics.h5ad", label="er", positive=1
    )
    sites = table.set_index("slide_id").loc[list(bags.ids), "site"].to_numpy()
    clf = small_model(batch_size=16, max_epochs=6)
    result = evaluate(
        clf,
        bags,
        y,
        omics=omics,
        groups=sites,
        cv=PatientStratifiedKFold(5, random_state=0),
        keep_models=True,
    )
    print(result, flush=True)
    with tempfile.TemporaryDirectory() as name:
        page = report(
            result,
            Path(name) / "report.html",
            bags=bags,
            y=y,
            omics=omics,
            join=join,
            title="TCGA-BRCA: oestrogen receptor",
        )
        photographed(page, {"#results": "tcga_results.png"}, top="tcga_page.png")


def her2st(data: Path) -> None:
    """Tumour-rich windows of three patients: a fit, since three patients make no folds."""
    bags, y, omics, _, join = read_task(data, "her2st", "label")
    clf = small_model(early_stopping=False, max_epochs=6)
    clf.fit(bags, y, momkdclassifier__omics=omics)
    with tempfile.TemporaryDirectory() as name:
        page = report(
            clf,
            Path(name) / "report.html",
            bags=bags,
            y=y,
            omics=omics,
            join=join,
            title="HER2+ spatial transcriptomics: tumour-rich windows",
        )
        photographed(page, {"#slides": "her2st_slides.png"}, top="her2st_page.png")


PICTURES = {f.__name__: f for f in (simulated, cmu, memory, component, tcga_brca, her2st)}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("SK_MOMKD_DATA", ""))
    parser.add_argument("--only", nargs="+", choices=list(PICTURES), default=list(PICTURES))
    options = parser.parse_args()
    use("agg")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    IMAGES.mkdir(exist_ok=True)
    for chosen in options.only:
        PICTURES[chosen](options.data)
