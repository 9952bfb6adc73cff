"""Stores of zarr from elsewhere: codecs that could run code, and damaged metadata."""

import json
import os
import pickle
from contextlib import suppress

import numpy as np
import pandas as pd
import pytest

from sk_momkd import BagFileError, read_bags
from sk_momkd.io.expression_files import read_zarr
from sk_momkd.io.zarr_codecs import require_known_codecs
from sk_momkd.io.zarr_stores import is_anndata_store

library = pytest.importorskip("zarr")
# zarr and anndata on what is to come, and on folders that hold no array
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
FILTERS = [{"id": "vlen-utf8"}, {"id": "pickle"}]
TO_PICKLE = {"name": "numcodecs.pickle", "configuration": {}}


class Payload:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def array_2(folder, mark):
    """An array of objects whose chunk is a pickle that makes a folder."""
    folder.mkdir(parents=True)
    stated = {"zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O", "order": "C"}
    stated |= {"fill_value": None, "compressor": None, "filters": FILTERS}
    (folder / ".zarray").write_text(json.dumps(stated))
    (folder / ".zattrs").write_text(json.dumps({"encoding-type": "string-array"}))
    (folder / "0").write_bytes(pickle.dumps(Payload(mark)))


@pytest.fixture
def unsafe(monkeypatch):
    """As with NUMCODECS_ALLOW_UNSAFE_PICKLE_DECODE=1, or before numcodecs 0.16.6."""
    monkeypatch.setenv("NUMCODECS_ALLOW_UNSAFE_PICKLE_DECODE", "1")
    monkeypatch.setattr("numcodecs.pickles.ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)


def test_pickles_in_a_store_do_not_run(tmp_path, unsafe):
    bag, slide, ran = tmp_path / "S1.zarr", tmp_path / "S2.zarr", tmp_path / "ran"
    library.create_array(bag, data=np.eye(3), zarr_format=2)
    group = library.open_group(slide, mode="w", zarr_format=2)
    group.create_array("X", data=np.eye(3))
    group.attrs["encoding-type"] = "anndata"
    array_2(bag / "notes", ran)
    array_2(slide / "uns" / "notes", ran)
    for store in (bag, slide):
        with pytest.raises(BagFileError, match=r"\.zarray names the codec 'pickle'.*any code"):
            read_bags(store)[0].load()
    with pytest.raises(BagFileError, match="'pickle'"):
        read_zarr(slide, allow_external=False)
    assert not ran.exists()
    with suppress(TypeError):  # what a reader without the check does; a folder made is no value
        library.open_array(bag / "notes", mode="r")[...]
    assert ran.exists()


NESTED = {"zarr_format": 3, "node_type": "array", "codecs": ["bytes", TO_PICKLE]}
SHARDED = {"name": "sharding_indexed", "configuration": {"codecs": [TO_PICKLE]}}
GROUP = {"node_type": "group", "consolidated_metadata": {"metadata": {"attributes": NESTED}}}
METADATA = [
    (".zarray", {"compressor": {"id": "pickle"}, "filters": None}),
    (".zmetadata", {"metadata": {".zgroup": {}, "a/.zarray": {"filters": FILTERS}}}),
    (".zgroup", {"consolidated_metadata": {"metadata": {"a": {"filters": FILTERS}}}}),
    ("zarr.json", NESTED),
    ("zarr.json", {"codecs": [SHARDED]}),
    ("zarr.json", {"codecs": [{**SHARDED, "configuration": {"index_codecs": ["pickle"]}}]}),
    ("zarr.json", {"codecs": [{**SHARDED, "configuration": {"codecs": [SHARDED]}}]}),
    ("zarr.json", GROUP),
    ("zarr.json", {"consolidated_metadata": {"metadata": {"inner": GROUP}}}),
]


@pytest.mark.parametrize(("name", "content"), METADATA)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_unknown_codecs_are_found_wherever_they_are_named(tmp_path, name, content, encoding):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / name).write_text(json.dumps(content), encoding)
    with pytest.raises(BagFileError, match="names the codec 'pickle'"):
        require_known_codecs(str(tmp_path))
    linked = tmp_path.parent / f"{tmp_path.name} of links"
    linked.mkdir()
    (linked / "inner").symlink_to(tmp_path / "inner")
    (linked / "itself").symlink_to(linked)
    with pytest.raises(BagFileError, match="names the codec 'pickle'"):
        require_known_codecs(str(linked))


@pytest.mark.parametrize("version", [2, 3])
def test_attributes_may_be_called_like_codecs(tmp_path, version):
    store = tmp_path / "S1.zarr"
    group = library.open_group(store, mode="w", zarr_format=version)
    group.create_array("features", data=np.eye(3))
    group.attrs.update({"filters": "pickle", "codecs": ["pickle"], "compressor": 1})
    library.consolidate_metadata(store)
    np.testing.assert_array_equal(read_bags(store)[0].features, np.eye(3))


def test_usual_codecs_are_read(tmp_path):
    from numcodecs import Blosc, Delta, FixedScaleOffset, Shuffle, Zlib

    values = np.arange(12, dtype="f4").reshape(4, 3)
    scale = FixedScaleOffset(offset=0, scale=1, dtype="f4", astype="f4")
    for i, codecs in enumerate(([Delta("f4")], [scale], [Shuffle(4)])):
        store = tmp_path / f"{i}.zarr"
        options = {"filters": codecs, "compressors": (Blosc(), Zlib())[i % 2]}
        library.create_array(store, data=values, zarr_format=2, **options)
        np.testing.assert_array_equal(read_bags(store)[0].features, values)
    sharded = library.create_array(
        tmp_path / "S.zarr", shape=(4, 3), chunks=(2, 3), shards=(4, 3), dtype="f4"
    )
    sharded[:] = values
    np.testing.assert_array_equal(read_bags(tmp_path / "S.zarr")[0].features, values)


def test_strings_of_anndata_are_read(tmp_path):
    from anndata import AnnData, settings

    names = pd.DataFrame(index=["a", "b", "c"])
    for version in (2, 3):
        store = tmp_path / f"{version}.zarr"
        with settings.override(zarr_write_format=version):
            AnnData(np.eye(3, dtype="f4"), names, names).write_zarr(store)
        assert list(read_zarr(store, allow_external=False).obs_names) == ["a", "b", "c"]


DAMAGED = ["[]", '{"attributes": null}', '{"attributes": []}', "[" * 10**5, '{"codecs": 5}', "{"]
DAMAGED += ['{"codecs": [{}]}', '{"codecs": [{"name": ["pickle"]}]}', '{"filters": [null]}']


@pytest.mark.parametrize("content", DAMAGED)
@pytest.mark.parametrize("name", ["zarr.json", ".zattrs", ".zarray", ".zgroup", ".zmetadata"])
def test_damaged_metadata_is_named(tmp_path, name, content):
    store = tmp_path / "S1.zarr"
    store.mkdir()
    (store / name).write_text(content)
    assert not is_anndata_store(str(store))
    with pytest.raises(BagFileError, match=r"S1\.zarr"):
        read_bags(store)[0].load()
