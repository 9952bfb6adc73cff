"""`explain`: heat maps, GeoJSON for QuPath, prototypes and genes of a saved model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..examples import Command
from ..keys import Run, uses
from ..load import load_models, load_run, model_files, read_slides
from ..options import run_command
from ..problems import UsageProblem, nearest
from ..session import Session

if TYPE_CHECKING:
    from ...data.bag import Bag

_MODEL = Annotated[Path, typer.Argument(help="Model that fit has saved.")]
_SLIDES = Annotated[
    list[Path] | None, typer.Argument(help="Feature files, or a folder; or use a run file.")
]
_OUT = Annotated[Path, typer.Option(help="Folder to write, which is made.")]
_SLIDE = Annotated[list[str] | None, typer.Option(help="Id of a slide to draw; may be repeated.")]
_COLUMN = Annotated[str, typer.Option(help="attention, or evidence for the positive class.")]
_NOT_USED = ("title", "page", "unit", "label", "positive", "negative")
_USES = uses("cohort", "model.random_state", "report", without=_NOT_USED)
_PATCHES = Annotated[int, typer.Option(help="Patches of each memory component.")]


@run_command(_USES, config="option")
def _explain(
    model: _MODEL,
    run: Run,
    output: Session,
    slides: _SLIDES = None,
    out: _OUT = Path("explanation"),
    slide: _SLIDE = None,
    column: _COLUMN = "attention",
    n_patches: _PATCHES = 3,
) -> None:
    if column not in ("attention", "evidence"):
        raise UsageProblem(f"--column must be attention or evidence, got {column!r}.")
    fitted = load_models(model_files([model]), "auto")[0]
    _require_attention(fitted)
    bags, omics = _slides(slides, run, output)
    out.mkdir(parents=True, exist_ok=True)
    chosen = _chosen(bags, slide, run.report.n_slides, output)
    written = _patches(fitted, chosen, out)
    for bag in chosen:
        written += _maps(fitted, bag, column, run, out)
    written += _prototypes(fitted, bags, n_patches, run, out, output)
    written += [] if omics is None else _genes(fitted, omics, out, run, output)
    output.result("\n".join(map(str, written)), {"files": written})


def _require_attention(model: Any) -> None:
    """Refuse a model without attention over patches, such as logistic regression."""
    from ...inspection.fitted import fitted_classifier

    try:
        fitted_classifier(model)
    except TypeError as error:
        raise ValueError(str(error)) from error


def _slides(paths: list[Path] | None, run: Run, output: Session) -> tuple[Any, Any]:
    """The slides, and the omics of their patients where a table joins them."""
    if paths:
        return read_slides(paths, run.cohort), None
    cohort = load_run(run, output, labelled=False)
    return cohort.bags, cohort.omics


def _chosen(bags: Any, wanted: list[str] | None, n: int, output: Session) -> Any:
    """The slides that are named, else the first ones."""
    if wanted:
        place = {bag.bag_id: i for i, bag in enumerate(bags)}
        for slide in wanted:
            if slide not in place:
                raise UsageProblem(nearest(slide, list(place), "slide"))
        return bags[[place[slide] for slide in wanted]]
    if n < len(bags):
        output.note(f"The first {n} of {len(bags)} slides are drawn; --slide names others.")
    return bags[:n]


def _patches(model: Any, bags: Any, out: Path) -> list[Path]:
    """Attention and evidence of every patch as a table."""
    from ...inspection.attention import patch_attention
    from ...inspection.evidence import patch_evidence

    attention, evidence = patch_attention(model, bags), patch_evidence(model, bags)
    new = [name for name in evidence if name not in attention]
    path = out / "patches.csv"
    attention.join(evidence[new]).to_csv(path, index=False)
    return [path]


def _maps(model: Any, bag: Bag, column: str, run: Run, out: Path) -> list[Path]:
    """Heat map, and squares with scores for QuPath, of one slide."""
    from ...data.sequence import BagSequence
    from ...inspection.attention import patch_attention
    from ...inspection.evidence import patch_evidence
    from ...io.geojson import to_geojson
    from ...reporting.displays.attention_map import AttentionMapDisplay
    from ...reporting.displays.prototypes import image_of

    asked = "evidence" if column == "evidence" else None
    options: dict[str, Any] = {
        "mpp": run.report.mpp,
        "image": image_of(str(bag.bag_id), run.report.images),
    }
    display = AttentionMapDisplay.from_estimator(model, bag, column=asked, **options)
    table = (patch_evidence if asked else patch_attention)(model, BagSequence([bag]))
    path = out / f"{bag.bag_id}_{column}"
    display.figure_.savefig(path.with_name(f"{path.name}.png"), dpi=200)
    geojson = to_geojson(table, path.with_name(f"{path.name}.geojson"), bag=bag, mpp=run.report.mpp)
    return [path.with_name(f"{path.name}.png"), geojson]


def _is_momkd(model: Any) -> bool:
    from ...evaluation.routing import estimator_name

    return estimator_name(model) == "MoMKDClassifier"


def _prototypes(model: Any, bags: Any, n: int, run: Run, out: Path, output: Session) -> list[Path]:
    """The patches that each memory component matches best; of MoMKD alone."""
    from ...inspection.memory_patches import top_patches
    from ...reporting.displays.prototypes import PrototypeDisplay

    if not _is_momkd(model):
        output.note("The model has no memory, so there are no prototypes.")
        return []
    top_patches(model, bags, n=n).to_csv(out / "prototypes.csv", index=False)
    options: dict[str, Any] = {"images": run.report.images, "mpp": run.report.mpp}
    display = PrototypeDisplay.from_estimator(model, bags, n=n, **options)
    display.figure_.savefig(out / "prototypes.png", dpi=200)
    return [out / "prototypes.csv", out / "prototypes.png"]


def _genes(model: Any, omics: Any, out: Path, run: Run, output: Session) -> list[Path]:
    """Attributions of the omics branch to genes, as a table and a picture; of MoMKD alone."""
    if not _is_momkd(model):
        output.note("The model has no omics branch, so the omics is not used.")
        return []
    from ...inspection.genes import gene_attributions
    from ...reporting.displays.genes import GeneAttributionDisplay

    found = gene_attributions(model, omics, random_state=run.model.random_state)
    written = [out / "genes.csv", out / "genes.png"]
    found.genes.to_csv(written[0], index=False)
    GeneAttributionDisplay(found.genes).plot().figure_.savefig(written[1], dpi=200)
    return written


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    text = "Draw where a model looks: maps, GeoJSON for QuPath, prototypes and genes."
    app.command("explain", help=text, cls=Command)(_explain)
