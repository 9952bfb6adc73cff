"""Images of slides: thumbnails and patches, read with openslide or tiffslide."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...exceptions import BagFileError
from ...io.read_errors import PARSER_ERRORS
from ...messages import install_hint


class SlideImage:
    """An open slide whose regions are addressed in level-0 pixels.

    Parameters
    ----------
    slide : OpenSlide or TiffSlide
        Anything with their ``dimensions``, ``properties``, ``get_thumbnail`` and ``read_region``.
    name : str
        Of the slide in messages, such as its file.

    Attributes
    ----------
    size : tuple of int
        Width and height in level-0 pixels.
    mpp : float or None
        Micrometres per level-0 pixel; None if the slide does not hold it.
    """

    def __init__(self, slide: Any, name: str = "The image of the slide") -> None:
        self._slide, self._name = slide, name
        self.size: tuple[int, int] = tuple(slide.dimensions)
        self.mpp = _number(slide.properties, "mpp-x")

    def thumbnail(self, longest: int = 1024) -> NDArray:
        """Read the whole slide; uint8 (height, width, 3), the longer side at most `longest`.

        Raises
        ------
        BagFileError
            If the file is damaged.
        """
        with self._reading():
            return np.asarray(self._slide.get_thumbnail((longest, longest)).convert("RGB"))

    def patch(self, x: float, y: float, width: float, pixels: int = 96) -> NDArray:
        """Read the square with corner (x, y) at level 0; uint8 (pixels, pixels, 3).

        Raises
        ------
        BagFileError
            If the file is damaged.
        """
        downsample = max(1.0, width / pixels)
        level = self._slide.get_best_level_for_downsample(downsample)
        wide = max(1, round(width / self._slide.level_downsamples[level]))
        corner = (round(x), round(y))
        with self._reading():
            region = self._slide.read_region(corner, level, (wide, wide)).convert("RGB")
            return np.asarray(region.resize((pixels, pixels)))

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Name the slide in what the libraries raise for a damaged file."""
        try:
            yield
        except _slide_errors() as error:
            raise BagFileError(
                f"{self._name} opens as a slide, but cannot be read: {error}. It is damaged or "
                "incomplete; copy it again, or leave it out."
            ) from error


def _slide_errors() -> tuple[type[Exception], ...]:
    """`PARSER_ERRORS`, and those of the loaded libraries, which derive from none of them."""
    own = (("openslide", "OpenSlideError"), ("tifffile", "TiffFileError"))
    loaded = (getattr(sys.modules.get(module), name, None) for module, name in own)
    return (*PARSER_ERRORS, *(kind for kind in loaded if kind is not None))


class Thumbnail:
    """A small image of a whole slide, read as OpenSlide reads a slide.

    Parameters
    ----------
    path : path
        A PNG or JPEG file.
    size : tuple of int
        Width and height of the slide in level-0 pixels.
    """

    def __init__(self, path: str | PathLike, size: tuple[int, int]) -> None:
        from PIL import Image

        try:
            self._image = Image.open(path).convert("RGB")
        except (ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise OSError(f"{path} is not a readable image: {error}") from error
        width, height = (int(side) for side in size)
        self._scale = width / self._image.width
        if abs(height / self._image.height / self._scale - 1) > 0.05:
            raise ValueError(
                f"{path} has {self._image.width} x {self._image.height} pixels, the slide "
                f"{width} x {height}: these are other proportions. Give its size at level 0."
            )
        self.dimensions, self.properties = (width, height), dict[str, str]()
        self.level_downsamples = (self._scale,)

    def get_thumbnail(self, size: tuple[int, int]) -> Any:
        """The image, not larger than `size`."""
        image = self._image.copy()
        image.thumbnail(size)
        return image

    def get_best_level_for_downsample(self, downsample: float) -> int:
        """The only level."""
        return 0

    def read_region(self, corner: tuple[int, int], level: int, size: tuple[int, int]) -> Any:
        """The region with this corner at level 0, of `size` in pixels of the image."""
        left, top = (round(place / self._scale) for place in corner)
        return self._image.crop((left, top, left + size[0], top + size[1]))


_IMAGES = (".png", ".jpg", ".jpeg")


def open_slide(image: Any) -> SlideImage:
    """Open the image of a slide.

    Parameters
    ----------
    image : path, OpenSlide, TiffSlide, SlideImage, or (path, (width, height))
        A pair is a thumbnail in PNG or JPEG and the size of the slide in level-0 pixels.

    Returns
    -------
    SlideImage

    Raises
    ------
    ImportError
        If neither openslide nor tiffslide is installed.
    BagFileError
        If neither can open the file; holds the error of each. It is an OSError.

    Examples
    --------
    >>> open_slide("missing.svs")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    sk_momkd.exceptions.BagFileError: missing.svs cannot be opened as a slide: ...
    """
    if isinstance(image, SlideImage):
        return image
    if hasattr(image, "read_region"):
        return SlideImage(image)
    if isinstance(image, tuple):
        return SlideImage(Thumbnail(*image))
    path = fspath(image)
    failures: list[str] = []
    missing: list[str] = []
    if path.lower().endswith(_IMAGES):
        raise OSError(
            f"{path} is a thumbnail, whose scale is unknown. Pass it with the slide's size in "
            "level-0 pixels: (path, (width, height))."
        )
    for opener, errors in _openers(missing):
        try:
            return SlideImage(opener(path), path)
        except errors as error:
            failures.append(f"{type(error).__name__}: {error}")
    if not failures:
        raise ImportError(
            "Images of slides need tiffslide or openslide, and neither can be imported "
            f"({'; '.join(missing)}): {install_hint('tiffslide')}"
        )
    raise BagFileError(f"{path} cannot be opened as a slide: {'; '.join(failures)}")


def _openers(
    missing: list[str],
) -> Iterator[tuple[Callable[[str | PathLike], Any], tuple[type[Exception], ...]]]:
    """Installed openers with their errors; openslide first, since it reads more formats.

    Why others cannot be imported is added to `missing`.
    """
    try:
        import openslide
    except ImportError as error:  # also where its C library is absent
        missing.append(str(error))
    else:
        yield openslide.OpenSlide, (openslide.OpenSlideError, OSError)
    try:
        from tifffile import TiffFileError
        from tiffslide import TiffSlide
    except ImportError as error:
        missing.append(str(error))
    else:
        yield TiffSlide, (TiffFileError, OSError, ValueError, KeyError)


def _number(properties: Any, name: str) -> float | None:
    for tool in ("openslide", "tiffslide"):
        try:
            return float(properties[f"{tool}.{name}"])
        except (KeyError, TypeError, ValueError):
            continue
    return None
