"""The picture of a slide: its thumbnail and patches, by openslide or tiffslide."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from os import PathLike, fspath
from typing import Any

import numpy as np
from numpy.typing import NDArray


class SlideImage:
    """An open slide, of which pieces are read by level-0 pixels.

    Parameters
    ----------
    slide : OpenSlide or TiffSlide
        Anything with their ``dimensions``, ``properties``, ``get_thumbnail`` and ``read_region``.

    Attributes
    ----------
    size : tuple of int
        Width and height in level-0 pixels.
    mpp : float or None
        Micrometres per level-0 pixel, where the slide tells.
    """

    def __init__(self, slide: Any) -> None:
        self._slide = slide
        self.size: tuple[int, int] = tuple(slide.dimensions)
        self.mpp = _number(slide.properties, "mpp-x")

    def thumbnail(self, longest: int = 1024) -> NDArray:
        """The whole slide, its longer side `longest` pixels at most; uint8, (height, width, 3)."""
        return np.asarray(self._slide.get_thumbnail((longest, longest)).convert("RGB"))

    def patch(self, x: float, y: float, width: float, pixels: int = 96) -> NDArray:
        """The square at level-0 (x, y), scaled to `pixels`; uint8, (pixels, pixels, 3)."""
        downsample = max(1.0, width / pixels)
        level = self._slide.get_best_level_for_downsample(downsample)
        wide = max(1, round(width / self._slide.level_downsamples[level]))
        corner = (round(x), round(y))
        region = self._slide.read_region(corner, level, (wide, wide)).convert("RGB")
        return np.asarray(region.resize((pixels, pixels)))


def open_slide(image: Any) -> SlideImage:
    """Open the picture of a slide.

    Parameters
    ----------
    image : path, OpenSlide, TiffSlide or SlideImage

    Raises
    ------
    ImportError
        If neither openslide nor tiffslide is installed.
    OSError
        If none of them can open the file; says what each of them said.

    Examples
    --------
    >>> open_slide("missing.svs")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    OSError: missing.svs cannot be opened as a slide: ...
    """
    if isinstance(image, SlideImage):
        return image
    if hasattr(image, "read_region"):
        return SlideImage(image)
    path, said = fspath(image), []
    for opener, errors in _openers():
        try:
            return SlideImage(opener(path))
        except errors as error:
            said.append(f"{type(error).__name__}: {error}")
    if not said:
        raise ImportError(
            "Pictures of slides need tiffslide or openslide, and neither is installed: "
            "pip install 'sk_momkd[slides]'."
        )
    raise OSError(f"{path} cannot be opened as a slide: {'; '.join(said)}")


def _openers() -> Iterator[tuple[Callable[[str | PathLike], Any], tuple[type[Exception], ...]]]:
    """Those that are installed, the one that knows more formats first."""
    try:
        import openslide
    except ImportError:  # also where its C library is absent
        pass
    else:
        yield openslide.OpenSlide, (openslide.OpenSlideError, OSError)
    try:
        from tifffile import TiffFileError
        from tiffslide import TiffSlide
    except ImportError:
        pass
    else:
        yield TiffSlide, (TiffFileError, OSError, ValueError, KeyError)


def _number(properties: Any, name: str) -> float | None:
    for tool in ("openslide", "tiffslide"):
        try:
            return float(properties[f"{tool}.{name}"])
        except (KeyError, TypeError, ValueError):
            continue
    return None
