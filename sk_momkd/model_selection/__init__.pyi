from .split import PatientStratifiedKFold as PatientStratifiedKFold, check_leakage as check_leakage
from .split_files import read_splits as read_splits, write_splits as write_splits
