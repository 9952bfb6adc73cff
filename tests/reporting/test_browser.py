"""Pages opened in headless Chromium: nothing is loaded, nothing runs, every picture is there."""

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from reporting.conftest import SCRIPT, tiny_model
from test_real_cohorts import read

from sk_momkd import evaluate, report

_SIZES = """() => [...document.images].map(i =>
    [i.naturalWidth, i.naturalHeight, +i.getAttribute('width'), +i.getAttribute('height')])"""


def opened(browser, path, width=1280):
    """What the browser said and asked for, the pictures' sizes, and the page itself."""
    tab = browser.new_page(viewport={"width": width, "height": 900})
    said, asked = [], []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(path.as_uri())
    tab.wait_for_load_state("load")
    return tab, said, [url for url in asked if not url.startswith("data:")]


def assert_sound(browser, path, n_pictures):
    tab, said, asked = opened(browser, path)
    assert said == []
    assert asked == [path.as_uri()]
    sizes = np.array(tab.evaluate(_SIZES), dtype=float)
    assert len(sizes) >= n_pictures
    assert (sizes > 0).all()
    np.testing.assert_allclose(sizes[:, 0] / sizes[:, 1], sizes[:, 2] / sizes[:, 3], rtol=0.01)
    assert set(np.round(sizes[:, 0] / sizes[:, 2], 1)) <= {1.0, 1.5}  # SVG, PNG
    wide = tab.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert wide <= 0  # nothing hangs out of the page on a laptop
    return tab


def test_page_of_the_simulated_demo_is_sound_and_hostile_names_are_text(browser, demo_page):
    tab = assert_sound(browser, demo_page, 11)
    assert tab.title() == SCRIPT  # not "hit"
    assert tab.locator("h1").inner_text() == SCRIPT
    assert tab.locator("script").count() == 0
    assert tab.locator("img[src='x']").count() == 0
    assert f"{SCRIPT}-1" in tab.locator("#cohort").inner_text()
    tab.close()


def test_page_fits_a_narrow_window_and_prints(browser, demo_page):
    tab, _, _ = opened(browser, demo_page, width=420)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 420
    assert tab.locator("nav").is_visible()
    tab.emulate_media(media="print")
    assert not tab.locator("nav").is_visible()
    assert tab.pdf(format="A4").startswith(b"%PDF")
    tab.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_accessible(browser, demo_page, scheme):
    context = browser.new_context(bypass_csp=True, color_scheme=scheme)  # axe is a script
    tab = context.new_page()
    tab.goto(demo_page.as_uri())
    found = Axe().run(tab).response["violations"]
    assert [(v["id"], v["impact"], v["nodes"][0]["html"]) for v in found] == []
    context.close()


def test_contents_stay_in_view(browser, demo_page):
    for width in (1280, 420):
        tab, _, _ = opened(browser, demo_page, width)
        tab.evaluate("document.getElementById('run').scrollIntoView()")
        top = tab.evaluate("document.querySelector('nav').getBoundingClientRect().top")
        assert 0 <= top < 100
        tab.close()


@pytest.mark.filterwarnings("ignore:.*left out:sk_momkd.exceptions.CohortWarning")
def test_page_of_a_tcga_run_is_sound(browser, data_folder, tmp_path):
    bags, y, omics, join = read(data_folder, "tcga_brca", "er")
    bags, y = bags[:60], y[:60]
    result = evaluate(
        tiny_model(early_stopping=False),
        bags,
        y,
        omics=omics[list(bags.patient_ids)],
        cv=2,
        n_bootstrap=50,
        keep_models=True,
    )
    genes = omics[:12]
    path = tmp_path / "report.html"
    report(result, path, bags=bags, y=y, omics=genes, join=join, n_slides=1)
    tab = assert_sound(browser, path, 11)
    assert "no label in 'er'" in tab.locator("#cohort").inner_text()
    tab.close()


@pytest.mark.filterwarnings("ignore:1 bag")
def test_page_of_a_her2st_run_is_sound(browser, data_folder, tmp_path):
    bags, y, omics, join = read(data_folder, "her2st", "label")  # three patients: a fit, no folds
    clf = tiny_model(early_stopping=False, batch_size=32).fit(
        bags[::3], y[::3], momkdclassifier__omics=omics
    )
    path = tmp_path / "report.html"
    report(clf, path, bags=bags[1::3], omics=omics[:12], join=join, n_slides=2)
    tab = assert_sound(browser, path, 5)
    assert "Not" not in tab.locator("#slides").inner_text()
    assert "126 slides included, 3 patients" in tab.locator("#cohort").inner_text()
    tab.close()
