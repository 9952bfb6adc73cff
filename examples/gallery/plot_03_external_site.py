"""
Another hospital with another stain
===================================

Models of the folds are kept and evaluated on a second cohort. Its labels change no threshold, and
patients of training would be refused.
"""

from tempfile import mkdtemp

import matplotlib.pyplot as plt

from sk_momkd import (
    MoMKDClassifier,
    ROCDisplay,
    evaluate,
    evaluate_external,
    load_cohort,
    simulate_cohort,
)

size = {"n_patients": 80, "n_patches": 20, "n_features": 16, "n_genes": 100}
here = simulate_cohort(mkdtemp(), random_state=0, **size)
there = simulate_cohort(mkdtemp(), prefix="EXT", stain_shift=0.5, random_state=1, **size)
bags, y, omics, _ = load_cohort(*here, label="subtype", positive="aggressive")
bags2, y2, _, _ = load_cohort(there.table, there.features, label="subtype", positive="aggressive")

clf = MoMKDClassifier.preset("small", max_epochs=12, learning_rate=3e-3, random_state=0)
own = evaluate(clf, bags, y, omics=omics, cv=3, keep_models=True)
other = evaluate_external(own, bags2, y2)
print(other)

figure, axes = plt.subplots(1, 2, figsize=(9, 4.5), layout="constrained")
for result, ax, title in [(own, axes[0], "here, out of fold"), (other, axes[1], "there")]:
    ROCDisplay.from_result(result, ax=ax)
    ax.set_title(title)
