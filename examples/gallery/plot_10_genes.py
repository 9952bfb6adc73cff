"""
Which genes shaped the memory
=============================

Predictions do not use genes. The question is which genes moved a patient toward the memory of a
class during training.
"""

from tempfile import mkdtemp

from sk_momkd import GeneAttributionDisplay, MoMKDClassifier, load_cohort, simulate_cohort

paths = simulate_cohort(
    mkdtemp(),
    n_patients=60,
    n_patches=12,
    n_features=16,
    n_genes=100,
    n_signature=10,
    random_state=0,
)
bags, y, omics, _ = load_cohort(*paths, label="subtype", positive="aggressive")
clf = MoMKDClassifier.preset("small", max_epochs=12, learning_rate=3e-3, random_state=0)
clf.fit(bags, y, omics=omics)
print(omics.var_names[omics.var["signature"]].to_list())  # the genes that were planted

GeneAttributionDisplay.from_estimator(clf, omics, random_state=0)
