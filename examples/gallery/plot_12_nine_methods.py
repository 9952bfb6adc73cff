"""
Nine methods side by side
=========================

Every method of the package on the same folds, and logistic regression on pooled patches as the
reference that a network should beat. Two epochs each, so that the page is built quickly.
"""

from tempfile import mkdtemp

import matplotlib.pyplot as plt
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from sk_momkd import BagPooling, all_estimators, compare, load_cohort, simulate_cohort

paths = simulate_cohort(mkdtemp(), n_patients=40, n_patches=8, n_features=16, random_state=0)
bags, y, omics, _ = load_cohort(*paths, label="subtype", positive="aggressive")
methods = {"mean patch": make_pipeline(BagPooling(), LogisticRegression())}
for name, classifier in all_estimators("classifier"):
    if hasattr(classifier, "preset"):
        quick = classifier.preset("unified", random_state=0, batch_size=16, max_epochs=2)
        methods[name.removesuffix("Classifier")] = quick
table = compare(methods, bags, y, omics=omics, cv=2, n_bootstrap=200)
print(table.differences.round(2))

found = table.summary[::-1]
widths = [found["auroc"] - found["low"], found["high"] - found["auroc"]]
plt.errorbar(found["auroc"], found.index, xerr=widths, fmt="o", capsize=3)
plt.xlabel("AUROC, 95 % interval")
plt.tight_layout()
