from .comparison import Comparison as Comparison, compare as compare
from .cross_validation import evaluate as evaluate
from .external import (
    ExternalEvaluation as ExternalEvaluation,
    evaluate_external as evaluate_external,
)
from .learning_curves import LearningCurve as LearningCurve, learning_curve as learning_curve
from .misclassified import (
    MisclassifiedPatients as MisclassifiedPatients,
    misclassified_patients as misclassified_patients,
)
from .omics_comparison import OmicsComparison as OmicsComparison, compare_omics as compare_omics
from .permutation import (
    PermutationCheck as PermutationCheck,
    SeedSpread as SeedSpread,
    permutation_check as permutation_check,
    seed_spread as seed_spread,
)
from .results import Evaluation as Evaluation
from .statistics import (
    DeLong as DeLong,
    PowerNote as PowerNote,
    delong_test as delong_test,
    detectable_difference as detectable_difference,
    holm as holm,
)
from .study_store import StudyStore as StudyStore
from .subgroups import subgroup_metrics as subgroup_metrics
