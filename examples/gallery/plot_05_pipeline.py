"""
A pipeline that drops glass and scales patches
==============================================

Each step is fitted in the training fold alone. The picture shows how many patches of each slide a
detector of background drops before the classifier sees them.
"""

from tempfile import mkdtemp

import matplotlib.pyplot as plt
import numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import sk_momkd as sk

paths = sk.simulate_cohort(mkdtemp(), n_patients=40, n_patches=20, n_features=16, random_state=0)
bags, y, omics, _ = sk.load_cohort(*paths, label="subtype", positive="aggressive")
glass = np.full((8, 16), 3.0) + 1e-4 * np.random.default_rng(0).normal(size=(8, 16))
bags = sk.BagSequence(  # as if tissue detection had let some glass through
    sk.Bag(np.vstack([b.features, glass[: i % 8]]), bag_id=b.bag_id, patient_id=b.patient_id)
    for i, b in enumerate(bags)
)

clf = sk.MoMKDClassifier.preset("small", max_epochs=12, learning_rate=3e-3, random_state=0)
scale = sk.InstanceTransformer(StandardScaler())
pipe = make_pipeline(sk.InstanceFilter(sk.BackgroundDetector()), scale, clf)
print(sk.evaluate(pipe, bags, y, omics=omics, cv=3))

counts = pipe[0].fit(bags).counts(bags)
print(counts.head(3))
plt.scatter(counts["n_instances"], counts["n_kept"])
plt.axline((20, 20), slope=1, color="grey", linestyle=":")
plt.xlabel("patches of a slide")
plt.ylabel("patches that are kept")
