"""What files state travels with the bags, and bags that disagree are not used together."""

import json

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from conftest import quick_classifier
from torch_geometric.data import Data

from sk_momkd import Bag, cache_bags, load_cohort, patient_bags, read_bags, slide_anndata
from sk_momkd.exceptions import BagError, BagFileError, CohortWarning

X = np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32)
GRID = np.stack(np.divmod(np.arange(12), 4)[::-1], axis=1) * 512
TRIDENT = {"patch_size": 256, "patch_size_level0": 512, "target_magnification": 20}


def trident(folder, name, *, encoder="uni_v2", features=X, **attributes):
    path = folder / f"{name}.h5"
    with h5py.File(path, "w") as file:
        file["features"], file["coords"] = features, GRID[: len(features)]
        file["features"].attrs.update({} if encoder is None else {"encoder": encoder})
        file["coords"].attrs.update(TRIDENT | attributes)
    return path


def info_of(path):
    return read_bags(path)[0].info


def test_trident_states_encoder_magnification_and_patches(tmp_path):
    info = info_of(trident(tmp_path, "S1"))
    assert (info.encoder, info.magnification, info.patch_pixels) == ("uni_v2", 20, 256)
    assert (info.patch_size, info.unit) == (512, "level-0 px")
    assert str(info).endswith("20x; uni_v2")


def test_patch_size_of_a_converter_is_that_of_level_0_unless_it_says_more(tmp_path):
    for name, attributes, size in (
        ("S1", {"patch_size": 256}, 256),
        ("S2", {"patch_size": 256, "patch_level": 1, "downsample": 4.0}, 1024),
        ("S3", {"patch_size": 256, "level0_magnification": 40, "target_magnification": 20}, 512),
        ("S4", {"patch_size": 256, "patch_level": 1}, None),
    ):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["features"], file["coords"] = X, GRID
            file["coords"].attrs.update(attributes)
        assert info_of(tmp_path / f"{name}.h5").patch_size == size


def test_stamp_states_unit_patches_extractor_and_type(tmp_path):
    with h5py.File(tmp_path / "S1.h5", "w") as file:
        file["feats"], file["coords"] = X, GRID.astype(float)
        file.attrs.update(unit="um", tile_size_um=256.0, tile_size_px=224)
        file.attrs.update(extractor="uni2", feat_type="tile")
    info = info_of(tmp_path / "S1.h5")
    assert (info.encoder, info.feature_type, info.unit) == ("uni2", "tile", "um")
    assert (info.patch_size, info.patch_pixels) == (256, 224)


def test_slideflow_states_extractor_and_magnification_beside_the_bags(tmp_path):
    torch.save(torch.tensor(X), tmp_path / "S1.pt")
    np.savez(tmp_path / "S1.index.npz", GRID)
    stated = {"extractor": {"class": "uni"}, "tile_px": 256, "tile_um": "20x"}
    (tmp_path / "bags_config.json").write_text(json.dumps(stated))
    info = info_of(tmp_path / "S1.pt")
    assert (info.encoder, info.magnification, info.patch_pixels) == ("uni", 20, 256)


@pytest.mark.parametrize("make", [Data, dict])
def test_graphs_and_dicts_state_what_they_hold(tmp_path, make):
    known = {"encoder": "conch", "magnification": 20, "patch_size_level0": 512}
    torch.save(make(x=torch.tensor(X), pos=torch.tensor(GRID), **known), tmp_path / "S1.pt")
    info = info_of(tmp_path / "S1.pt")
    assert (info.encoder, info.magnification, info.patch_size) == ("conch", 20, 512)
    assert (info.unit, info.anchor) == ("level-0 px", "top-left")


@pytest.mark.parametrize(
    ("name", "anchor"),
    [("centroid", "centre"), ("centroids", "centre"), ("coords", "top-left"), ("xy", "top-left")],
)
def test_positions_of_graphs_under_other_names_are_read(tmp_path, name, anchor):
    graph = Data(
        x=torch.tensor(X), edge_index=torch.tensor([[0], [1]]), **{name: torch.tensor(GRID)}
    )
    torch.save(graph, tmp_path / "S1.pt")
    (bag,) = read_bags(tmp_path)
    np.testing.assert_array_equal(bag.coords, GRID)
    assert bag.info.anchor == anchor


def test_lazyslide_and_our_anndata_state_their_patches(tmp_path):
    slide = AnnData(X, obsm={"spatial": GRID})
    slide.uns["tile_spec"] = {"base_width": 512, "width": 256}
    slide.uns["encoder"] = "uni"
    slide.write_h5ad(tmp_path / "S1.h5ad")
    info = info_of(tmp_path / "S1.h5ad")
    assert (info.encoder, info.patch_size, info.patch_pixels) == ("uni", 512, 256)
    (bag,) = read_bags(trident(tmp_path, "S2"))
    slide_anndata(bag).write_h5ad(tmp_path / "S3.h5ad")
    again, info = info_of(tmp_path / "S3.h5ad"), bag.info
    assert (again.encoder, again.magnification, again.patch_pixels) == ("uni_v2", 20, 256)
    assert again.patch_size == info.patch_size


def two_slides(folder, **other):
    """Four slides, of which the last two are stated `other`."""
    for i in range(4):
        features = X + np.float32(i % 2)
        trident(folder, f"S{i}", features=features, **(other if i > 1 else {}))
    return read_bags(folder)


MIXED = [
    ({"encoder": "conch"}, r"encoder: 'uni_v2' in 2 .*'S0'.*'conch' in 2"),
    ({"target_magnification": 40}, "magnification: 20.0 in 2.*40.0 in 2"),
    ({"patch_size": 224}, "width of a patch in pixels: 256.0 in 2.*224.0 in 2"),
]


@pytest.mark.parametrize(("other", "said"), MIXED)
@pytest.mark.parametrize("how", ["plain", "cached", "patients", "transformed"])
def test_fit_refuses_bags_that_state_different_things(tmp_path, other, said, how):
    bags = two_slides(tmp_path, **other)
    if how == "cached":
        bags = cache_bags(bags, tmp_path / "cache")
    elif how == "patients":
        bags = patient_bags([Bag(b.source, bag_id=b.bag_id, patient_id=b.bag_id) for b in bags])
    elif how == "transformed":
        bags = bags.map(lambda x: x + 1)
    with pytest.raises(BagError, match=rf"state different things.*{said}.*allow_mixed=True"):
        quick_classifier(max_epochs=1).fit(bags, [0, 1, 0, 1])


@pytest.mark.parametrize("other", [{}, {"encoder": None}, {"encoder": "UNI-v2"}])
def test_fit_takes_bags_that_agree_or_are_silent(tmp_path, other):
    clf = quick_classifier(max_epochs=1).fit(two_slides(tmp_path, **other), [0, 1, 0, 1])
    assert clf.bag_info_["encoder"] == "uni_v2"
    assert clf.bag_info_["magnification"] == 20


def test_scans_of_20x_and_40x_at_one_magnification_agree(tmp_path):
    bags = two_slides(tmp_path, patch_size_level0=256)
    quick_classifier(max_epochs=1).fit(bags, [0, 1, 0, 1])


@pytest.mark.parametrize(("other", "said"), MIXED)
def test_allowed_mixture_is_fitted_and_predicted(tmp_path, other, said):
    two_slides(tmp_path, **other)
    bags = read_bags(tmp_path, allow_mixed=True)
    quick_classifier(max_epochs=1).fit(bags, [0, 1, 0, 1]).predict(bags)


def test_prediction_on_bags_of_another_encoder_is_refused(tmp_path):
    (tmp_path / "new").mkdir()
    clf = quick_classifier(max_epochs=1).fit(two_slides(tmp_path), [0, 1, 0, 1])
    path = trident(tmp_path / "new", "S9", encoder="conch")
    with pytest.raises(BagError, match=r"bag 'S9'.*encoder 'conch'.*training.*'uni_v2'"):
        clf.predict_proba(read_bags(path))
    assert clf.predict_proba(read_bags(path, allow_mixed=True)).shape == (1, 2)
    assert clf.predict_proba([X]).shape == (1, 2)


def test_join_says_that_a_cohort_is_mixed(tmp_path):
    two_slides(tmp_path, encoder="conch")
    ids = [f"S{i}" for i in range(4)]
    table = pd.DataFrame({"slide_id": ids, "case_id": ids, "y": [0, 1, 0, 1]})
    with pytest.warns(CohortWarning, match="encoder: 'uni_v2' in 2"):
        report = load_cohort(table, tmp_path, label="y").report
    assert "'conch' in 2" in str(report)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n", "git lfs pull"),
        (b"", "It is empty"),
        (b"<!DOCTYPE html><html>login</html>", "HTML"),
        (b"\0" * 4096, "begins with zeros"),
    ],
)
@pytest.mark.parametrize("suffix", [".h5", ".pt", ".h5ad"])
def test_join_names_files_that_are_no_bags(tmp_path, content, said, suffix):
    trident(tmp_path, "S0")
    (tmp_path / f"S1{suffix}").write_bytes(content)
    table = pd.DataFrame({"slide_id": ["S0", "S1"], "case_id": ["A", "B"], "y": [0, 1]})
    with pytest.warns(CohortWarning, match=rf"1 files cannot be read \(\"bag 'S1'\"\).*{said}"):
        load_cohort(table, tmp_path, label="y")


def test_dangling_link_is_told_as_such(tmp_path):
    (tmp_path / "S1.h5").symlink_to(tmp_path / "gone.h5")
    with pytest.raises(BagFileError, match=r"is a link to .*gone\.h5, which does not exist"):
        read_bags([tmp_path / "S1.h5"])[0].load()
    with h5py.File(tmp_path / "S2.h5", "w") as file:
        file["features"] = h5py.SoftLink("/moved")
    with pytest.raises(BagFileError, match="'features' is a link that leads nowhere"):
        read_bags(tmp_path / "S2.h5")[0].load()


def test_denied_and_locked_files_are_not_told_as_truncated(tmp_path, monkeypatch):
    path = trident(tmp_path, "S1")
    for error, said in (
        (PermissionError(13, "Permission denied"), "permission to read it is denied"),
        (BlockingIOError(11, "unable to lock file"), "another program has it open"),
        (OSError(37, "unable to lock file"), "its file system has no locks.*HDF5_USE_FILE_LOCKING"),
    ):

        def refuse(*args, error=error, **options):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(h5py, "File", refuse)
            with pytest.raises(BagFileError, match=rf"S1\.h5 cannot be read: {said}"):
                read_bags(path)[0].load()


@pytest.mark.parametrize("cached", [False, True])
def test_file_that_changes_during_fit_is_named(tmp_path, cached):
    bags = two_slides(tmp_path)
    bags = cache_bags(bags, tmp_path / "cache") if cached else bags
    fitted = bags.replace(bag.pinned() for bag in bags)
    fitted[2].load()
    trident(tmp_path, "S2", features=X[:5])
    with pytest.raises(BagFileError, match=r"S2\.h5 changed while it was in use"):
        fitted[2].load()
    assert len(bags[2].features) == 5
