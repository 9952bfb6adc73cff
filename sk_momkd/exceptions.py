"""Errors and warnings of the package; each inherits the builtin that a user would catch."""


class BagError(ValueError):
    """The content of a bag cannot be used.

    Raised when a bag is read and is empty, not finite, or has parts of different length. The
    message names the bag: extract its features again, or leave the slide out.
    """


class BagFileError(BagError, OSError):
    """A bag file is missing, damaged, or lacks a dataset.

    Raised when a file is opened. The message names the file and what it holds: extract it again,
    or give the format with ``read_bags(format=...)``.
    """


class CohortError(ValueError):
    """The slide table, the feature files and the labels do not fit together.

    Raised by :func:`load_cohort` and by what joins tables, splits and masks to slides. The message
    names the slides or the column: correct the table or the arguments that name its columns.
    """


class OmicsError(ValueError):
    """The omics cannot be used, or cannot be joined to the bags by id.

    Raised on duplicate or missing ids, values that are not numbers or not finite, and classes with
    too few patients with omics. The message names the patients or genes: give both sides the same
    ids, and each patient one row.
    """


class TeacherError(OmicsError):
    """No omics teacher can be cross-fitted.

    Raised where too few patients with omics are in a class, or where the teacher's output is the
    same for all. Pair more patients, use another teacher, or train without omics.
    """


class LeakageError(ValueError):
    """A patient is on two sides of a split.

    Raised before anything is fitted or written. The message names the patients: split by patient,
    as :class:`PatientStratifiedKFold` does.
    """


class TrainingError(ArithmeticError):
    """A loss or a weight is no longer finite.

    Raised during training. Lower the learning rate, or scale the features.
    """


class CheckpointError(ValueError):
    """A file of weights is missing, unreadable, or of another model; a fit cannot go on.

    Raised where weights are loaded, and by `fit` with ``training__checkpoint_dir``: the folder is
    of another fit, in use by another process, or damaged. The message names what differs or the
    file: call `fit` as before, or choose another folder.
    """


class ModelFileError(ValueError):
    """A model cannot be saved, or a saved one cannot be loaded.

    Raised by :func:`save_model` and :func:`load_model`. The message names the part of the file or
    the attribute, what came and what was expected: copy the file again, upgrade the package, or
    save the model again where it was made.
    """


class StoreError(ValueError):
    """A store holds fits of another study, or is none.

    Raised by the functions that take ``store=``, before anything is fitted. The message names what
    differs: use another folder, or delete this one to start again.
    """


class CacheWarning(UserWarning):
    """Copies of bags cannot be written, or lose values.

    Free or unlock the folder of copies, or cache in another number format.
    """


class CohortWarning(UserWarning):
    """Slides of a cohort are left out.

    The join report names them with the reason.
    """


class EmptyInstancesWarning(UserWarning):
    """Instances of a bag have no content: all their features are zero.

    A part of the file may never have been written. Extract its features again.
    """


class FeatureShiftWarning(UserWarning):
    """Features of slides are unlike those of the slides that a model was trained on.

    Prepare them as those: by the same encoder and scaling, at the same magnification. With
    ``training__strict=True`` such slides raise `BagError`.
    """


class FeatureTypeWarning(UserWarning):
    """Features are integers that could be the bits of floats.

    Read a few of them. If they are meant as numbers, store them as floats.
    """


class ExpressionScaleWarning(UserWarning):
    """Expression looks neither like counts nor like a log scale, or has values far from all others.

    Check the units, or pass an omics transformer that fits them.
    """


class PairingWarning(UserWarning):
    """Most bags have no omics, so the ids are probably not those of the bags.

    Check that both sides use the same ids.
    """
