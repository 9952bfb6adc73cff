"""Examples of `--help`; in this order they work when they are pasted into one empty folder."""

from __future__ import annotations

from textwrap import wrap
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from .unknown_options import parameter_as_option

PROGRAM = "sk-momkd"
_WIDTH = 74  # of a terminal of 80 characters
EXAMPLES: dict[str, tuple[str, ...]] = {
    PROGRAM: (
        "sk-momkd simulate demo --n-patients 40 --n-patches 30",
        "sk-momkd init demo --label subtype --positive aggressive",
        "sk-momkd evaluate run.yaml",
        "sk-momkd fit run.yaml",
        "sk-momkd predict results/model.zip demo/features --out predictions.csv",
    ),
    "simulate": (
        "sk-momkd simulate demo --n-patients 40 --n-patches 30",
        "sk-momkd simulate second --n-patients 20 --n-patches 30 --prefix B --stain-shift 0.4",
    ),
    "init": (
        "sk-momkd init demo --label subtype --positive aggressive",
        "sk-momkd init demo/slides.csv demo/features demo/expression.h5ad --write my.yaml",
    ),
    "inspect": (
        "sk-momkd inspect run.yaml",
        "sk-momkd inspect --table demo/slides.csv --features demo/features --label subtype",
    ),
    "evaluate": (
        "sk-momkd evaluate run.yaml",
        "sk-momkd evaluate run.yaml --method logistic --cv 3 --out pooled --json",
    ),
    "compare": (
        "sk-momkd compare run.yaml --methods momkd,logistic --cv 2",
        "sk-momkd compare run.yaml --cv 2 --out omics",
    ),
    "fit": (
        "sk-momkd fit run.yaml",
        "sk-momkd fit run.yaml --threshold sensitivity=0.9 --include-omics --out tuned",
    ),
    "predict": (
        "sk-momkd predict results/model.zip second/features --out predictions.csv",
        "sk-momkd predict results/model.zip --table second/slides.csv"
        " --features second/features --rows patient --out patients.csv",
        "sk-momkd predict results/model.zip second/features --prior 0.2 --threshold 0.5",
        "sk-momkd predict results/model.zip second/features --parts parts --out all.csv",
    ),
    "external": (
        "sk-momkd external results/model.zip --config run.yaml --table second/slides.csv"
        " --features second/features --out second_results",
    ),
    "explain": (
        "sk-momkd explain tuned/model.zip demo/features --n-slides 2 --out maps",
        "sk-momkd explain tuned/model.zip --config run.yaml --slide SIM-001-01Z-00-DX1"
        " --column evidence --out genes",
    ),
    "report": ("sk-momkd report run.yaml --title 'My cohort'",),
    "convert bags": (
        "sk-momkd convert bags demo/features trident --dtype float16",
        "sk-momkd convert bags demo/features anndata --to h5ad",
    ),
    "convert checkpoint": (
        "sk-momkd convert checkpoint s_0_mkd_checkpoint.pt official.zip --classes low,high",
    ),
    "card": ("sk-momkd card results/model.zip",),
    "versions": ("sk-momkd versions", "sk-momkd versions --json"),
}


def examples_of(command: str) -> str:
    """The examples of a command, in lines that no terminal breaks."""
    return "\n".join(f"  {line}" for example in EXAMPLES[command] for line in _lines(example))


def _lines(example: str) -> list[str]:
    """The example in lines that end with a backslash where it goes on."""
    lines = wrap(example, _WIDTH, break_on_hyphens=False, break_long_words=False)
    return [*(f"{line} \\" for line in lines[:-1]), lines[-1]]


class Command(TyperCommand):
    """A command whose help ends with its examples, unwrapped, so that they can be pasted."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments, and say how a parameter is given that is not an option."""
        flags = {flag for option in self.params for flag in (*option.opts, *option.secondary_opts)}
        if problem := parameter_as_option(args, flags):
            ctx.fail(problem)
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, then the examples."""
        super().format_help(ctx, formatter)
        name = str(ctx.command_path).removeprefix(f"{PROGRAM} ")
        if EXAMPLES.get(name):
            typer.echo(f" Examples\n\n{examples_of(name)}\n")


class Group(TyperGroup):
    """The commands together, whose help ends with examples, too."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, then the examples."""
        super().format_help(ctx, formatter)
        if ctx.parent is None:
            typer.echo(f" Examples\n\n{examples_of(PROGRAM)}\n")
