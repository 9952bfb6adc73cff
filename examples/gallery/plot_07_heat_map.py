"""
Where the classifier looks on a slide
=====================================

Attention, drawn in the coordinates of the slide. It shows where the classifier looks, not which
class a patch speaks for.
"""

from tempfile import mkdtemp

from sk_momkd import AttentionMapDisplay, MoMKDClassifier, load_cohort, simulate_cohort

paths = simulate_cohort(mkdtemp(), n_patients=60, n_patches=150, n_features=16, random_state=0)
bags, y, omics, _ = load_cohort(*paths, label="subtype", positive="aggressive")
clf = MoMKDClassifier.preset("small", max_epochs=12, learning_rate=3e-3, random_state=0)
clf.fit(bags, y, omics=omics)

slide = int(clf.predict_proba(bags)[:, 1].argmax())
AttentionMapDisplay.from_estimator(clf, bags[slide], mpp=0.25)
