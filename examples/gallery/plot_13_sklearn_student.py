"""
A plain scikit-learn classifier that learns from omics
======================================================

Logistic regression on pooled patches, trained with the soft labels of an omics teacher. The
weight of the teacher is chosen in inner folds of the training data, and 0 where nothing can be
gained.
"""

from tempfile import mkdtemp

from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_momkd import BagPooling, PrivilegedClassifier, load_cohort, simulate_cohort

paths = simulate_cohort(
    mkdtemp(),
    n_patients=120,
    n_patches=12,
    n_features=16,
    n_genes=100,
    label_noise=0.3,
    largest_share=0.6,
    random_state=0,
)
bags, y, omics, _ = load_cohort(*paths, label="subtype", positive="aggressive")

student = make_pipeline(BagPooling(), StandardScaler(), LogisticRegression(C=0.01))
clf = PrivilegedClassifier(student, random_state=0).fit(bags, y, omics=omics)
print(clf.teacher_verdict_)
print(clf.predict_proba(bags[:2]))  # without omics

report = clf.teacher_report_
ax = report.plot(y="gain", yerr="std_error", marker="o", capsize=4, legend=False)
ax.set(xlabel="weight of the teacher", ylabel="gain in AUROC, inner folds")
