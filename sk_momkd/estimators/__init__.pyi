from .abmil import ABMILClassifier as ABMILClassifier
from .decision_threshold import DecisionThreshold as DecisionThreshold
from .discovery import all_estimators as all_estimators
from .dsmil import DSMILClassifier as DSMILClassifier
from .dtfd import DTFDMILClassifier as DTFDMILClassifier
from .ghanet import GHANetClassifier as GHANetClassifier
from .mkd import MKDClassifier as MKDClassifier
from .momkd import MoMKDClassifier as MoMKDClassifier
from .momkd_options import (
    LossOptions as LossOptions,
    MemoryOptions as MemoryOptions,
    NetworkOptions as NetworkOptions,
)
from .parameters import TrainingOptions as TrainingOptions
from .privileged_classifier import PrivilegedClassifier as PrivilegedClassifier
from .tdc import TDCClassifier as TDCClassifier
from .transmil import TransMILClassifier as TransMILClassifier
from .wikg import WiKGClassifier as WiKGClassifier
