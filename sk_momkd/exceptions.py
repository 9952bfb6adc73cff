"""Errors and warnings of the package; each inherits the builtin that a user would catch."""


class BagError(ValueError):
    """A bag's content is unusable: empty, not finite, or of inconsistent shape."""


class BagFileError(BagError, OSError):
    """A bag file is missing, unreadable, truncated, or lacks a dataset."""


class CohortError(ValueError):
    """The slide table, the feature files and the labels do not fit together."""


class OmicsError(ValueError):
    """The omics table is unusable or cannot be joined to the bags by id."""


class LeakageError(ValueError):
    """A patient stands on both sides of a split."""


class TrainingError(ArithmeticError):
    """Training ran away: a loss or a weight is no longer finite."""


class CohortWarning(UserWarning):
    """Slides of a cohort were left out; the join report names them."""


class ExpressionScaleWarning(UserWarning):
    """Expression looks neither like counts nor like a log scale."""


class PairingWarning(UserWarning):
    """Most bags found no omics; the join is probably on the wrong ids."""
