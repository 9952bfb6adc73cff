"""A filter of patches by polygons of tissue, or of any region, drawn on the slide."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils._param_validation import Interval, StrOptions

from ..data.arrays import BagArrays
from ..data.bag import Bag
from ..data.ids import normalise_id
from ..data.sequence import BagSequence, as_bags
from ..exceptions import BagError, CohortError
from ..io.geojson import Outlines, inside, read_outlines
from ..io.slide_files import MASK_SUFFIXES, files_by_slide, visible_files
from ..messages import first_few
from .bag_transformer import BagTransformer

_logger = logging.getLogger(__name__)


class TissueMaskFilter(BagTransformer):
    """Keep the patches whose centre lies inside the polygons drawn on their slide.

    The polygons come from a folder with one GeoJSON file per slide, in level-0 pixels:
    ``contours_geojson`` of TRIDENT, corrected by hand or not, or annotations exported from
    QuPath. Polygons may have holes, and a file may hold several; where polygons overlap, a patch
    counts once, and a centre on a border is inside. Polygons of a class that QuPath ignores, whose
    name ends with "*" such as "Ignore*", take patches out. Nothing is learned, so the filter can be
    used inside or outside a pipeline, at any place before the classifier. For a bag of several
    slides of a patient, each slide's own mask is used.

    Parameters
    ----------
    folder : path
        Folder with ``<slide id>.geojson`` (or ``.json``, also ``.gz``). The slide id is the
        ``bag_id``, with or without the suffix of a slide file.
    patch_size : float, optional
        Width of a patch in level-0 pixels. By default it is read from the bag's file; it is needed
        where the file does not hold it (as CLAM's), and for bags in memory.
    missing : {"raise", "keep"}, default="raise"
        How to treat a slide without a file: raise an error, or keep all its patches.
    allow_external : bool, default=False
        Whether files of the folder may be links to files outside it, as in :func:`read_bags`.

    See Also
    --------
    InstanceFilter : Drops background by its features, without masks.

    Notes
    -----
    QuPath measures coordinates from the corner of the scanned area. On slides with
    ``openslide.bounds-x/y`` (such as mrxs) its polygons are therefore shifted against level-0
    coordinates; move them back first.

    Examples
    --------
    >>> import json
    >>> from pathlib import Path
    >>> from tempfile import mkdtemp
    >>> import numpy as np
    >>> from sk_momkd import Bag, TissueMaskFilter
    >>> folder = Path(mkdtemp())
    >>> ring = [[0, 0], [600, 0], [600, 300], [0, 300], [0, 0]]
    >>> mask = {"type": "Polygon", "coordinates": [ring]}
    >>> _ = (folder / "S1.geojson").write_text(json.dumps(mask))
    >>> bag = Bag(np.ones((3, 4)), [[0, 0], [256, 0], [512, 0]], bag_id="S1")
    >>> TissueMaskFilter(folder, patch_size=256).fit_transform([bag])[0].coords
    array([[  0,   0],
           [256,   0]])
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "folder": [str, PathLike],
        "patch_size": [Interval(Real, 0, None, closed="neither"), None],
        "missing": [StrOptions({"raise", "keep"})],
        "allow_external": ["boolean"],
    }

    def __init__(
        self,
        folder: str | PathLike,
        *,
        patch_size: float | None = None,
        missing: str = "raise",
        allow_external: bool = False,
    ) -> None:
        self.folder = folder
        self.patch_size = patch_size
        self.missing = missing
        self.allow_external = allow_external

    def fit(self, X: Any = None, y: Any = None) -> Self:
        """Check the parameters; nothing is learned.

        Parameters
        ----------
        X, y : ignored

        Returns
        -------
        self
        """
        self._validate_params()
        return self

    def transform(self, X: Any) -> BagSequence:
        """Return `X` without the patches outside the polygons.

        Files of polygons are read when a bag is read.

        Parameters
        ----------
        X : bags in any form that `fit` of a classifier accepts

        Returns
        -------
        BagSequence

        Raises
        ------
        CohortError
            If the folder does not exist, two files are of one slide, or slides have no file and
            ``missing="raise"``; names them.
        BagError
            When a bag is read, if no patch is left or the positions of its patches are unknown.
        """
        self._validate_params()
        files = _mask_files(Path(self.folder))
        bags = as_bags(X)
        masks = [[_mask_of(slide, files) for slide in bag.stored_slides] for bag in bags]
        self._report_missing(bags, masks)
        return bags.replace(
            bag.filter(_InsideMasks(bag.stored_slides, own, self.patch_size, self.allow_external))
            for bag, own in zip(bags, masks, strict=True)
        )

    def _report_missing(self, bags: BagSequence, masks: list[list[Path | None]]) -> None:
        without = [
            bags.name(i) if slide.bag_id is None else slide.bag_id
            for i, (bag, own) in enumerate(zip(bags, masks, strict=True))
            for slide, mask in zip(bag.stored_slides, own, strict=True)
            if mask is None
        ]
        if without and self.missing == "raise":
            raise CohortError(
                f"{len(without)} slides have no mask in {self.folder}: {first_few(without)}. "
                "Expected <slide id>.geojson; add it, leave the slides out, or keep all their "
                "patches with missing='keep'."
            )
        if without:
            _logger.info("%d slides have no mask, all their patches are kept", len(without))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        return tags


def _mask_files(folder: Path) -> dict[str, Path]:
    """File of each slide, by id without suffix."""
    if not folder.is_dir():
        raise CohortError(f"There is no folder of masks {folder}.")
    return files_by_slide(visible_files(folder, MASK_SUFFIXES))


def _mask_of(slide: Bag, files: dict[str, Path]) -> Path | None:
    return None if slide.bag_id is None else files.get(normalise_id(slide.bag_id))


@dataclass(frozen=True)
class _InsideMasks:
    """Which patches of a bag lie inside the masks of its slides."""

    slides: Sequence[Bag]
    masks: Sequence[Path | None]
    patch_size: float | None
    allow_external: bool = False

    def __call__(self, bag: BagArrays) -> NDArray:
        n = len(bag.features)
        slide_index = np.zeros(n, dtype=int) if bag.slide_index is None else bag.slide_index
        keep = np.ones(n, dtype=bool)
        for i, (slide, mask) in enumerate(zip(self.slides, self.masks, strict=True)):
            own = slide_index == i
            if mask is not None and own.any():
                centers = _centers(bag.coords, slide, self.patch_size)
                outlines = read_outlines(mask, allow_external=self.allow_external)
                keep[own] = _inside(centers[own], outlines)
        if not keep.any():
            used = first_few(filter(None, self.masks))
            raise BagError(
                f"no patch centre lies inside the polygons of {used}. Check that they belong to "
                "this slide and are in level-0 pixels, as the coordinates are."
            )
        return keep


def _inside(centers: NDArray, outlines: Outlines) -> NDArray:
    """Whether centres are in a wanted polygon and in none that is to be ignored."""
    wanted = np.ones(len(centers), dtype=bool)
    if outlines.wanted or not outlines.ignored:  # ignored polygons alone leave the rest
        wanted = inside(centers, outlines.wanted)
    return wanted & ~inside(centers, outlines.ignored) if outlines.ignored else wanted


def _centers(coords: NDArray | None, slide: Bag, patch_size: float | None) -> NDArray:
    """Centre of each patch in level-0 pixels."""
    if coords is None:
        raise BagError(f"{slide.name} has no coordinates, but a tissue mask needs them.")
    info = slide.info
    if info.unit == "um":
        raise BagError(
            f"{slide.name} has coordinates in micrometres, but the mask is in level-0 pixels. "
            "Pass the coordinates in pixels: Bag(features, coords=...)."
        )
    if info.anchor == "centre":
        return coords
    size = info.patch_size_level0 if patch_size is None else patch_size
    if size is None:
        raise BagError(
            f"The patch size of {slide.name} is unknown. Pass TissueMaskFilter(patch_size=...), in "
            "level-0 pixels."
        )
    return coords + size / 2
