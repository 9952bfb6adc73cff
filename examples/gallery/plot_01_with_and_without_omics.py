"""
With, without and with permuted omics
=====================================

Omics helps where it knows what neither the label nor the slide shows. Here three of ten labels are
wrong, and only the patient's own omics can contradict them. The dots of a fold are joined.
"""

from tempfile import mkdtemp

import matplotlib.pyplot as plt

from sk_momkd import MoMKDClassifier, compare_omics, load_cohort, simulate_cohort

paths = simulate_cohort(
    mkdtemp(),
    n_patients=120,
    n_patches=8,
    n_features=16,
    n_genes=100,
    label_noise=0.3,
    random_state=0,
)
bags, y, omics, _ = load_cohort(*paths, label="subtype", positive="aggressive")
clf = MoMKDClassifier.preset("small", lambda_teacher=0.8, max_epochs=12, random_state=0)
answer = compare_omics(clf, bags, y, omics, cv=3, within_class=True, n_bootstrap=500)
print(answer.verdict)

folds = answer.folds.pivot(index="fold", columns="method", values="auroc")
folds[["without", "permuted", "with"]].T.plot(marker="o", legend=False, ylabel="AUROC in the fold")
plt.xlabel("omics in training")
