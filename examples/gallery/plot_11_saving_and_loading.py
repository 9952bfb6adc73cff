"""
Saving a model and loading it elsewhere
=======================================

The file holds arrays and text: no code, and no id, label or probability of a patient. The loaded
model predicts the same.
"""

from tempfile import mkdtemp

import matplotlib.pyplot as plt
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_momkd import (
    InstanceTransformer,
    MoMKDClassifier,
    load_cohort,
    load_model,
    prediction_table,
    save_model,
    simulate_cohort,
)

paths = simulate_cohort(mkdtemp(), n_patients=60, n_patches=12, n_features=16, random_state=0)
bags, y, omics, _ = load_cohort(*paths, label="subtype", positive="aggressive")
clf = MoMKDClassifier.preset("small", max_epochs=12, learning_rate=3e-3, random_state=0)
pipe = make_pipeline(InstanceTransformer(StandardScaler()), clf)
pipe.fit(bags, y, momkdclassifier__omics=omics)
path = save_model(pipe, f"{mkdtemp()}/model.zip")
print(f"{path.stat().st_size / 1024:.0f} KiB")

new = simulate_cohort(mkdtemp(), n_patients=20, n_patches=12, n_features=16, prefix="NEW")
slides, _, _, _ = load_cohort(new.table, new.features, label=None)
table = prediction_table(load_model(path), slides)
print(table.head(3))
plt.scatter(pipe.predict_proba(slides)[:, 1], table["p_1"])
plt.xlabel("probability before saving")
plt.ylabel("after loading")
