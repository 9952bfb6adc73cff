"""The style of all figures: a colour-blind safe palette, readable type, no clutter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any, Literal

from ...messages import install_hint

# Okabe and Ito's palette without its yellow, which is too light for lines on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#6B6B6B"
SCALE = "viridis"  # perceptually uniform, also when printed in grey
SIGNED_SCALE = "PuOr_r"  # white at 0, orange above it; safe for colour-blind readers

Layout = Literal["constrained", "compressed"]  # compressed: for axes of fixed proportions

_STYLE = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "svg.fonttype": "path",  # the page has no fonts of its own
    "svg.hashsalt": "sk_momkd",  # the same figure is the same file
}


def matplotlib() -> ModuleType:
    """Return the module matplotlib; raises an ImportError with the install command without it."""
    try:
        import matplotlib as module
    except ImportError as error:
        raise ImportError(
            f"Figures need matplotlib, which is not installed: {install_hint('matplotlib')}."
        ) from error
    return module


_OFF_SCREEN = ContextVar("off_screen", default=False)


@contextmanager
def off_screen() -> Iterator[None]:
    """Context in which new figures are not registered with pyplot and need not be closed."""
    token = _OFF_SCREEN.set(True)
    try:
        yield
    finally:
        _OFF_SCREEN.reset(token)


@contextmanager
def styled() -> Iterator[None]:
    """Context in which figures have the style of the package."""
    with matplotlib().rc_context(_STYLE):
        yield


def axes(
    ax: Any, size: tuple[float, float], n: int = 1, *, layout: Layout = "constrained"
) -> list[Any]:
    """Return the passed axes, or `n` new ones side by side in a figure of `size` inches.

    Raises
    ------
    ValueError
        If another number of axes is passed.
    """
    matplotlib()
    if ax is None:
        ax = _new_figure(size, layout).subplots(1, n)
    given = list(ax.flat) if hasattr(ax, "flat") else list(ax) if isinstance(ax, list) else [ax]
    if len(given) != n:
        raise ValueError(f"ax must hold {n} axes, got {len(given)}.")
    return given


def _new_figure(size: tuple[float, float], layout: Layout) -> Any:
    if _OFF_SCREEN.get():
        from matplotlib.figure import Figure

        return Figure(figsize=size, layout=layout)
    from matplotlib import pyplot

    return pyplot.figure(figsize=size, layout=layout)


def shortened(name: str, longest: int = 48) -> str:
    """Replace the middle of a long name by an ellipsis; slide ids often differ at their end.

    Examples
    --------
    >>> shortened("TCGA-A2-A04P-01Z-00-DX1", 12)
    'TCGA-…00-DX1'
    """
    if len(name) <= longest:
        return name
    front = (longest - 1) // 2
    return f"{name[:front]}…{name[front - longest + 1 :]}"


def literal(name: Any) -> str:
    r"""Escape `name` so that matplotlib draws it literally, also in the legend.

    Examples
    --------
    >>> literal("$x$"), literal("_wt")
    ('\\$x\\$', ' _wt')
    """
    text = str(name).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text  # labels with _ are left out of legends


def colour(number: int) -> str:
    """Colour of the line with this number."""
    return COLOURS[number % len(COLOURS)]
