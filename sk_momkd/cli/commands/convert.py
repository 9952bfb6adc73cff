"""`convert`: bags into another format, and checkpoints of the authors' program into models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ...exceptions import BagError
from ...io.atomic import atomic_write, require_writable
from ..examples import Command, Group
from ..keys import Run
from ..load import read_slides
from ..options import run_command
from ..problems import UsageProblem
from ..session import Session

_SOURCE = Annotated[list[Path], typer.Argument(help="Folder or files of bags, in any format.")]
_FOLDER = Annotated[Path, typer.Argument(help="Folder to write, which is made.")]
_TO = Annotated[str, typer.Option(help="trident (HDF5) or h5ad (AnnData).")]
_PATCH_SIZE = Annotated[
    int | None, typer.Option(help="Width of a patch in level-0 pixels, if files do not hold it.")
]
_DTYPE = Annotated[str, typer.Option(help="float32 or float16, for trident.")]
_CHECKPOINT = Annotated[Path, typer.Argument(help="s_<fold>_mkd_checkpoint.pt of the authors.")]
_MODEL = Annotated[Path, typer.Argument(help="Model to write, .zip or a folder.")]
_CLASSES = Annotated[str, typer.Option(help="Negative and positive label, separated by a comma.")]


@run_command(config="none")
def _bags(
    source: _SOURCE,
    folder: _FOLDER,
    run: Run,
    output: Session,
    to: _TO = "trident",
    patch_size_level0: _PATCH_SIZE = None,
    dtype: _DTYPE = "float32",
) -> None:
    from ...progress import progress_bar

    if to not in ("trident", "h5ad"):
        raise UsageProblem(f"--to must be trident or h5ad, got {to!r}.")
    if to == "h5ad" and (patch_size_level0 is not None or dtype != "float32"):
        raise UsageProblem("--patch-size-level0 and --dtype have no effect with --to h5ad.")
    bags = read_slides(source, run.cohort)
    require_writable(folder)
    with progress_bar(len(bags), "slide", "convert", shown=output.shows_bars) as bar:
        for bag in bags:
            _write(bag, folder, to, patch_size_level0, dtype)
            bar.update()
    output.result(f"{len(bags)} slides: {folder}", {"folder": folder, "n_slides": len(bags)})


def _write(bag: Any, folder: Path, to: str, patch_size: int | None, dtype: str) -> None:
    from ...data.hdf5_output import write_anndata
    from ...io.writers import slide_anndata, write_trident

    if to == "h5ad":
        with atomic_write(folder / f"{bag.bag_id}.h5ad", sync=False) as part:
            write_anndata(slide_anndata(bag), part)
        return
    info = bag.info
    known = info.patch_size if info.unit != "um" else None
    size = patch_size or (None if known is None else round(known))
    if size is None:
        raise BagError(
            f"{bag.name}: the width of its patches in level-0 pixels is unknown. Give "
            "--patch-size-level0."
        )
    write_trident(folder / f"{bag.bag_id}.h5", bag, patch_size_level0=size, dtype=dtype)


@run_command(config="none")
def _checkpoint(
    checkpoint: _CHECKPOINT, model: _MODEL, run: Run, output: Session, classes: _CLASSES = "0,1"
) -> None:
    from ...estimators.momkd import MoMKDClassifier
    from ...persistence.model_files import save_model

    labels: list[Any] = [label.strip() for label in classes.split(",")]
    if all(label.isdigit() for label in labels):
        labels = [int(label) for label in labels]
    path = save_model(MoMKDClassifier.from_official_checkpoint(checkpoint, labels), model)
    output.result(f"model: {path}", {"model": path})


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    group = typer.Typer(no_args_is_help=True, cls=Group)
    text = "Write bags of any format as files of TRIDENT or as AnnData."
    group.command("bags", help=text, cls=Command)(_bags)
    text = "Write a checkpoint of the authors' program as a model for predict."
    group.command("checkpoint", help=text, cls=Command)(_checkpoint)
    app.add_typer(group, name="convert", help="Convert bags, or checkpoints of the authors.")
