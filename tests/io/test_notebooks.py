"""What notebooks show of cohorts."""

import numpy as np
import pytest

from sk_momkd import Bag, BagSequence, load_cohort, simulate_cohort
from sk_momkd.exceptions import CohortWarning


def test_cohort_in_a_notebook_shows_join_bags_and_omics(tmp_path):
    paths = simulate_cohort(tmp_path, n_patients=8, n_patches=5, n_genes=20, random_state=0)
    (paths.features / "SIM-003-01Z-00-DX1.h5").unlink()
    with pytest.warns(CohortWarning):
        cohort = load_cohort(*paths, label="subtype")
    page = cohort._repr_html_()
    assert "7 of 8 slides in use" in page
    assert "no feature file" in page
    assert "BagSequence of 7 bags, 7 patients" in page
    assert "and 2 more" in page
    assert "omics of 7 rows and 20 genes" in page


def test_ids_in_a_notebook_are_text():
    bags = BagSequence([Bag(np.ones((2, 3)), bag_id="<b>S1</b>"), Bag(np.ones((4, 3)))])
    page = bags._repr_html_()
    assert "<b>S1" not in page
    assert "&lt;b&gt;S1" in page
    assert "2 x 3" in page
    assert "<table" in BagSequence([])._repr_html_()


def test_bags_in_a_notebook_are_not_read(tmp_path):
    paths = simulate_cohort(tmp_path, n_patients=2, n_patches=5, random_state=0)
    cohort = load_cohort(paths.table, paths.features, label="subtype")
    for file in paths.features.iterdir():
        file.unlink()
    assert "SIM-000-01Z-00-DX1.h5" in cohort.bags._repr_html_()
    assert "no omics" in cohort._repr_html_()
