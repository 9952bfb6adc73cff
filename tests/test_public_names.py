"""Public names: those of the first releases still import, and no name hides a module."""

import ast
import importlib
import pkgutil
import subprocess
import sys
import warnings
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

import sk_momkd

# Release 0.1 exported these. A name that is renamed stays here and joins `sk_momkd._RENAMED`.
SINCE_0_1 = """
    ABMILClassifier AttentionMapDisplay BackgroundDetector Bag BagPooling BagSequence
    ConfusionDisplay DSMILClassifier DTFDMILClassifier DecisionCurveDisplay GHANetClassifier
    GeneAttributionDisplay GeneSelector InstanceFilter InstanceStandardizer
    InstanceTransformer LogCounts MKDClassifier MemoryUsageDisplay MoMKDClassifier OmicsTable
    PRDisplay PatientStratifiedKFold PrototypeDisplay ROCDisplay ReliabilityDisplay SlideFile
    TDCClassifier TissueMaskFilter TransMILClassifier WiKGClassifier align_omics
    all_estimators as_bags background_report cache_bags check_leakage cohort_scores compare
    compare_omics delong_test detectable_difference evaluate evaluate_external
    explain_prediction gene_attributions geometry holm learning_curve load_cohort
    memory_prototypes memory_usage omics_by_patient patch_affinities patch_attention
    patient_bags patient_labels permutation_check prediction_table read_bags read_splits
    report seed_spread show_versions simulate_cohort slide_scores slide_to_anndata stamp_table
    tissue_source_site to_geojson to_stamp top_patches write_splits write_trident
"""
PACKAGES = [
    module.name for module in pkgutil.iter_modules(sk_momkd.__path__, "sk_momkd.") if module.ispkg
]
WITHOUT_TORCH = """
    Bag BagSequence CohortError OmicsTable PatientStratifiedKFold align_omics check_leakage
    load_cohort read_bags cache_bags simulate_cohort tissue_source_site BagPooling
    InstanceTransformer evaluate compare_omics ROCDisplay
"""


def exports(module: ModuleType) -> list[str]:
    """The public names of a package, without its submodules."""
    return [name for name in module.__all__ if name not in submodules(module)]


def submodules(module: ModuleType) -> set[str]:
    return {found.name for found in pkgutil.iter_modules(module.__path__)}


def python(code: str) -> str:
    """Standard output of `code` in an interpreter of its own."""
    return subprocess.run(
        [sys.executable, "-W", "error::FutureWarning", "-c", code],
        cwd=Path(sk_momkd.__file__).parents[1],
        capture_output=True,
        check=True,
        text=True,
    ).stdout


@pytest.mark.parametrize("name", SINCE_0_1.split())
def test_names_of_the_first_release_still_import(name):
    if name not in sk_momkd._RENAMED:
        assert getattr(sk_momkd, name).__name__ == name
        return
    new = sk_momkd._RENAMED[name]
    with pytest.warns(FutureWarning, match=rf"sk_momkd\.{new}\b"):
        assert getattr(sk_momkd, name) is getattr(sk_momkd, new)


def test_renamed_names_are_not_listed_and_lead_to_a_public_name():
    assert not set(sk_momkd._RENAMED) & set(sk_momkd.__all__)
    assert set(sk_momkd._RENAMED.values()) <= set(sk_momkd.__all__)


def test_import_of_every_public_name_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        for name in sk_momkd.__all__:
            assert getattr(sk_momkd, name) is not None


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="NoSuchClassifier"):
        sk_momkd.NoSuchClassifier  # noqa: B018


@pytest.mark.parametrize("package", ["sk_momkd", *PACKAGES])
def test_no_public_name_is_that_of_a_module(package):
    module = importlib.import_module(package)
    stub = Path(module.__file__).with_suffix(".pyi")
    if not stub.exists():
        pytest.skip(f"{package} exports nothing")
    named = {
        alias.asname or alias.name
        for node in ast.walk(ast.parse(stub.read_text()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert not named & submodules(module)


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_of_a_package_are_public_at_the_top(package):
    module = importlib.import_module(package)
    for name in exports(module) if hasattr(module, "__all__") else ():
        value = getattr(module, name)
        if name in sk_momkd.__all__:
            assert getattr(sk_momkd, name) is value


def test_packages_and_functions_are_what_they_are_called():
    import sk_momkd.evaluation as e
    import sk_momkd.reporting
    from sk_momkd import report
    from sk_momkd.evaluation import evaluate
    from sk_momkd.reporting import report as same_report

    assert isinstance(e, ModuleType)
    assert isinstance(sk_momkd.reporting, ModuleType)
    assert isinstance(sk_momkd.inspection, ModuleType)
    assert isinstance(evaluate, FunctionType)
    assert e.evaluate is evaluate is sk_momkd.evaluate
    assert report is same_report
    assert isinstance(report, FunctionType)


def test_names_that_need_no_torch_load_without_it():
    code = f"""
import sys, sk_momkd
for name in {WITHOUT_TORCH.split()}:
    getattr(sk_momkd, name)
    if "torch" in sys.modules:
        sys.exit(print(name, end=""))
"""
    assert python(code) == ""


def test_import_of_the_package_loads_nothing_heavy():
    heavy = {"torch", "sklearn", "anndata", "pandas", "matplotlib", "numba", "skorch"}
    code = f"import sys, sk_momkd; print(sorted({heavy!r} & set(sys.modules)))"
    assert python(code).strip() == "[]"
