"""The patches that each memory component matches best (Fig. 4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ... import inspection
from ...data.bag import Bag
from ...data.ids import normalise_id
from ...data.sequence import BagSequence, as_bags
from ...exceptions import BagError
from ...io.local_files import require_regular
from ...io.slide_files import visible_files
from .attention_map import patch_width, require_one_slide
from .component_map import component_pairs
from .slide_image import SlideImage, open_slide
from .style import GREY, axes, literal, styled

_PIXELS = 88  # width of a cell
_GAP = 16  # pixels between cells, for the caption
_TISSUE, _HERE = (205, 205, 205), (213, 94, 0)
_SUFFIXES = (".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".vms", ".svslide", ".bif")


@dataclass
class PrototypeDisplay:
    """Top patches of each memory component, a row per component and a block per class.

    If the image of a slide is available, patches are cut from it. Otherwise a small map shows all
    patches of the slide in grey and the top patch in orange. The number below a patch is its
    cosine with the component.

    Parameters
    ----------
    patches : DataFrame
        Result of :func:`sk_momkd.top_patches`.
    pictures : list of uint8 ndarray of shape (pixels, pixels, 3)
        Picture of each row of `patches`.

    Attributes
    ----------
    figure_, ax_ : matplotlib Figure and Axes

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd import Bag, MoMKDClassifier
    >>> from sk_momkd.reporting.displays.prototypes import PrototypeDisplay
    >>> random, grid = np.random.default_rng(0), [[0, 0], [256, 0], [0, 256], [256, 256]]
    >>> bags = [Bag(random.normal(i % 2, 1, (4, 3)), grid, bag_id=f"S{i}") for i in range(16)]
    >>> clf = MoMKDClassifier(hidden_dim=8, n_components=2, max_epochs=1, random_state=0)
    >>> clf = clf.fit(bags, np.arange(16) % 2)
    >>> len(PrototypeDisplay.from_estimator(clf, bags, n=3).pictures)
    12
    """

    patches: pd.DataFrame
    pictures: list[NDArray] = field(repr=False)
    figure_: Any = field(init=False, default=None, repr=False)
    ax_: Any = field(init=False, default=None, repr=False)

    @classmethod
    def from_estimator(
        cls,
        clf: Any,
        bags: Any,
        *,
        n: int = 3,
        components: pd.DataFrame | Iterable[tuple[Any, int]] | None = None,
        images: Mapping[str, Any] | str | PathLike | None = None,
        mpp: float | None = None,
        ax: Any = None,
    ) -> Self:
        """Find and draw the top patches of a fitted MoMKD.

        Parameters
        ----------
        clf : fitted MoMKDClassifier, or pipeline that ends in one
        bags : bags in any form that `fit` accepts
        n : int, default=3
            Number of patches per component.
        components : DataFrame or list of (class, component), optional
            The components to show, such as the result of :func:`sk_momkd.choose_components`. By
            default all are shown.
        images : dict of slide id to path or open slide, or folder, optional
            Images of slides; in a folder, files are named by the slide id.
        mpp : float, optional
            Micrometres per level-0 pixel. It is needed for bags in micrometres whose images do not
            hold their resolution.
        ax : matplotlib Axes, optional

        Returns
        -------
        PrototypeDisplay

        Raises
        ------
        TypeError
            If the classifier has no memory.
        BagError
            If patches have no coordinates or no known size, or a bag holds several slides.
        ValueError
            If there is no such component.
        """
        bags = as_bags(bags)
        patches = inspection.top_patches(clf, bags, n=n)
        if components is not None:
            patches = _of_components(patches, components)
        return cls(patches, patch_pictures(patches, bags, images, mpp)).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw into `ax`, or into a new figure.

        Parameters
        ----------
        ax : matplotlib Axes, optional

        Returns
        -------
        self
        """
        patches = self.patches.reset_index(drop=True)
        blocks = dict(list(patches.groupby("class", sort=False)))
        n_rows = max(part["component"].nunique() for part in blocks.values())
        n_columns = int(patches["rank"].max()) + (1 - int(patches["rank"].min()))
        step = _PIXELS + _GAP
        wide, high = (len(blocks) * (n_columns + 1) - 1) * step, n_rows * step
        canvas = np.full((high, wide, 3), 255, dtype=np.uint8)
        with styled():
            self.ax_ = axes(ax, (wide / 80 + 0.8, high / 80 + 0.6))[0]
            self.figure_ = self.ax_.figure
            for number, (name, part) in enumerate(blocks.items()):
                rows = {c: i for i, c in enumerate(part["component"].unique())}
                left = number * (n_columns + 1) * step
                self._label(part, str(name), left, left + n_columns * step, rows)
                for place, patch in zip(part.index, part.to_dict("records"), strict=True):
                    column = int(patch["rank"] - patches["rank"].min())
                    y, x = rows[patch["component"]] * step, left + column * step
                    canvas[y : y + _PIXELS, x : x + _PIXELS] = self.pictures[place]
                    self._caption(x, y, patch["affinity"])
            self.ax_.imshow(canvas, interpolation="nearest")
            self.ax_.set_axis_off()
            self.ax_.set(xlim=(-0.4 * step, wide), ylim=(high + 4, -0.4 * step))
        return self

    def _label(
        self, part: pd.DataFrame, name: str, left: int, right: int, rows: dict[Any, int]
    ) -> None:
        step, title = _PIXELS + _GAP, literal(f"class {name}")
        self.ax_.text((left + right) / 2, -0.15 * step, title, ha="center", fontsize=11)
        for component in part["component"].unique():
            y = rows[component] * step + _PIXELS / 2
            self.ax_.text(left - 5, y, str(component), ha="right", va="center", fontsize=9)

    def _caption(self, x: int, y: int, affinity: float) -> None:
        self.ax_.text(x, y + _PIXELS + 2, f"{affinity:.2f}", fontsize=7, va="top", color=GREY)


def _of_components(
    patches: pd.DataFrame, components: pd.DataFrame | Iterable[tuple[Any, int]]
) -> pd.DataFrame:
    """Rows of the chosen components, in the order in which these are given."""
    parts = []
    for label, component in component_pairs(components):
        part = patches[(patches["class"] == label) & (patches["component"] == component)]
        if part.empty:
            raise ValueError(f"There is no component {component!r} of class {label!r}.")
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def patch_pictures(
    patches: pd.DataFrame, bags: BagSequence, images: Any, mpp: float | None = None
) -> list[NDArray]:
    """Return a square picture of each row of `patches`: the tissue, or its position as a map."""
    by_id = {bags.name(i) if b.bag_id is None else b.bag_id: b for i, b in enumerate(bags)}
    pictures: dict[int, NDArray] = {}
    for bag_id, part in patches.reset_index(drop=True).groupby("bag_id"):
        bag = by_id[str(bag_id)]
        require_one_slide(bag)
        if part[["x", "y"]].isna().any(axis=None):
            raise BagError(f"{bag.name} has no coordinates, so its patches cannot be shown.")
        info = bag.info
        width = patch_width(bag, info)
        image = image_of(str(bag_id), images)
        slide = None if image is None else open_slide(image)
        unit = 1.0 if slide is None else _units_per_pixel(slide, bag, mpp)
        outline = None if slide is not None else _outline(bag, width)
        for place, x, y in part[["x", "y"]].itertuples():
            if slide is not None:
                pictures[place] = slide.patch(x / unit, y / unit, width / unit, _PIXELS)
            elif outline is not None:
                pictures[place] = _location(*outline, (x, y), width)
    return [pictures[i] for i in range(len(patches))]


def _units_per_pixel(slide: SlideImage, bag: Bag, mpp: float | None) -> float:
    if bag.info.unit != "um":
        return 1.0
    mpp = mpp or slide.mpp
    if mpp is None:
        raise BagError(
            f"{bag.name} has coordinates in micrometres, and the resolution of its "
            "image is unknown. Pass mpp= to cut patches from it."
        )
    return mpp


def image_of(bag_id: str, images: Any) -> Any:
    """Return the image of a slide in a dict, or its file in a folder; None without one."""
    if images is None:
        return None
    slide = normalise_id(bag_id)
    if isinstance(images, Mapping):
        return next((image for name, image in images.items() if normalise_id(name) == slide), None)
    # Files are listed, not named after the id, which could lead out of the folder.
    own = [f for f in visible_files(images, _SUFFIXES) if normalise_id(f.name) == slide]
    found = min(own, key=lambda file: _SUFFIXES.index(file.suffix.lower()), default=None)
    if found is not None:  # slides are large and often links, but a pipe would wait for ever
        require_regular(found, allow_external=True)
    return found


def _outline(bag: Bag, width: float) -> tuple[NDArray, NDArray, float]:
    """Map of the slide's patches in grey, its origin, and its pixels per unit."""
    corners = np.asarray(bag.coords, dtype=float)
    corners = corners - (width / 2 if bag.info.anchor == "centre" else 0)
    low = corners.min(axis=0)
    scale = _PIXELS / float(np.ptp(corners, axis=0).max() + width)
    cell = np.full((_PIXELS, _PIXELS, 3), 255, dtype=np.uint8)
    starts = np.floor((corners - low) * scale).astype(int)
    ends = np.ceil((corners - low + width) * scale).astype(int)
    for (left, top), (right, bottom) in np.unique(np.stack([starts, ends], axis=1), axis=0):
        cell[top:bottom, left:right] = _TISSUE
    return cell, low, scale


def _location(cell: NDArray, low: NDArray, scale: float, xy: Any, width: float) -> NDArray:
    """Copy of `cell` with the patch at `xy` in colour, at least 6 pixels wide."""
    cell = cell.copy()
    centre = (np.asarray(xy) - low + width / 2) * scale
    half = max(width * scale, 6.0) / 2
    left, top = np.clip(np.round(centre - half), 0, None).astype(int)
    right, bottom = np.round(centre + half).astype(int)
    cell[top:bottom, left:right] = _HERE
    return cell
