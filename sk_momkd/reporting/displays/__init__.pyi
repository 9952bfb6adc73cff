from .attention_map import AttentionMapDisplay as AttentionMapDisplay
from .calibration import ReliabilityDisplay as ReliabilityDisplay
from .component_map import ComponentMapDisplay as ComponentMapDisplay
from .curves import PRDisplay as PRDisplay, ROCDisplay as ROCDisplay
from .decisions import (
    ConfusionDisplay as ConfusionDisplay,
    DecisionCurveDisplay as DecisionCurveDisplay,
)
from .genes import GeneAttributionDisplay as GeneAttributionDisplay
from .memory_usage import MemoryUsageDisplay as MemoryUsageDisplay
from .prototypes import PrototypeDisplay as PrototypeDisplay
