"""Heavy packages are imported by the names that need them, and by no others."""

import json
import subprocess
import sys
from importlib.util import find_spec

import sk_momkd

NEED_TORCH = {
    "BackgroundReport",
    "ComponentUsage",
    "GeneAttributions",
    "PredictionExplanation",
    "background_report",
    "choose_components",
    "cohort_scores",
    "explain_prediction",
    "gene_attributions",
    "load_model",
    "memory_prototypes",
    "memory_usage",
    "patch_affinities",
    "patch_attention",
    "patch_evidence",
    "prediction_table",
    "report",
    "save_model",
    "show_versions",
    "slide_scores",
    "to_stamp",
    "top_patches",
}
HEAVY = ("torch", "torch_geometric", "skorch", "numba", "matplotlib", "jinja2", "shap")
if find_spec("dask"):  # which anndata loads where it is installed, and jinja2 with it
    HEAVY = tuple(name for name in HEAVY if name != "jinja2")
CODE = """
import json, sys
import sk_momkd

before = [name for name in HEAVY if name in sys.modules]
for name in NAMES:
    getattr(sk_momkd, name)
    loaded = [heavy for heavy in HEAVY if heavy in sys.modules]
    if loaded != before:
        print(json.dumps([name, loaded]))
        break
"""


def first_to_import(heavy, names):
    """The first of `names` whose use imports one of `heavy`, and what it imports; or None."""
    code = CODE.replace("HEAVY", repr(heavy)).replace("NAMES", repr(names))
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(run.stdout) if run.stdout else None


def test_names_without_a_model_load_without_torch():
    names = [
        name
        for name in sk_momkd.__all__
        if name not in NEED_TORCH and not name.endswith(("Classifier", "Options"))
    ]
    assert first_to_import(HEAVY, names) is None


def test_classifiers_load_without_what_only_training_needs():
    names = [name for name in sk_momkd.__all__ if name != "report"]
    assert first_to_import(tuple(h for h in HEAVY if h != "torch"), names) is None
