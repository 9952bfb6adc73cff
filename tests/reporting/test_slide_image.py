"""Images of slides that are damaged are named, also where they open."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from sk_momkd.exceptions import BagFileError
from sk_momkd.reporting.displays.slide_image import SlideImage, open_slide


@pytest.fixture
def slide(tmp_path):
    """A pyramid-less TIFF of 4 x 4 tiles."""
    pytest.importorskip("tiffslide")
    import tifffile

    path = tmp_path / "S1.tif"
    values = np.random.default_rng(0).integers(0, 255, size=(1024, 1024, 3), dtype=np.uint8)
    tifffile.imwrite(path, values, tile=(256, 256), photometric="rgb")
    return path


def test_slide_that_was_cut_off_is_named_when_it_is_read(slide):
    whole = open_slide(str(slide))
    assert whole.thumbnail(64).shape == (64, 64, 3)
    slide.write_bytes(slide.read_bytes()[:300_000])
    cut = open_slide(str(slide))  # its header is whole
    for read in (lambda: cut.thumbnail(64), lambda: cut.patch(768, 768, 256)):
        with pytest.raises(BagFileError, match=r"S1\.tif opens as a slide, but cannot be read"):
            read()


def test_file_that_is_no_slide_is_an_error_of_both_kinds(slide):
    slide.write_bytes(b"nothing" * 100)
    with pytest.raises(BagFileError, match=r"S1\.tif cannot be opened as a slide") as error:
        open_slide(str(slide))
    assert isinstance(error.value, OSError)


def test_error_of_openslide_names_the_slide(monkeypatch):
    class OpenSlideError(Exception):
        pass

    class Slide:
        dimensions, properties = (10, 10), {}

        def get_thumbnail(self, size):
            raise OpenSlideError("Cannot read tile")

    library = SimpleNamespace(OpenSlideError=OpenSlideError)
    monkeypatch.setitem(sys.modules, "openslide", library)
    with pytest.raises(BagFileError, match=r"S1\.svs opens as a slide.*Cannot read tile"):
        SlideImage(Slide(), "S1.svs").thumbnail()


def test_mistake_of_the_package_is_not_taken_for_damage():
    class Slide:
        dimensions, properties = (10, 10), {}

    with pytest.raises(AttributeError, match="get_best_level"):
        SlideImage(Slide()).patch(0, 0, 5)
