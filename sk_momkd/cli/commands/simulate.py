"""`simulate`: a cohort on disk with a known signal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..examples import Command
from ..keys import Run
from ..options import run_command
from ..session import Session

_FOLDER = Annotated[Path, typer.Argument(help="Folder to write, which is made.")]
_PREFIX = Annotated[str, typer.Option(help="First part of the patient ids.")]


@run_command(config="none")
def _simulate(
    folder: _FOLDER,
    run: Run,
    output: Session,
    *,
    n_patients: Annotated[int, typer.Option(help="Number of patients, with a slide each.")] = 60,
    n_patches: Annotated[int, typer.Option(help="Patches per slide, which vary by a third.")] = 200,
    n_features: Annotated[int, typer.Option(help="Features of a patch.")] = 64,
    n_genes: Annotated[int, typer.Option(help="Genes of the expression.")] = 1000,
    n_signature: Annotated[int, typer.Option(help="Genes that follow the disease.")] = 40,
    effect: Annotated[
        float, typer.Option(help="Effect of severity on morphology, 0 for none.")
    ] = 1.0,
    omics_only: Annotated[
        float, typer.Option(help="Share of severity that morphology does not show.")
    ] = 0.0,
    omics_effect: Annotated[
        float, typer.Option(help="Effect of severity on expression, 0 for none.")
    ] = 1.0,
    label_noise: Annotated[float, typer.Option(help="Share of patients with a wrong label.")] = 0.0,
    largest_share: Annotated[
        float, typer.Option(help="Largest share of a slide that is informative.")
    ] = 0.3,
    stain_shift: Annotated[
        float, typer.Option(help="Size of a change that all patches share.")
    ] = 0.0,
    n_sites: Annotated[int, typer.Option(help="Number of hospitals.")] = 1,
    site_shift: Annotated[
        float, typer.Option(help="Size of a change that the patches of a hospital share.")
    ] = 0.0,
    omics_fraction: Annotated[float, typer.Option(help="Share of patients with expression.")] = 1.0,
    prefix: _PREFIX = "SIM",
    random_state: Annotated[int, typer.Option(help="Seed of all random draws.")] = 0,
) -> None:
    given = locals()
    from ...data.datasets import simulate_cohort

    paths = simulate_cohort(
        **{name: value for name, value in given.items() if name not in ("run", "output")}
    )
    text = "\n".join(f"{name}: {path}" for name, path in paths._asdict().items())
    output.result(text, paths._asdict())


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    text = "Simulate a cohort: TRIDENT files, a table of slides and expression."
    app.command("simulate", help=text, cls=Command)(_simulate)
