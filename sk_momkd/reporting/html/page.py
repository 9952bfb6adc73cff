"""`report`: one self-contained HTML file about a result, its models and its cohort."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ...data.sequence import as_bags
from ...evaluation.routing import final_estimator
from ...io.atomic import atomic_write
from ...io.join_report import JoinReport
from ...versions import facts
from ..displays.style import matplotlib
from ..predicted import interval_text, with_interval
from .blocks import Section
from .checklist import checklist_section
from .sections_model import genes_section, memory_section, prototypes_section, slides_section
from .sections_result import (
    calibration_section,
    cohort_section,
    predictions_section,
    results_section,
)
from .sections_run import run_section
from .subject import Subject, bag_name

_SECTIONS: tuple[Callable[[Subject], Section], ...] = (
    cohort_section,
    results_section,
    calibration_section,
    memory_section,
    prototypes_section,
    slides_section,
    genes_section,
    predictions_section,
    checklist_section,
    run_section,
)


def report(
    result: Any,
    path: str | PathLike,
    *,
    bags: Any = None,
    y: Any = None,
    omics: Any = None,
    join: JoinReport | None = None,
    model: Any = None,
    images: Mapping[str, Any] | str | PathLike | None = None,
    mpp: float | None = None,
    title: str = "Report of a slide classifier",
    notes: Mapping[str, str] | None = None,
    n_slides: int = 3,
    n_patches: int = 3,
    random_state: int = 0,
) -> Path:
    """Write a page that opens from disk and loads nothing.

    Parameters
    ----------
    result : Evaluation, ExternalEvaluation, Comparison, OmicsComparison or fitted classifier
        Of a comparison, the page is about the method with the highest AUROC within folds that is
        not the reference, or about ``"with"`` omics; its tables stand in the page. Heat maps and
        prototypes need models: ``evaluate(..., keep_models=True)``.
    path : path
        The HTML file; replaced where it exists.
    bags : BagSequence or whatever `as_bags` reads, optional
        The cohort, for heat maps and prototypes. Each patient is shown with the model that did not
        train on it.
    y : array-like of shape (n_bags,), optional
        Labels, which stand in the hash of the cohort.
    omics : AnnData, DataFrame or OmicsTable, optional
        For the genes.
    join : JoinReport, optional
        The fourth thing that :func:`load_cohort` returns, for the flow of the cohort.
    model : fitted classifier or pipeline, optional
        For a result that kept no models.
    images : dict of slide id to path or open slide, or folder, optional
        Pictures of slides; in a folder the file named by the slide id.
    mpp : float, optional
        Micrometres per level-0 pixel, where the pictures do not tell.
    title : str
    notes : dict of str to str, optional
        What the authors answer to topics of the checklist; other topics are added to it.
    n_slides : int, default=3
        Heat maps of the best, worst and most uncertain patients, each.
    n_patches : int, default=3
        Patches per memory component.
    random_state : int, default=0
        Of the genes' attributions.

    Returns
    -------
    Path
        Of the file.

    Raises
    ------
    TypeError
        If `result` is neither a result of an evaluation nor a fitted classifier.
    IsADirectoryError
        If `path` is a folder.
    ImportError
        If matplotlib or jinja2 is not installed.

    Notes
    -----
    A section that cannot be filled says why, in a line. Names that come from users are shown as
    text, whatever they hold, and the page forbids itself scripts and connections.

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
        raise IsADirectoryError(f"{path} is a folder; name the file, as in {path / 'report.html'}.")
    chosen, comparison, models = _what(result, model)
    sequence = None if bags is None else as_bags(bags)
    subject = Subject(
        result=chosen,
        comparison=comparison,
        models=models,
        bags=sequence,
        labels=_labels(sequence, y),
        omics=omics,
        join=join,
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
        headline=_headline(subject),
        version=facts()["sk_momkd"],
        date=datetime.date.today().isoformat(),
        cards=_cards(subject),
        sections=[fill(subject) for fill in _SECTIONS],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as part:
        Path(part).write_text(page, encoding="utf-8")
    return path


def _require(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count!r}.")


def _what(result: Any, model: Any) -> tuple[Any, Any, dict[tuple[int, int], Any]]:
    """The result of one method, the comparison it is of, and the models by repeat and fold."""
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
            + (", which is not fitted: call fit first." if hasattr(result, "fit") else ".")
        )
    return None, None, {(0, 0): result}


def _method_of(comparison: Any) -> str:
    if "with" in comparison.evaluations and not hasattr(comparison, "reference"):
        return "with"
    scores = comparison.summary["fold_auroc"].drop(comparison.reference)
    return str(scores.idxmax()) if len(scores) else comparison.reference


def _models(result: Any) -> dict[tuple[int, int], Any]:
    """Kept models; they stand in the order of the rows of `folds`."""
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


def _headline(subject: Subject) -> str:
    if subject.result is not None:
        return subject.result.headline
    return f"A fitted {type(subject.classifier).__name__}, not evaluated on this page."


def _cards(subject: Subject) -> list[tuple[str, str]]:
    if subject.result is None:
        return []
    result, summary = subject.result, subject.result.summary
    cards = [(str(len(subject.confidence_of_patients())), "patients")]
    wanted = [("auroc", "AUROC")]
    suffix = "_tuned" if summary["value"].notna().get("sensitivity_tuned", False) else ""
    wanted += [(f"{name}{suffix}", name) for name in ("sensitivity", "specificity")]
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
            "The report needs jinja2, which is not installed: pip install 'sk_momkd[report]'."
        ) from error
    loader = jinja2.PackageLoader("sk_momkd.reporting.html", "templates")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("report.html")
