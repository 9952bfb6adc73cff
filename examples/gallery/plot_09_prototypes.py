"""
What the components of the memory look like
===========================================

For each component, the patches of the cohort that match it best. With images of the slides
(`images=`) the patches themselves are shown; without, where they lie on the slide.
"""

from tempfile import mkdtemp

from sk_momkd import (
    MoMKDClassifier,
    PrototypeDisplay,
    choose_components,
    load_cohort,
    memory_usage,
    simulate_cohort,
)

paths = simulate_cohort(mkdtemp(), n_patients=40, n_patches=60, n_features=16, random_state=0)
bags, y, omics, _ = load_cohort(*paths, label="subtype", positive="aggressive")
clf = MoMKDClassifier.preset("small", max_epochs=12, learning_rate=3e-3, random_state=0)
clf.fit(bags, y, omics=omics)

usage = memory_usage(clf, bags, y)
print(usage)
chosen = choose_components(usage, n=2)
PrototypeDisplay.from_estimator(clf, bags, n=3, components=chosen)
