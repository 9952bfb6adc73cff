"""Names are drawn literally."""

import numpy as np
import pandas as pd

from sk_momkd import (
    AttentionMapDisplay,
    ConfusionDisplay,
    GeneAttributionDisplay,
    MemoryUsageDisplay,
    PrototypeDisplay,
    ROCDisplay,
)
from sk_momkd.reporting.displays.curves import Curve


def test_names_of_users_are_drawn_as_they_are_and_never_as_formulas(tmp_path):
    hostile = r"$\frac{$"
    tables = {
        "gene": [hostile, "_x"],
        "mean_abs": [2.0, 1.0],
        "direction__wt": [0.9, -0.4],
        f"direction_{hostile}": [-0.9, 0.4],
    }
    columns = ("memory_ever_used", "memory_active_ratio", "memory_perplexity_0")
    history = pd.DataFrame({"epoch": [1], **dict.fromkeys(columns, 1)})
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
