"""`report`: one self-contained HTML file about a result, its models and its cohort."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ...data.sequence import as_bags
from ...evaluation.routing import final_estimator
from ...io.atomic import atomic_write
from ...io.join_report import JoinReport
from ...messages import install_hint
from ...versions import facts
from ..displays.style import matplotlib
from ..repeat_predictions import ensemble_note, interval_text, positive_note, with_interval
from .blocks import Section
from .checklist_section import checklist_section
from .cohort_section import cohort_section
from .context import ReportContext, bag_name
from .model_sections import genes_section, memory_section, prototypes_section, slides_section
from .omics_section import omics_section
from .reproducibility_section import reproducibility_section
from .result_sections import calibration_section, predictions_section, results_section
from .verdict_section import verdict_section

_SECTIONS: tuple[Callable[[ReportContext], Section], ...] = (
    verdict_section,
    cohort_section,
    results_section,
    calibration_section,
    omics_section,
    memory_section,
    prototypes_section,
    slides_section,
    genes_section,
    predictions_section,
    checklist_section,
    reproducibility_section,
)


def report(
    result: Any,
    path: str | PathLike,
    *,
    bags: Any = None,
    y: Any = None,
    omics: Any = None,
    join: JoinReport | None = None,
    subgroups: pd.DataFrame | None = None,
    model: Any = None,
    images: Mapping[str, Any] | str | PathLike | None = None,
    mpp: float | None = None,
    title: str = "Report of a slide classifier",
    notes: Mapping[str, str] | None = None,
    n_slides: int = 3,
    n_patches: int = 3,
    random_state: int = 0,
) -> Path:
    """Write a self-contained HTML report, which needs no network.

    Parameters
    ----------
    result : Evaluation, ExternalEvaluation, Comparison, OmicsComparison or fitted classifier
        Result to report. Of a comparison, the page shows its tables and describes the method with
        the highest mean AUROC over folds that is not the reference, or the method ``"with"``
        omics. Attention maps and prototypes need fitted models:
        ``evaluate(..., keep_models=True)``.
    path : path
        HTML file to write; an existing file is replaced.
    bags : bags in any form that `fit` accepts, optional
        The cohort, for attention maps and prototypes. The map of each patient is that of the model
        that was not trained on this patient.
    y : array-like of shape (n_bags,), optional
        Labels, for the hash of the cohort.
    omics : AnnData, DataFrame or OmicsTable, optional
        Omics, for the gene attributions.
    join : JoinReport, optional
        Fourth return value of :func:`load_cohort`, for the flow diagram of the cohort.
    subgroups : DataFrame, index patient id, optional
        Columns such as sex, stage or scanner, for :func:`subgroup_metrics`.
    model : fitted classifier or pipeline, optional
        Model to use if `result` kept no models.
    images : dict of slide id to path or open slide, or folder, optional
        Images of slides; in a folder, files are named by the slide id.
    mpp : float, optional
        Micrometres per level-0 pixel. It is needed if images do not hold their resolution.
    title : str, default="Report of a slide classifier"
        Title of the page.
    notes : dict of str to str, optional
        Answers of the authors by topic of the checklist; other topics are added to it.
    n_slides : int, default=3
        Number of attention maps of each of the best, worst and most uncertain patients.
    n_patches : int, default=3
        Number of patches per memory component.
    random_state : int, default=0
        Controls the gene attributions.

    Returns
    -------
    Path
        Path of the file.

    Raises
    ------
    TypeError
        If `result` is neither a result of an evaluation nor a fitted classifier.
    ValueError
        If `y` and `bags` differ in length, or `n_slides` or `n_patches` is less than 1.
    IsADirectoryError
        If `path` is a folder.
    ImportError
        If matplotlib or jinja2 is not installed.

    Notes
    -----
    A section that cannot be filled gives the reason. Names of slides, patients and classes are
    escaped, and a content security policy forbids scripts and connections.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from sk_momkd import MoMKDClassifier, load_cohort, simulate_cohort
    >>> from sk_momkd.reporting.html.page import report
    >>> paths = simulate_cohort(mkdtemp(), n_patients=12, n_patches=20, random_state=0)
    >>> bags, y, omics, join = load_cohort(*paths, label="subtype")
    >>> clf = MoMKDClassifier(hidden_dim=16, projection_dim=8, n_components=2, max_epochs=2)
    >>> clf.set_params(random_state=0).fit(bags, y, omics=omics)  # doctest: +ELLIPSIS
    MoMKDClassifier(...)
    >>> path = report(clf, f"{mkdtemp()}/report.html", bags=bags, join=join, n_slides=1)
    >>> path.read_text(encoding="utf-8")[:15]
    '<!DOCTYPE html>'
    """
    _require(n_slides=n_slides, n_patches=n_patches)
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(
            f"{path} is a folder. Pass the name of a file, such as {path / 'report.html'}."
        )
    chosen, comparison, models = _split_result(result, model)
    sequence = None if bags is None else as_bags(bags)
    context = ReportContext(
        result=chosen,
        comparison=comparison,
        models=models,
        bags=sequence,
        labels=_labels(sequence, y),
        omics=omics,
        join=join,
        subgroups=subgroups,
        images=images,
        mpp=mpp,
        n_slides=n_slides,
        n_patches=n_patches,
        random_state=random_state,
        notes={str(k): str(v) for k, v in (notes or {}).items()},
    )
    template = _template()
    matplotlib()
    page = template.render(
        title=title,
        headline=_headline(context),
        version=facts()["sk_momkd"],
        date=datetime.date.today().isoformat(),
        cards=_cards(context),
        sections=[fill(context) for fill in _SECTIONS],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as part:
        Path(part).write_text(page, encoding="utf-8")
    return path


def _require(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count!r}.")


def _split_result(result: Any, model: Any) -> tuple[Any, Any, dict[tuple[int, int], Any]]:
    """Return the result of one method, its comparison, and its models by repeat and fold."""
    evaluations = getattr(result, "evaluations", None)
    comparison = None if evaluations is None else result
    if evaluations is not None:
        result = evaluations[_method_of(comparison)]
    if hasattr(result, "predictions") and hasattr(result, "summary"):
        given = {} if model is None else {(0, 0): model}
        return result, comparison, _models(result) or given
    if not hasattr(final_estimator(result), "classes_"):
        raise TypeError(
            "Expected the result of evaluate, evaluate_external, compare or compare_omics, or a "
            f"fitted classifier, got {type(result).__name__}"
            + (", which is not fitted. Call fit first." if hasattr(result, "fit") else ".")
        )
    return None, None, {(0, 0): result}


def _method_of(comparison: Any) -> str:
    if "with" in comparison.evaluations and not hasattr(comparison, "reference"):
        return "with"
    scores = comparison.summary["fold_auroc"].drop(comparison.reference)
    return str(scores.idxmax()) if len(scores) else comparison.reference


def _models(result: Any) -> dict[tuple[int, int], Any]:
    """Return the kept models, whose order is that of the rows of `folds`."""
    kept = getattr(result, "models", ())
    if not kept:
        return {}
    keys = result.folds[["repeat", "fold"]].itertuples(index=False)
    return {(int(r), int(f)): m for (r, f), m in zip(keys, kept, strict=True)}


def _labels(bags: Any, y: Any) -> dict[str, Any]:
    if bags is None or y is None:
        return {}
    labels = np.asarray(y)
    if len(labels) != len(bags):
        raise ValueError(f"y has {len(labels)} labels, but there are {len(bags)} bags.")
    return {bag_name(bags, i): label for i, label in enumerate(labels.tolist())}


def _headline(context: ReportContext) -> str:
    if context.result is not None:
        return context.result.headline
    return f"A fitted {type(context.classifier).__name__} without evaluation."


def _cards(context: ReportContext) -> list[tuple[str, str]]:
    if context.result is None:
        return []
    result, summary = context.result, context.result.summary
    cards = [(str(len(context.patient_confidence())), "patients")]
    wanted = [("auroc", f"AUROC{ensemble_note(result)}")]
    note = positive_note(result)
    wanted += [(name, f"{name}{note}") for name in ("sensitivity", "specificity")]
    for metric, words in [*wanted, ("calibration_error", "calibration error")]:
        if metric in summary.index:
            value, low, high = with_interval(result, metric)
            cards.append((f"{value:.3f}", f"{words} {interval_text(low, high)}"))
    return cards


def _template() -> Any:
    try:
        import jinja2
    except ImportError as error:
        raise ImportError(
            f"The report needs jinja2, which is not installed: {install_hint('jinja2')}."
        ) from error
    loader = jinja2.PackageLoader("sk_momkd.reporting.html", "templates")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("report.html")
