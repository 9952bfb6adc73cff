"""Maps of how well the patches of a slide match memory components (Fig. 4)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ... import inspection
from ...data.bag import Bag
from ...data.sequence import BagSequence
from ...exceptions import BagError
from .attention_map import AttentionMapDisplay, patch_width, require_one_slide
from .style import COLOURS, axes, literal, shortened, styled

_PANEL = 3.9  # inches


@dataclass
class ComponentMapDisplay:
    """Draw the cosine of each patch of a slide with some memory components, a map for each.

    The best matches are outlined. Each map has a colour scale of its own.

    Parameters
    ----------
    xy : ndarray of shape (n_patches, 2)
        Top-left corners in `unit`.
    cosines : ndarray of shape (n_patches, n_components)
    names : list of str
        Title of each map.
    patch_size : float
        Width of a patch in `unit`.
    n_top : int, default=3
        Number of best matches that are outlined.
    unit : {"px", "um"}, default="px"
        Unit of `xy` and `patch_size`: level-0 pixels or micrometres.
    mpp : float, optional
        Micrometres per level-0 pixel.
    image : path, OpenSlide, TiffSlide, optional
        The slide, whose thumbnail is drawn below the values.
    title : str, default=""
        Title of the figure.

    Attributes
    ----------
    figure_ : matplotlib Figure
    axes_ : list of matplotlib Axes
        One for each component.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_momkd.reporting.displays.component_map import ComponentMapDisplay
    >>> xy = np.array([[0, 0], [512, 0], [0, 512]])
    >>> cosines = np.array([[0.2, 0.9], [0.7, 0.1], [0.3, 0.5]])
    >>> display = ComponentMapDisplay(xy, cosines, ["class 0", "class 1"], 512, n_top=1).plot()
    >>> [ax.get_title() for ax in display.axes_]
    ['class 0', 'class 1']
    """

    xy: NDArray
    cosines: NDArray
    names: list[str]
    patch_size: float
    n_top: int = 3
    unit: str = "px"
    mpp: float | None = None
    image: Any = field(default=None, repr=False)
    title: str = ""
    figure_: Any = field(init=False, default=None, repr=False)
    axes_: Any = field(init=False, default=None, repr=False)

    @classmethod
    def from_estimator(
        cls,
        clf: Any,
        bag: Bag,
        components: pd.DataFrame | Iterable[tuple[Any, int]],
        *,
        n_top: int = 3,
        patch_size: float | None = None,
        mpp: float | None = None,
        image: Any = None,
        ax: Any = None,
    ) -> Self:
        """Draw memory components of a fitted MoMKD over a slide.

        Parameters
        ----------
        clf : fitted MoMKDClassifier, or pipeline that ends in one
            Of an ensemble, the first model is used.
        bag : Bag
            A single slide with coordinates.
        components : DataFrame or list of (class, component)
            The components to draw. A table has columns ``class`` and ``component``, such as that
            of :func:`sk_momkd.choose_components`.
        n_top : int, default=3
            Number of best matches that are outlined.
        patch_size : float, optional
            Width of a patch in the unit of the coordinates. By default it is read from the bag's
            file or, if that does not hold it, is the most common step between patches.
        mpp : float, optional
            Micrometres per level-0 pixel.
        image : path, OpenSlide, TiffSlide, optional
        ax : list or array of matplotlib Axes, optional
            One for each component.

        Returns
        -------
        ComponentMapDisplay

        Raises
        ------
        BagError
            If the bag has no coordinates or several slides, or its patch size is unknown.
        TypeError
            If the classifier has no memory.
        ValueError
            If there is no such component, or none is given.
        """
        require_one_slide(bag)
        affinities = inspection.patch_affinities(clf, BagSequence([bag]))
        xy = np.asarray(affinities.obsm["spatial"], dtype=float)
        if not np.isfinite(xy).all():
            raise BagError(f"{bag.name} has no coordinates, so it cannot be drawn as a map.")
        pairs = component_pairs(components)
        columns = [_column(affinities.var, *pair) for pair in pairs]
        info = bag.info
        return cls(
            xy,
            np.asarray(affinities.X[:, columns], dtype=float),
            [f"class {c}, component {j}" for c, j in pairs],
            patch_width(bag, info) if patch_size is None else patch_size,
            n_top,
            unit="um" if info.unit == "um" else "px",
            mpp=mpp,
            image=image,
            title=bag.bag_id or "",
        ).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw into axes, one for each component, or into a new figure.

        Parameters
        ----------
        ax : list or array of matplotlib Axes, optional

        Returns
        -------
        self
        """
        n = len(self.names)
        wide, high = np.ptp(self.xy, axis=0) + self.patch_size
        size = (n * _PANEL, float(np.clip((_PANEL - 1.4) * high / wide + 0.95, 2.2, 8.0)))
        with styled():
            self.axes_ = axes(ax, size, n, layout="compressed")
            self.figure_ = self.axes_[0].figure
            for panel, name, values in zip(self.axes_, self.names, self.cosines.T, strict=True):
                self._map(panel, name, values)
            if self.title and ax is None:
                self.figure_.suptitle(literal(shortened(self.title)))
        return self

    def _map(self, panel: Any, name: str, values: NDArray) -> None:
        from matplotlib.collections import PolyCollection

        drawn = AttentionMapDisplay(
            self.xy,
            values,
            self.patch_size,
            self.unit,
            self.mpp,
            self.image,
            label="cosine",
            title=name,
        ).plot(panel, percentiles=(0, 100))
        best = np.argsort(-values, kind="stable")[: self.n_top]
        squares = [path.vertices for path in drawn.patches_.get_paths()]
        outlined = PolyCollection(
            [squares[i] for i in best],
            facecolors="none",
            edgecolors=COLOURS[1],
            linewidths=1.6,
        )
        panel.add_collection(outlined)


def component_pairs(
    components: pd.DataFrame | Iterable[tuple[Any, int]],
) -> Sequence[tuple[Any, int]]:
    """Pairs (class, component), from a table or from pairs.

    Examples
    --------
    >>> component_pairs(pd.DataFrame({"class": ["mut"], "component": [3], "value": [0.2]}))
    [('mut', 3)]
    """
    if isinstance(components, pd.DataFrame):
        components = components[["class", "component"]].itertuples(index=False, name=None)
    pairs = list(components)
    if not pairs:
        raise ValueError("components is empty. Give at least one pair (class, component).")
    return pairs


def _column(known: pd.DataFrame, label: Any, component: int) -> int:
    """Position of a component in the table of all."""
    found = (known["class"] == str(label)) & (known["component"] == component)
    if not found.any():
        raise ValueError(
            f"There is no component {component!r} of class {label!r}. The classes are "
            f"{list(known['class'].unique())}, with components 0 to {known['component'].max()}."
        )
    return int(np.flatnonzero(found)[0])
