from .attention_map import AttentionMapDisplay as AttentionMapDisplay
from .curves import PRDisplay as PRDisplay, ROCDisplay as ROCDisplay
from .decisions import (
    ConfusionDisplay as ConfusionDisplay,
    DecisionCurveDisplay as DecisionCurveDisplay,
    ReliabilityDisplay as ReliabilityDisplay,
)
from .genes import GeneAttributionDisplay as GeneAttributionDisplay
from .memory import MemoryUsageDisplay as MemoryUsageDisplay
from .prototypes import PrototypeDisplay as PrototypeDisplay
