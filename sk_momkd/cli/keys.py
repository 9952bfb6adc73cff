"""What a run file may hold: sections of keys, each of which is an option of the commands, too."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from .problems import UsageProblem


def key(default: Any, text: str, *, values: tuple[str, ...] = ()) -> Any:
    """Field of a section: its default, its help text, and what it may be."""
    if isinstance(default, list | dict):
        kind = type(default)
        return field(default_factory=kind, metadata={"help": text, "values": values})
    return field(default=default, metadata={"help": text, "values": values})


@dataclass
class Cohort:
    """Files of the cohort, and which columns hold what."""

    table: Path | None = key(None, "CSV, TSV or Excel file with a row per slide.")
    features: Path | None = key(None, "Folder with a file of patch features per slide.")
    omics: Path | None = key(None, "Expression of patients or slides: .h5ad, .csv, .parquet ...")
    label: str | None = key(None, "Column of the table with the labels.")
    positive: Any = key(None, "Value that is the positive class; several are one class.")
    negative: Any = key(None, "Values that are the negative class; all others are left out.")
    slide_id: str = key("slide_id", "Column with the slide, as the feature files are called.")
    patient_id: str = key("case_id", "Column with the patient.")
    site: str | None = key(None, "Column with the hospital or centre.")
    slide_table: Path | None = key(None, "STAMP's second table (PATIENT, FILENAME).")
    unit: str = key("slide", "What a bag is.", values=("slide", "patient"))
    layer: str | None = key(None, "Layer of the .h5ad to use instead of X, such as counts.")
    id_column: str | None = key(None, "Column of the omics that holds the ids.")
    barcodes: str | None = key(None, "Read patient and site from barcodes.", values=("tcga",))
    sample_type: str = key("01", "With barcodes: sample type to keep, 01 is primary tumour.")
    cache: Path | None = key(None, "Folder for contiguous copies of the features.")
    allow_external: bool = key(False, "Read content outside the named files.")
    allow_constant: bool = key(False, "Accept slides whose features are all zero.")
    allow_mixed: bool = key(False, "Accept slides whose files state different encoders.")


@dataclass
class Model:
    """The method, and how the final model is kept."""

    method: str = key("momkd", "momkd, abmil, logistic ... (all: sk-momkd versions).")
    preset: str | None = key(None, "Set of parameters: small for momkd, unified for others.")
    scale: bool = key(True, "Standardise patch features inside each training fold.")
    parameters: dict[str, Any] = key({}, "Parameter of the classifier, NAME=VALUE.")
    device: str = key("auto", "cpu, cuda or auto.")
    random_state: int = key(0, "Seed of all random draws.")
    threshold: str | None = key(
        None, "youden, f1, sensitivity=0.9, specificity=0.9, or a probability."
    )
    prior: str = key("training", "Share of the positive class where the model is used.")
    include_omics: bool = key(False, "Keep the omics branch in the file, for explain.")


@dataclass
class Evaluation:
    """Cross-validation."""

    cv: int = key(5, "Number of folds.")
    splits: Path | None = key(None, "Folder of CLAM's splits_<k>.csv instead of folds by chance.")
    n_repeats: int = key(1, "Number of cross-validations with other seeds and folds.")
    keep_sites: bool = key(False, "No site in two folds, nor in training and validation part.")
    n_bootstrap: int = key(2000, "Bootstrap samples of the intervals.")
    confidence_level: float = key(0.95, "Confidence level of the intervals.")
    n_jobs: int | None = key(None, "Folds that are fitted at the same time.")


@dataclass
class Comparison:
    """What `compare` compares."""

    methods: list[str] = key([], "Methods to compare; none: with, without and permuted omics.")
    reference: str | None = key(None, "Method that the others are compared with.")
    within_class: bool = key(False, "Permute omics among patients of the same label.")
    self_distillation: bool = key(
        False, "Train a fourth time, with pooled patches in the place of omics."
    )


@dataclass
class Report:
    """The report page, and pictures of slides."""

    page: bool = key(True, "Write the report page; it takes about as long as a fit.")
    title: str = key("Report of a slide classifier", "Title of the page.")
    images: Path | None = key(None, "Folder with an image of each slide, named by its id.")
    mpp: float | None = key(None, "Micrometres per level-0 pixel, if images do not hold it.")
    n_slides: int = key(3, "Maps of each of the best, worst and most uncertain patients.")


@dataclass
class Card:
    """Text of the model card; what is left out is stated as not stated."""

    name: str | None = key(None, "Name of the model.")
    cohort: str | None = key(None, "Patients, slides and sites of the training data.")
    labels: str | None = key(None, "What the classes mean and how they were measured.")
    intended_use: str | None = key(None, "Who may use the model, and for what.")
    limits: str | None = key(None, "Where it was not tested or does not work.")
    license: str | None = key(None, "Licence, such as bsd-3-clause.")


@dataclass
class Output:
    """Where results go."""

    out: Path = key(Path("results"), "Folder of the results.")


SECTIONS: dict[str, type] = {
    "cohort": Cohort,
    "model": Model,
    "evaluation": Evaluation,
    "comparison": Comparison,
    "report": Report,
    "card": Card,
    "output": Output,
}


@dataclass
class Run:
    """A resolved run: each section with the values of the run file and of the command line."""

    cohort: Cohort = field(default_factory=Cohort)
    model: Model = field(default_factory=Model)
    evaluation: Evaluation = field(default_factory=Evaluation)
    comparison: Comparison = field(default_factory=Comparison)
    report: Report = field(default_factory=Report)
    card: Card = field(default_factory=Card)
    output: Output = field(default_factory=Output)


Uses = dict[str, list[str]]  # section: keys that a command uses

_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
}


def hints_of(section: str) -> dict[str, Any]:
    """Type of each key of a section."""
    return get_type_hints(SECTIONS[section])


def names_of(section: str) -> list[str]:
    """Keys of a section."""
    return [f.name for f in fields(SECTIONS[section])]


def uses(*names: str, without: tuple[str, ...] = ()) -> Uses:
    """Keys that a command uses, each of which is an option of it.

    Examples
    --------
    >>> uses("output", "model.random_state")
    {'output': ['out'], 'model': ['random_state']}
    """
    found: Uses = {}
    for name in names:
        section, _, single = name.partition(".")
        keys = [single] if single else [k for k in names_of(section) if k not in without]
        found.setdefault(section, []).extend(keys)
    return found


def converted(value: Any, hint: Any, where: str) -> Any:
    """A value of a run file as its key has it.

    Raises
    ------
    UsageProblem
        If it is of another kind.
    """
    if hint is Any or (value is None and type(None) in _args(hint)):
        return value
    if hint == list[str]:
        return [str(v) for v in (value if isinstance(value, list) else [value])]
    if hint == dict[str, Any]:
        found = value if isinstance(value, dict) else None
    else:
        kinds = [kind for kind in _KINDS if kind in (hint, *_args(hint))]
        found = next((v for kind in kinds if (v := _as(kind, value)) is not None), None)
    if found is None:
        raise UsageProblem(f"{where} must be {_named(hint)}, got {value!r}.")
    return found


def _args(hint: Any) -> tuple[Any, ...]:
    return getattr(hint, "__args__", ())


def _as(kind: type, value: Any) -> Any:
    """The value as `kind`, None where it is of another kind."""
    if kind is bool or isinstance(value, bool):
        return value if kind is bool and isinstance(value, bool) else None
    if kind in (str, Path):
        return kind(str(value)) if isinstance(value, str | int | float) else None
    if kind is float:
        return float(value) if isinstance(value, int | float) else None
    return value if isinstance(value, int) else None


def _named(hint: Any) -> str:
    named = [words for kind, words in _KINDS.items() if kind in (hint, *_args(hint))]
    return "a mapping NAME: value" if hint == dict[str, Any] else named[0]
