"""Bars of gene attributions."""

import pandas as pd
import pytest

from sk_momkd import (
    GeneAttributionDisplay,
)
from sk_momkd.reporting.displays.style import COLOURS


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
