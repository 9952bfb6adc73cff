"""MoMKD for scikit-learn: slide classifiers that learn from privileged omics."""

from .data.bag import Bag
from .data.cohort import load_cohort
from .data.omics import OmicsTable, align_omics
from .data.readers import SlideFile, read_bags
from .data.sequence import BagSequence, as_bags
from .data.simulation import simulate_cohort
from .data.splits import check_leakage
from .data.writers import slide_to_anndata, write_trident
from .estimators.instance_transformer import InstanceTransformer
from .estimators.momkd import MoMKDClassifier
from .estimators.omics_transformer import GeneSelector, LogCounts

__version__ = "0.1.0"

__all__ = [
    "Bag",
    "BagSequence",
    "GeneSelector",
    "InstanceTransformer",
    "LogCounts",
    "MoMKDClassifier",
    "OmicsTable",
    "SlideFile",
    "align_omics",
    "as_bags",
    "check_leakage",
    "load_cohort",
    "read_bags",
    "simulate_cohort",
    "slide_to_anndata",
    "write_trident",
]
