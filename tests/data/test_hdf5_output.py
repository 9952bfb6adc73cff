"""HDF5 files on a full disk: an error that names the file, and no file that stays open."""

import errno

import anndata
import h5py
import numpy as np
import pytest

from sk_momkd.data import hdf5_output as module
from sk_momkd.data.hdf5_output import hdf5_output, write_anndata


def _fill(file):
    file.create_dataset("features", data=np.ones((64, 8)), chunks=(4, 8), fletcher32=True)
    file["features"].attrs["name"] = "S1"


def test_file_is_that_of_h5py(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        _fill(file)
    with hdf5_output(tmp_path / "b.h5") as file:
        _fill(file)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


@pytest.mark.parametrize("room", [0, 1000, 3000])
def test_full_disk_is_named_and_leaves_no_file_open(tmp_path, monkeypatch, room):
    class Full(module._Output):
        def write(self, content):
            def write(given):
                if self._file.tell() + len(given) > room:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return self._file.write(given)

            return self._written(write, content, len(content))

    monkeypatch.setattr(module, "_Output", Full)
    with (
        pytest.raises(OSError, match="No space left") as caught,
        hdf5_output(tmp_path / "a.h5") as f,
    ):
        _fill(f)
    assert caught.value.filename == str(tmp_path / "a.h5")
    assert h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE) == 0


def test_anndata_is_that_of_its_own_writer(tmp_path):
    adata = anndata.AnnData(np.eye(3, dtype=np.float32))
    adata.obs["kind"] = ["a", "b", "a"]
    adata.copy().write_h5ad(tmp_path / "a.h5ad")
    write_anndata(adata, tmp_path / "b.h5ad")
    names = {"a": [], "b": []}
    for name, found in names.items():
        with h5py.File(tmp_path / f"{name}.h5ad") as file:
            file.visit(found.append)
    assert names["a"] == names["b"]
    assert anndata.read_h5ad(tmp_path / "b.h5ad").obs["kind"].tolist() == ["a", "b", "a"]
