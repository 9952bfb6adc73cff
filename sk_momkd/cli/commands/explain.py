"""`explain`: heat maps, GeoJSON for QuPath, prototypes and genes of a saved model."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from ...exceptions import BagError
from ...io.atomic import atomic_write, require_writable
from ...messages import listed, warn
from ..examples import Command
from ..keys import Run, uses
from ..load import load_models, load_run, model_files, read_slides
from ..options import run_command
from ..pages import check_pictures, warn_without_images
from ..problems import UsageProblem, message_of, nearest
from ..session import Session

if TYPE_CHECKING:
    import pandas as pd

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
_PATCH_SIZE = Annotated[
    float | None, typer.Option(help="Width of a patch in level-0 pixels, if files do not hold it.")
]


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
    patch_size_level0: _PATCH_SIZE = None,
) -> None:
    from ...reporting.displays.style import off_screen

    if column not in ("attention", "evidence"):
        raise UsageProblem(f"--column must be attention or evidence, got {column!r}.")
    fitted = load_models(model_files([model]), "auto")[0]
    _require_attention(fitted)
    check_pictures(run.report)
    _require_positive(n_patches, patch_size_level0)
    require_writable(out)
    bags, omics = _slides(slides, run, output)
    chosen = _chosen(bags, slide, run.report.n_slides, output)
    warn_without_images(chosen, run.report)
    path, scores = _patches(fitted, chosen, out, column)
    written = [path]
    place = _Place(out, column, run.report.mpp, run.report.images, patch_size_level0)
    with off_screen():  # figures of many slides need not be closed
        written += _maps(fitted, chosen, place, scores)
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


def _require_positive(n_patches: int, patch_size: float | None) -> None:
    for name, value in (("--n-patches", n_patches), ("--patch-size-level0", patch_size)):
        if value is not None and not 0 < value < float("inf"):
            raise UsageProblem(f"{name} must be above 0, got {value!r}.")


def _slides(paths: list[Path] | None, run: Run, output: Session) -> tuple[Any, Any]:
    """The slides, and the omics of their patients where a table joins them."""
    if paths:
        return read_slides(paths, run.cohort), None
    run.cohort.unit = "slide"  # maps are of slides, also where a run file makes bags of patients
    cohort = load_run(run, output, labelled=False)
    return cohort.bags, cohort.omics


def _chosen(bags: Any, wanted: list[str] | None, n: int, output: Session) -> Any:
    """The slides that are named, else the first ones."""
    if wanted:
        place = {bag.bag_id: i for i, bag in enumerate(bags)}
        for slide in wanted:
            if slide not in place:
                _refuse_patient(slide, bags)
                raise UsageProblem(nearest(slide, list(place), "slide"))
        return bags[[place[slide] for slide in wanted]]
    if n < len(bags):
        output.note(f"The first {n} of {len(bags)} slides are drawn; --slide names others.")
    return bags[:n]


def _refuse_patient(name: str, bags: Any) -> None:
    own = [str(bag.bag_id) for bag in bags if bag.patient_id == name]
    if own:
        slides = " ".join(f"--slide {shlex.quote(slide)}" for slide in own)
        raise UsageProblem(f"{name!r} is a patient, whose slides are: {slides}")


def _patches(model: Any, bags: Any, out: Path, column: str) -> tuple[Path, pd.DataFrame]:
    """Write attention and evidence of every patch as a table; return the one for the maps."""
    from ...inspection.attention import patch_attention
    from ...inspection.evidence import patch_evidence

    attention, evidence = patch_attention(model, bags), patch_evidence(model, bags)
    new = [name for name in evidence if name not in attention]
    path = _write_table(attention.join(evidence[new]), out / "patches.csv")
    return path, evidence if column == "evidence" else attention


def _write_table(frame: pd.DataFrame, path: Path) -> Path:
    with atomic_write(path) as part:
        frame.to_csv(part, index=False)
    return path


def _write_picture(display: Any, path: Path) -> Path:
    with atomic_write(path) as part:
        display.figure_.savefig(part, dpi=200, format="png")
    return path


def _maps(model: Any, bags: Any, place: _Place, scores: pd.DataFrame) -> list[Path]:
    """Heat map, and squares with scores for QuPath, of each slide that can be drawn."""
    written: list[Path] = []
    kinds = (("map", partial(_heat_map, model)), ("GeoJSON", partial(_squares, scores)))
    for what, write in kinds:
        lacking: dict[str, BagError] = {}
        for bag in bags:
            try:
                written.append(write(bag, place))
            except BagError as error:
                lacking[bag.name] = error
        if lacking:
            _warn_of_lacking(
                f"There is no {what} of {listed(lacking)}", next(iter(lacking.values()))
            )
    return sorted(written)


def _warn_of_lacking(what: str, error: BagError) -> None:
    said = message_of(error, ["mpp"]).replace("patch_size=", "--patch-size-level0")
    warn(f"{what}: {said}")


class _Place(NamedTuple):
    """Where and how maps of slides are written."""

    out: Path
    column: str
    mpp: float | None
    images: Path | None
    patch_size_level0: float | None

    def file(self, bag: Bag, suffix: str) -> Path:
        """File of a map of a slide."""
        return self.out / f"{bag.bag_id}_{self.column}.{suffix}"

    def width(self, bag: Bag) -> float:
        """Width of a patch in the unit of the coordinates."""
        from ...reporting.displays.attention_map import patch_width

        if bag.info.unit is None:
            raise BagError(f"{bag.name} has no coordinates, so it cannot be drawn as a map.")
        per_pixel = self.mpp if bag.info.unit == "um" else 1.0
        if self.patch_size_level0 is not None and per_pixel is not None:
            return self.patch_size_level0 * per_pixel
        return patch_width(bag, bag.info)


def _heat_map(model: Any, bag: Bag, place: _Place) -> Path:
    from ...reporting.displays.attention_map import AttentionMapDisplay
    from ...reporting.displays.prototypes import image_of

    display = AttentionMapDisplay.from_estimator(
        model,
        bag,
        column="evidence" if place.column == "evidence" else None,
        patch_size=place.width(bag),
        mpp=place.mpp,
        image=image_of(str(bag.bag_id), place.images),
    )
    return _write_picture(display, place.file(bag, "png"))


def _squares(scores: pd.DataFrame, bag: Bag, place: _Place) -> Path:
    from ...io.geojson import to_geojson

    width = place.width(bag)
    if bag.info.unit == "um" and place.mpp:
        width /= place.mpp
    path = place.file(bag, "geojson")
    return to_geojson(scores, path, bag=bag, mpp=place.mpp, patch_size=width)


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
    table = _write_table(top_patches(model, bags, n=n), out / "prototypes.csv")
    options: dict[str, Any] = {"images": run.report.images, "mpp": run.report.mpp}
    try:
        display = PrototypeDisplay.from_estimator(model, bags, n=n, **options)
    except BagError as error:
        _warn_of_lacking("There is no picture of the prototypes", error)
        return [table]
    return [table, _write_picture(display, out / "prototypes.png")]


def _genes(model: Any, omics: Any, out: Path, run: Run, output: Session) -> list[Path]:
    """Attributions of the omics branch to genes, as a table and a picture; of MoMKD alone."""
    if not _is_momkd(model):
        output.note("The model has no omics branch, so the omics is not used.")
        return []
    from ...inspection.genes import gene_attributions
    from ...reporting.displays.genes import GeneAttributionDisplay

    found = gene_attributions(model, omics, random_state=run.model.random_state)
    display = GeneAttributionDisplay(found.genes).plot()
    return [
        _write_table(found.genes, out / "genes.csv"),
        _write_picture(display, out / "genes.png"),
    ]


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    text = "Draw where a model looks: maps, GeoJSON for QuPath, prototypes and genes."
    app.command("explain", help=text, cls=Command)(_explain)
