from .anndata_scores import cohort_scores as cohort_scores, slide_scores as slide_scores
from .attention import patch_attention as patch_attention
from .background_attention import (
    BackgroundReport as BackgroundReport,
    background_report as background_report,
)
from .cohort_predictions import predict_cohort as predict_cohort
from .evidence import patch_evidence as patch_evidence
from .genes import GeneAttributions as GeneAttributions, gene_attributions as gene_attributions
from .memory import (
    ComponentUsage as ComponentUsage,
    choose_components as choose_components,
    memory_prototypes as memory_prototypes,
    memory_usage as memory_usage,
)
from .memory_patches import patch_affinities as patch_affinities, top_patches as top_patches
from .predictions import prediction_table as prediction_table, to_stamp as to_stamp
from .shapley import (
    PredictionExplanation as PredictionExplanation,
    explain_prediction as explain_prediction,
)
