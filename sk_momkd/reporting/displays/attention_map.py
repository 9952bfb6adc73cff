"""Map of values of patches, such as attention, on a slide."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ... import inspection
from ...data.bag import Bag, BagInfo
from ...data.sequence import BagSequence
from ...exceptions import BagError
from ...io.geometry import check_geometry
from .slide_image import open_slide
from .style import SCALE, SIGNED_SCALE, axes, literal, shortened, styled

_MISSING = "#F2F2F2"  # colour of areas without patches
WIDE = 6.2  # inches
_SAME = 1e-6  # relative difference of values that are drawn as one


@dataclass
class AttentionMapDisplay:
    """Draw values of patches as squares of their true size, over the slide's image if given.

    Parameters
    ----------
    xy : ndarray of shape (n_patches, 2)
        Top-left corners in `unit`.
    values : ndarray of shape (n_patches,)
    patch_size : float
        Width of a patch in `unit`. In level-0 pixels this is ``patch_size_level0``: for patches at
        20x of a slide scanned at 40x, twice the width in pixels of the encoder's input.
    unit : {"px", "um"}, default="px"
        Unit of `xy` and `patch_size`: level-0 pixels or micrometres.
    mpp : float, optional
        Micrometres per level-0 pixel. If it is known, axes and scale bar are in micrometres.
    image : path, OpenSlide, TiffSlide, optional
        The slide, whose thumbnail is drawn below the values and whose resolution is the default
        for `mpp`.
    label : str, default="value"
        Label of the colour bar.
    title : str, default=""
        Title of the axes.
    signed : bool, default=False
        Whether values have a sign, as evidence has: the colour scale is then symmetric about 0.

    Attributes
    ----------
    figure_, ax_ : matplotlib Figure and Axes
    patches_ : matplotlib PolyCollection

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd.reporting.displays.attention_map import AttentionMapDisplay
    >>> xy = np.array([[0, 0], [512, 0], [0, 512]])
    >>> display = AttentionMapDisplay(xy, np.array([0.2, 0.5, 0.3]), 512, mpp=0.25).plot()
    >>> display.ax_.get_xlabel(), float(display.ax_.get_xlim()[1])
    ('µm', 256.0)
    """

    xy: NDArray
    values: NDArray
    patch_size: float
    unit: str = "px"
    mpp: float | None = None
    image: Any = field(default=None, repr=False)
    label: str = "value"
    title: str = ""
    signed: bool = False
    figure_: Any = field(init=False, default=None, repr=False)
    ax_: Any = field(init=False, default=None, repr=False)
    patches_: Any = field(init=False, default=None, repr=False)

    @classmethod
    def from_estimator(
        cls,
        clf: Any,
        bag: Bag,
        *,
        column: str | None = None,
        patch_size: float | None = None,
        mpp: float | None = None,
        image: Any = None,
        width: float = WIDE,
        ax: Any = None,
    ) -> Self:
        """Draw the attention of a classifier over a slide, or its evidence for a class.

        Parameters
        ----------
        clf : fitted classifier with attention, or pipeline that ends in one
        bag : Bag
            A single slide with coordinates.
        column : str, optional
            Column of :func:`sk_momkd.patch_attention` or :func:`sk_momkd.patch_evidence`;
            ``"evidence"`` is that for the positive class. The default is ``attention`` or, for
            several maps, the last one. Both are multiplied by the number of patches: attention of
            1 is uniform attention, and evidence of 1 is a logit if all patches had the same.
        patch_size : float, optional
            Width of a patch in the unit of the coordinates. By default it is read from the bag's
            file or, if that does not hold it, is the most common step between patches.
        mpp : float, optional
            Micrometres per level-0 pixel.
        image : path, OpenSlide, TiffSlide, optional
        width : float, default=6.2
            Width of a new figure in inches.
        ax : matplotlib Axes, optional

        Returns
        -------
        AttentionMapDisplay

        Raises
        ------
        BagError
            If the bag has no coordinates or several slides, or its patch size is unknown.
        TypeError
            If the classifier has no attention.
        ValueError
            If there is no such column.
        """
        require_one_slide(bag)
        table, column = _column_of(clf, BagSequence([bag]), column)
        xy = table[["x", "y"]].to_numpy(dtype=float)
        if not np.isfinite(xy).all():
            raise BagError(f"{bag.name} has no coordinates, so it cannot be drawn as a map.")
        values, label = _values(table, column)
        info = bag.info
        return cls(
            xy,
            values,
            patch_width(bag, info) if patch_size is None else patch_size,
            unit="um" if info.unit == "um" else "px",
            mpp=mpp,
            image=image,
            label=label,
            title=bag.bag_id or "",
            signed=column.startswith("evidence"),
        ).plot(ax, width=width)

    def plot(
        self,
        ax: Any = None,
        *,
        cmap: str | None = None,
        alpha: float | None = None,
        percentiles: tuple[float, float] = (1, 99),
        width: float = WIDE,
    ) -> Self:
        """Draw into `ax`, or into a new figure.

        Parameters
        ----------
        ax : matplotlib Axes, optional
        cmap : str, optional
            By default "viridis", and "PuOr_r" for signed values: orange speaks for a class, violet
            against it.
        alpha : float, optional
            Opacity; by default 1, and 0.55 over an image.
        percentiles : tuple of float, default=(1, 99)
            Percentiles of the values at the ends of the colour scale; for signed values, the
            second is that of their size.
        width : float, default=6.2
            Width of a new figure in inches.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If there is not one value for each corner, none is a number, or the width of a patch is
            not above 0.
        """
        self._check()
        slide = None if self.image is None else open_slide(self.image)
        mpp = slide.mpp if self.mpp is None and slide is not None else self.mpp
        if self.mpp is not None and not self.mpp > 0:
            raise ValueError(f"mpp must be above 0 micrometres per pixel, got {self.mpp!r}.")
        scale, unit = (1.0, "µm") if self.unit == "um" else (mpp or 1.0, "µm" if mpp else "px")
        if slide is not None and self.unit == "um" and not mpp:
            raise BagError(
                f"{self.title or 'The bag'} has coordinates in micrometres, but the resolution of "
                "its image is unknown. Pass mpp= to draw the map over the image."
            )
        picture = None if slide is None else np.array(slide.size) * (mpp or 1.0)
        with styled():
            if ax is None:
                ax = axes(None, self._size(slide, width), layout="compressed")[0]
                # Axes of fixed aspect end up off centre beside a colour bar, near the edge.
                ax.figure.get_layout_engine().set(w_pad=0.12)
            self.ax_, self.figure_ = ax, ax.figure
            if slide is not None and picture is not None:
                ax.imshow(slide.thumbnail(), extent=(0, *picture, 0))
            opacity = (0.55 if slide is not None else 1.0) if alpha is None else alpha
            colours = cmap or (SIGNED_SCALE if self.signed else SCALE)
            self.patches_ = self._squares(scale, colours, opacity, percentiles)
            self._frame(picture, scale, unit)
        return self

    def _check(self) -> None:
        name = self.title or "The map"
        n, shape = np.size(self.values), np.shape(self.xy)
        if shape != (n, 2) or n == 0:
            raise ValueError(
                f"{name} has {n} values and corners of shape {shape}; expected a value for each "
                "corner (x, y), and at least one."
            )
        if not np.isfinite(self.xy).all():
            raise ValueError(f"{name} has corners that are not finite.")
        if np.isinf(self.values).any() or np.isnan(self.values).all():
            raise ValueError(f"{name} has infinite values, or none that is a number.")
        if not 0 < self.patch_size < np.inf:
            raise ValueError(f"patch_size must be above 0, got {self.patch_size!r}.")

    def _limits(self, percentiles: tuple[float, float]) -> tuple[float, float]:
        """Ends of the colour scale."""
        low = high = 0.0
        for wanted in (percentiles, (0, 100)):  # few values may differ from all others
            low, high = np.nanpercentile(self.values, wanted)
            if self.signed:
                high = np.nanpercentile(np.abs(self.values), wanted[1])
                low = -high
            if high - low > _SAME * max(abs(low), abs(high)):
                return low, high
        return low - max(abs(low), 1) / 2, high + max(abs(high), 1) / 2

    def _size(self, slide: Any, width: float) -> tuple[float, float]:
        """Size of a new figure in inches, with the proportions of the slide."""
        wide, high = np.ptp(self.xy, axis=0) + self.patch_size if slide is None else slide.size
        return width, float(np.clip((width - 1.5) * high / wide + 0.8, 2.4, 1.5 * width))

    def _squares(
        self, scale: float, cmap: str, alpha: float, percentiles: tuple[float, float]
    ) -> Any:
        from matplotlib.cm import ScalarMappable
        from matplotlib.collections import PolyCollection

        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * self.patch_size
        squares = PolyCollection(
            list((self.xy[:, None] + corners) * scale),
            array=self.values,
            cmap=cmap,
            alpha=alpha,
            linewidths=0,
            antialiaseds=False,  # avoids pale seams between neighbouring squares
            rasterized=True,
        )
        low, high = self._limits(percentiles)
        squares.set_clim(low, high)
        self.ax_.add_collection(squares)
        beyond = (self.values.min() < low, self.values.max() > high)
        extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[beyond]
        opaque = ScalarMappable(squares.norm, cmap)  # full colour also for a transparent map
        bar = self.figure_.colorbar(
            opaque,
            ax=self.ax_,
            label=literal(self.label),
            extend=extend,
            shrink=0.8,
            aspect=30,
            pad=0.02,
        )
        bar.outline.set_visible(False)
        return squares

    def _frame(self, picture: NDArray | None, scale: float, unit: str) -> None:
        from matplotlib.ticker import MaxNLocator

        low, high = self.xy.min(axis=0) * scale, (self.xy.max(axis=0) + self.patch_size) * scale
        if picture is not None:
            low, high = np.zeros(2), picture
        self.ax_.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]), aspect="equal")
        self.ax_.set(xlabel=unit, ylabel=unit, facecolor=_MISSING)
        self.ax_.set_title(literal(shortened(self.title)))
        self.ax_.xaxis.set_major_locator(MaxNLocator(4))
        self.ax_.yaxis.set_major_locator(MaxNLocator(5))
        _scale_bar(self.ax_, high[0] - low[0], unit)


def _column_of(clf: Any, bags: BagSequence, column: str | None) -> tuple[pd.DataFrame, str]:
    """The table that holds the column, and its whole name."""
    if column is not None and column.startswith("evidence"):
        table = inspection.patch_evidence(clf, bags)
        last = [c for c in table.columns if c.startswith("evidence")][-1]
        column = last if column == "evidence" else column
    else:
        table = inspection.patch_attention(clf, bags)
        last = [c for c in table.columns if c.startswith("attention")][-1]
        column = last if column is None else column
    if column not in table:
        raise ValueError(f"column must be one of {list(table.columns)}, got {column!r}.")
    return table, column


def _values(table: pd.DataFrame, column: str) -> tuple[NDArray, str]:
    """Values to draw, independent of the number of patches, and their label."""
    values = table[column].to_numpy(dtype=float)
    if column.startswith("attention"):
        return values * len(values), f"{column} / uniform"
    if column.startswith("evidence"):
        name = column.removeprefix("evidence_")
        return values * len(values), f"evidence for {name} (logit, times patches)"
    return values, column


def require_one_slide(bag: Bag) -> None:
    """Raise a BagError for a bag of several slides, whose coordinates overlap."""
    if len(bag.slides) > 1:
        raise BagError(
            f"{bag.name} holds {len(bag.slides)} slides, whose coordinates overlap. Draw each of "
            "bag.slides."
        )


def patch_width(bag: Bag, info: BagInfo) -> float:
    """Return the width of a patch in the unit of the coordinates: from the file, else the step.

    Raises
    ------
    BagError
        If neither is known.
    """
    width = info.patch_size or check_geometry(BagSequence([bag]))["step"].iloc[0]
    if not np.isfinite(width) or width <= 0:
        raise BagError(f"The patch size of {bag.name} is unknown. Pass patch_size=.")
    return float(width)


def _scale_bar(ax: Any, width: float, unit: str) -> None:
    """Draw a scale bar of a round length, about a fifth of the width, at the lower left."""
    goal = width / 5
    power = 10.0 ** np.floor(np.log10(goal))
    length = max(step * power for step in (1, 2, 5) if step * power <= goal)
    left, bottom = 0.03, 0.03
    plate = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 2.5}
    ax.text(
        left,
        bottom + 0.02,
        f"{length:g} {unit}",
        va="bottom",
        fontsize=9,
        bbox=plate,
        transform=ax.transAxes,
    )
    ends = [left, left + length / width]
    for colour, thick in (("white", 6), ("black", 3)):
        ax.plot(
            ends,
            [bottom, bottom],
            color=colour,
            linewidth=thick,
            solid_capstyle="butt",
            transform=ax.transAxes,
            label="_scale",
        )
