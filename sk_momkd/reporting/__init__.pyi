from .displays import (
    AttentionMapDisplay as AttentionMapDisplay,
    ComponentMapDisplay as ComponentMapDisplay,
    ConfusionDisplay as ConfusionDisplay,
    DecisionCurveDisplay as DecisionCurveDisplay,
    GeneAttributionDisplay as GeneAttributionDisplay,
    MemoryUsageDisplay as MemoryUsageDisplay,
    PRDisplay as PRDisplay,
    PrototypeDisplay as PrototypeDisplay,
    ReliabilityDisplay as ReliabilityDisplay,
    ROCDisplay as ROCDisplay,
)
from .html import report as report
