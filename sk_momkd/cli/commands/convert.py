"""`convert`: bags into another format, and checkpoints of the authors' program into models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ...exceptions import BagError
from ...io.atomic import atomic_write, require_writable
from ...messages import listed, warn
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
_MAGNIFICATION = Annotated[
    float | None, typer.Option(help="Magnification of the patches, if files do not hold it.")
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
    magnification: _MAGNIFICATION = None,
    dtype: _DTYPE = "float32",
) -> None:
    from ...data.hdf5_output import write_anndata
    from ...io.writers import slide_anndata
    from ...progress import progress_bar

    if to not in ("trident", "h5ad"):
        raise UsageProblem(f"--to must be trident or h5ad, got {to!r}.")
    given = {"--patch-size-level0": patch_size_level0, "--magnification": magnification}
    if to == "h5ad" and (any(v is not None for v in given.values()) or dtype != "float32"):
        raise UsageProblem(
            "--patch-size-level0, --magnification and --dtype have no effect with --to h5ad."
        )
    for name, value in given.items():
        if value is not None and not value > 0:
            raise UsageProblem(f"{name} must be above 0, got {value!r}.")
    if dtype not in ("float32", "float16"):
        raise UsageProblem(f"--dtype must be float32 or float16, got {dtype!r}.")
    _refuse_own_folder(source, folder)
    bags = read_slides(source, run.cohort)
    require_writable(folder)
    if to == "trident":
        _warn_of_what_is_not_written(bags, magnification)
    with progress_bar(len(bags), "slide", "convert", shown=output.shows_bars) as bar:
        for bag in bags:
            if to == "trident":
                _write_trident(bag, folder, patch_size_level0, magnification, dtype)
            else:
                with atomic_write(folder / f"{bag.bag_id}.h5ad", sync=False) as part:
                    write_anndata(slide_anndata(bag), part)
            bar.update()
    output.result(f"{len(bags)} slides: {folder}", {"folder": folder, "n_slides": len(bags)})


def _refuse_own_folder(source: list[Path], folder: Path) -> None:
    """Raise if files of slides would be replaced, or lie beside others of the same slides."""
    for path in source:
        own = path if path.is_dir() else path.parent
        if own.exists() and folder.exists() and own.samefile(folder):
            raise UsageProblem(
                f"{folder} has the files that are to be converted, which would be replaced. Name "
                "another folder."
            )


def _warn_of_what_is_not_written(bags: Any, magnification: float | None) -> None:
    silent = [bag.name for bag in bags if bag.info.magnification is None]
    if silent and magnification is None:
        warn(
            f"{len(silent)} slides state no magnification of their patches ({listed(silent)}); "
            "their new files state 20x. Give --magnification if it is another."
        )
    graphs = [bag.name for bag in bags if any("edge" in key for key in bag.info.keys)]
    if graphs:
        warn(
            f"The stored graphs of {len(graphs)} slides ({listed(graphs)}) are not written: files "
            "of TRIDENT have none, and MoMKD makes one of the coordinates. --to h5ad keeps them."
        )


def _write_trident(
    bag: Any, folder: Path, patch_size: int | None, magnification: float | None, dtype: str
) -> None:
    from ...io.writers import write_trident

    stated = bag.info.patch_size_level0
    stated = None if stated is None else round(stated)
    if stated is None and patch_size is None and bag.info.unit != "um":
        raise BagError(
            f"{bag.name}: the width of its patches in level-0 pixels is unknown. Give "
            "--patch-size-level0."
        )
    for option, given, own in (
        ("--patch-size-level0", patch_size, stated),
        ("--magnification", magnification, bag.info.magnification),
    ):
        if None not in (given, own) and given != own:
            raise BagError(
                f"{bag.name}: its file states {own:g}, but {option} is {given:g}. Leave the option "
                "out, or convert the files that state it by themselves."
            )
    write_trident(
        folder / f"{bag.bag_id}.h5",
        bag,
        patch_size_level0=stated or patch_size or 0,
        target_magnification=magnification,
        dtype=dtype,
    )


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
