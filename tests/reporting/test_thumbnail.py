"""Thumbnails in PNG or JPEG, with the size of their slide."""

import numpy as np
import pytest
from PIL import Image

from sk_momkd.reporting.displays.slide_image import open_slide


@pytest.fixture(params=["png", "jpg"])
def path(request, tmp_path):
    """100 x 50 pixels of a slide of 1000 x 500, its right half white."""
    pixels = np.zeros((50, 100, 3), np.uint8)
    pixels[:, 50:] = 255
    Image.fromarray(pixels).save(tmp_path / f"S1.{request.param}")
    return tmp_path / f"S1.{request.param}"


def test_thumbnail_with_its_size_is_addressed_in_level_0_pixels(path):
    slide = open_slide((path, (1000, 500)))
    assert (slide.size, slide.mpp) == ((1000, 500), None)
    assert slide.thumbnail(50).shape == (25, 50, 3)
    assert slide.patch(700, 100, 200, 16).min() > 240
    assert slide.patch(100, 100, 200, 16).max() < 15


def test_thumbnail_without_its_size_or_of_other_proportions_is_refused(path, tmp_path):
    with pytest.raises(OSError, match=r"scale is unknown.*\(width, height\)"):
        open_slide(path)
    with pytest.raises(ValueError, match="other proportions"):
        open_slide((path, (500, 1000)))
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(OSError, match=r"bad\.png"):
        open_slide((tmp_path / "bad.png", (10, 10)))
