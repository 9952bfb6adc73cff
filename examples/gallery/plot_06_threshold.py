"""
Choosing a threshold, and what it costs
=======================================

The threshold is chosen on predictions of patients that no model was trained on, and kept in the
final model. The curve shows at which thresholds acting on the model is better than treating all or
none; the other picture whether probabilities are what they claim to be.
"""

from tempfile import mkdtemp

import matplotlib.pyplot as plt

from sk_momkd import (
    DecisionCurveDisplay,
    MoMKDClassifier,
    ReliabilityDisplay,
    evaluate,
    load_cohort,
    simulate_cohort,
)

paths = simulate_cohort(mkdtemp(), n_patients=100, n_patches=12, n_features=16, random_state=0)
bags, y, omics, _ = load_cohort(*paths, label="subtype", positive="aggressive")

clf = MoMKDClassifier.preset("small", max_epochs=12, learning_rate=3e-3, random_state=0)
result = evaluate(clf, bags, y, omics=omics, cv=4)
threshold = result.threshold(("sensitivity", 0.9))
print(threshold)
final = clf.set_params(decision_threshold=threshold).fit(bags, y, omics=omics)
print(final.predict(bags[:5]))

figure, axes = plt.subplots(1, 2, figsize=(9, 4.5), layout="constrained")
ReliabilityDisplay.from_result(result, ax=axes[0])
DecisionCurveDisplay.from_result(result, ax=axes[1])
axes[1].axvline(threshold.value, color="grey", linestyle=":")
