"""
Grid search in folds of whole patients
======================================

Classifiers are scikit-learn estimators: a search clones them, and omics reaches each fit by id.
"""

from tempfile import mkdtemp

import matplotlib.pyplot as plt
from sklearn.model_selection import GridSearchCV

from sk_momkd import (
    MoMKDClassifier,
    PatientStratifiedKFold,
    align_omics,
    load_cohort,
    simulate_cohort,
)

paths = simulate_cohort(mkdtemp(), n_patients=60, n_patches=12, n_features=16, random_state=0)
bags, y, omics, _ = load_cohort(*paths, label="subtype", positive="aggressive")

clf = MoMKDClassifier.preset("small", max_epochs=12, learning_rate=3e-3, random_state=0)
grid = GridSearchCV(
    clf,
    {"lambda_teacher": [0.0, 0.4, 0.8]},
    cv=PatientStratifiedKFold(3, random_state=0),
    scoring="roc_auc",
)
grid.fit(bags, y, omics=align_omics(omics, bags))
print(grid.best_params_)

table = grid.cv_results_
shares = [candidate["lambda_teacher"] for candidate in table["params"]]
plt.errorbar(shares, table["mean_test_score"], table["std_test_score"], fmt="o", capsize=4)
plt.xlabel("share of the soft label of the omics teacher")
plt.ylabel("AUROC, mean and SD over folds")
