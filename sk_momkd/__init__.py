"""MoMKD for scikit-learn: slide classifiers that learn from privileged omics."""

from .data.bag import Bag
from .data.cache import cache_bags
from .data.cohort import load_cohort
from .data.folds import PatientStratifiedKFold
from .data.geometry import geometry
from .data.omics import OmicsTable, align_omics
from .data.patient_bags import patient_bags, patient_labels
from .data.readers import SlideFile, read_bags
from .data.sequence import BagSequence, as_bags
from .data.simulation import simulate_cohort
from .data.split_files import read_splits, write_splits
from .data.splits import check_leakage
from .data.tables import stamp_table
from .data.tcga import omics_by_patient, tissue_source_site
from .data.writers import slide_to_anndata, write_trident
from .estimators.abmil import ABMILClassifier
from .estimators.background import BackgroundDetector
from .estimators.bag_pooling import BagPooling
from .estimators.discovery import all_estimators
from .estimators.dsmil import DSMILClassifier
from .estimators.dtfd import DTFDMILClassifier
from .estimators.ghanet import GHANetClassifier
from .estimators.instance_filter import InstanceFilter
from .estimators.instance_standardizer import InstanceStandardizer
from .estimators.instance_transformer import InstanceTransformer
from .estimators.mkd import MKDClassifier
from .estimators.momkd import MoMKDClassifier
from .estimators.omics_transformer import GeneSelector, LogCounts
from .estimators.tdc import TDCClassifier
from .estimators.tissue_mask import TissueMaskFilter
from .estimators.transmil import TransMILClassifier
from .estimators.wikg import WiKGClassifier
from .evaluation.checks import permutation_check, seed_spread
from .evaluation.compare import compare
from .evaluation.curve import learning_curve
from .evaluation.evaluate import evaluate
from .evaluation.external import evaluate_external
from .evaluation.inference import delong_test, holm
from .evaluation.omics_gain import compare_omics
from .evaluation.power import detectable_difference
from .inspection.attention import patch_attention
from .inspection.background import background_report
from .inspection.exports import to_geojson
from .inspection.genes import gene_attributions
from .inspection.memory import memory_prototypes, memory_usage
from .inspection.patches import patch_affinities, top_patches
from .inspection.prediction import explain_prediction
from .inspection.tables import cohort_scores, prediction_table, slide_scores, to_stamp
from .report.attention_map import AttentionMapDisplay
from .report.curves import PRDisplay, ROCDisplay
from .report.decisions import ConfusionDisplay, DecisionCurveDisplay, ReliabilityDisplay
from .report.genes import GeneAttributionDisplay
from .report.memory import MemoryUsageDisplay
from .report.page import report
from .report.prototypes import PrototypeDisplay
from .versions import show_versions

__version__ = "0.1.0"

__all__ = [
    "ABMILClassifier",
    "AttentionMapDisplay",
    "BackgroundDetector",
    "Bag",
    "BagPooling",
    "BagSequence",
    "ConfusionDisplay",
    "DSMILClassifier",
    "DTFDMILClassifier",
    "DecisionCurveDisplay",
    "GHANetClassifier",
    "GeneAttributionDisplay",
    "GeneSelector",
    "InstanceFilter",
    "InstanceStandardizer",
    "InstanceTransformer",
    "LogCounts",
    "MKDClassifier",
    "MemoryUsageDisplay",
    "MoMKDClassifier",
    "OmicsTable",
    "PRDisplay",
    "PatientStratifiedKFold",
    "PrototypeDisplay",
    "ROCDisplay",
    "ReliabilityDisplay",
    "SlideFile",
    "TDCClassifier",
    "TissueMaskFilter",
    "TransMILClassifier",
    "WiKGClassifier",
    "align_omics",
    "all_estimators",
    "as_bags",
    "background_report",
    "cache_bags",
    "check_leakage",
    "cohort_scores",
    "compare",
    "compare_omics",
    "delong_test",
    "detectable_difference",
    "evaluate",
    "evaluate_external",
    "explain_prediction",
    "gene_attributions",
    "geometry",
    "holm",
    "learning_curve",
    "load_cohort",
    "memory_prototypes",
    "memory_usage",
    "omics_by_patient",
    "patch_affinities",
    "patch_attention",
    "patient_bags",
    "patient_labels",
    "permutation_check",
    "prediction_table",
    "read_bags",
    "read_splits",
    "report",
    "seed_spread",
    "show_versions",
    "simulate_cohort",
    "slide_scores",
    "slide_to_anndata",
    "stamp_table",
    "tissue_source_site",
    "to_geojson",
    "to_stamp",
    "top_patches",
    "write_splits",
    "write_trident",
]
