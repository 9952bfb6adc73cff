"""
What speaks for the class, on the slide and in QuPath
=====================================================

Evidence divides the prediction among the patches: orange speaks for the positive class, violet
against it. The same numbers go to a GeoJSON file, which QuPath opens.
"""

from tempfile import mkdtemp

from sk_momkd import (
    AttentionMapDisplay,
    MoMKDClassifier,
    load_cohort,
    patch_evidence,
    simulate_cohort,
    to_geojson,
)

paths = simulate_cohort(mkdtemp(), n_patients=60, n_patches=150, n_features=16, random_state=0)
bags, y, omics, _ = load_cohort(*paths, label="subtype", positive="aggressive")
clf = MoMKDClassifier.preset("small", max_epochs=12, learning_rate=3e-3, random_state=0)
clf.fit(bags, y, omics=omics)

slide = bags[int(clf.predict_proba(bags)[:, 1].argmax())]
evidence = patch_evidence(clf, [slide])
print(evidence.nlargest(3, "evidence_1")[["bag_id", "x", "y", "evidence_1"]])
to_geojson(evidence, f"{mkdtemp()}/slide.geojson", bag=slide)
AttentionMapDisplay.from_estimator(clf, slide, column="evidence", mpp=0.25)
