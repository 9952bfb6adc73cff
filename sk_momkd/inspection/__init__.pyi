from .attention import patch_attention as patch_attention
from .background import BackgroundReport as BackgroundReport, background_report as background_report
from .explain import (
    PredictionExplanation as PredictionExplanation,
    explain_prediction as explain_prediction,
)
from .genes import GeneAttributions as GeneAttributions, gene_attributions as gene_attributions
from .memory import (
    ComponentUsage as ComponentUsage,
    memory_prototypes as memory_prototypes,
    memory_usage as memory_usage,
    patch_affinities as patch_affinities,
    top_patches as top_patches,
)
from .tables import (
    cohort_scores as cohort_scores,
    prediction_table as prediction_table,
    slide_scores as slide_scores,
    to_stamp as to_stamp,
)
