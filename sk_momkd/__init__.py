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
from .estimators.background import BackgroundDetector
from .estimators.instance_filter import InstanceFilter
from .estimators.instance_standardizer import InstanceStandardizer
from .estimators.instance_transformer import InstanceTransformer
from .estimators.momkd import MoMKDClassifier
from .estimators.omics_transformer import GeneSelector, LogCounts
from .estimators.tissue_mask import TissueMaskFilter
from .versions import show_versions

__version__ = "0.1.0"

__all__ = [
    "BackgroundDetector",
    "Bag",
    "BagSequence",
    "GeneSelector",
    "InstanceFilter",
    "InstanceStandardizer",
    "InstanceTransformer",
    "LogCounts",
    "MoMKDClassifier",
    "OmicsTable",
    "PatientStratifiedKFold",
    "SlideFile",
    "TissueMaskFilter",
    "align_omics",
    "as_bags",
    "cache_bags",
    "check_leakage",
    "geometry",
    "load_cohort",
    "omics_by_patient",
    "patient_bags",
    "patient_labels",
    "read_bags",
    "read_splits",
    "show_versions",
    "simulate_cohort",
    "slide_to_anndata",
    "stamp_table",
    "tissue_source_site",
    "write_splits",
    "write_trident",
]
