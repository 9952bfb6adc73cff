from .bag import Bag as Bag, BagInfo as BagInfo
from .datasets import CohortPaths as CohortPaths, simulate_cohort as simulate_cohort
from .omics import OmicsTable as OmicsTable, align_omics as align_omics
from .patient import patient_bags as patient_bags, patient_labels as patient_labels
from .sequence import BagSequence as BagSequence, as_bags as as_bags
