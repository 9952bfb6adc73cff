"""
When some patients have no omics
================================

Patients without omics are trained on like the others, but for the terms that need it. The picture
shows how the AUROC on other patients changes with the share of patients that have omics.
"""

from tempfile import mkdtemp

import matplotlib.pyplot as plt

from sk_momkd import MoMKDClassifier, evaluate_external, load_cohort, simulate_cohort

size = {"n_patches": 8, "n_features": 16, "n_genes": 100}
paths = simulate_cohort(mkdtemp(), n_patients=120, prefix="EXT", random_state=1, **size)
others, y_others, _, _ = load_cohort(*paths, label="subtype", positive="aggressive")
clf = MoMKDClassifier.preset("small", lambda_teacher=0.8, max_epochs=12, random_state=0)

found = {}
for share in (0.25, 0.5, 1.0):
    noisy = {"n_patients": 60, "label_noise": 0.3, "omics_fraction": share, "random_state": 0}
    bags, y, omics, _ = load_cohort(
        *simulate_cohort(mkdtemp(), **noisy, **size), label="subtype", positive="aggressive"
    )
    clf.fit(bags, y, omics=omics)
    found[share] = evaluate_external(clf, others, y_others, n_bootstrap=200).summary.loc["auroc"]
    print(f"{clf.n_paired_} of {len(bags)} slides have omics: {found[share]['ensemble']:.2f}")

low, high = (
    [abs(f["ensemble"] - f[end]) for f in found.values()]
    for end in ("ensemble_low", "ensemble_high")
)
plt.errorbar(list(found), [f["ensemble"] for f in found.values()], [low, high], fmt="o", capsize=4)
plt.xlabel("share of training patients with omics")
plt.ylabel("AUROC, other patients")
