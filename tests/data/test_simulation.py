"""The simulated cohort: its files, its truth, and its seed."""

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest

from sk_momkd import simulate_cohort

SIZE = {"n_patients": 10, "n_patches": 30, "n_features": 5, "n_genes": 40, "n_signature": 8}


def simulate(folder, seed=0, **changes):
    return simulate_cohort(folder, random_state=seed, **(SIZE | changes))


def stacked(paths, key="features"):
    """Dataset `key` of all slides, one below the other."""
    blocks = []
    for path in sorted(paths.features.iterdir()):
        with h5py.File(path) as file:
            blocks.append(file[key][:])
    return np.concatenate(blocks)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("cohort"))


def test_simulate_bags_are_trident_files(paths):
    files = sorted(paths.features.iterdir())
    assert [f.name for f in files] == [f"SIM-{i:03d}-01Z-00-DX1.h5" for i in range(10)]
    for path in files:
        with h5py.File(path) as file:
            features, coords = file["features"], file["coords"]
            assert (features.dtype, coords.dtype) == (np.float32, np.int64)
            assert features.shape == (len(coords), 5)
            assert 20 <= len(features) <= 40
            assert coords.attrs["name"] == path.stem
            assert coords.attrs["patch_size_level0"] == 512
            limits = coords.attrs["level0_width"], coords.attrs["level0_height"]
            assert (coords[:] + 512 <= limits).all()
            assert len(np.unique(coords[:], axis=0)) == len(coords)


def test_simulate_table_labels_follow_severity(paths):
    table = pd.read_csv(paths.table)
    assert (table["slide_id"].str[:7] == table["case_id"]).all()
    assert ((table["subtype"] == "aggressive") == (table["severity"] > 0)).all()
    assert table["subtype"].value_counts().tolist() == [5, 5]


def test_simulate_omics_are_counts_with_a_known_signature(paths):
    adata = anndata.read_h5ad(paths.omics)
    counts = adata.X.toarray()
    assert adata.obs_names.tolist() == pd.read_csv(paths.table)["case_id"].tolist()
    assert adata.var["signature"].sum() == 8
    assert (counts == counts.round()).all()
    assert counts.min() >= 0


def test_simulate_planted_patches_look_different(paths):
    features, planted = stacked(paths), stacked(paths, "planted")
    assert 0 < planted.sum() < len(planted)
    gap = features[planted].mean(axis=0) - features[~planted].mean(axis=0)
    assert np.abs(gap).max() > 0.5


def test_simulate_signature_follows_severity_more_than_other_genes(tmp_path):
    paths = simulate(tmp_path, n_patients=60)
    adata = anndata.read_h5ad(paths.omics)
    expression = np.log2(adata.X.toarray() + 1)
    severity = pd.read_csv(paths.table)["severity"]
    r = np.abs([np.corrcoef(gene, severity)[0, 1] for gene in expression.T])
    signature = adata.var["signature"].to_numpy()
    assert np.median(r[signature]) > 2 * np.median(r[~signature])


@pytest.mark.parametrize(("effect", "follows"), [(1.0, True), (0.0, False)])
def test_simulate_effect_decides_whether_lesions_follow_severity(tmp_path, effect, follows):
    paths = simulate(tmp_path, n_patients=30, effect=effect)
    shares = []
    for slide in pd.read_csv(paths.table).sort_values("severity")["slide_id"]:
        with h5py.File(paths.features / f"{slide}.h5") as file:
            shares.append(file["planted"][:].mean())
    assert (np.mean(shares[15:]) > 1.5 * np.mean(shares[:15])) == follows


def test_simulate_same_seed_is_identical_and_another_is_not(paths, tmp_path):
    again, other = simulate(tmp_path / "again"), simulate(tmp_path / "other", seed=1)
    np.testing.assert_array_equal(stacked(again), stacked(paths))
    assert again.table.read_text() == paths.table.read_text()
    counts = [anndata.read_h5ad(p.omics).X.toarray() for p in (paths, again, other)]
    np.testing.assert_array_equal(counts[0], counts[1])
    assert (counts[0] != counts[2]).any()
    assert other.table.read_text() != paths.table.read_text()


def test_simulate_other_seed_keeps_the_biology(paths, tmp_path):
    other = simulate(tmp_path, seed=1)
    genes = [anndata.read_h5ad(p.omics).var["signature"] for p in (paths, other)]
    pd.testing.assert_series_equal(*genes)


def test_simulate_leaves_the_global_random_state(tmp_path):
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    simulate(tmp_path)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_simulate_stain_shift_moves_every_slide_alike(tmp_path):
    plain, shifted = simulate(tmp_path / "a"), simulate(tmp_path / "b", stain_shift=2.0)
    moved = stacked(shifted) - stacked(plain)
    np.testing.assert_allclose(moved, np.broadcast_to(moved[0], moved.shape), atol=1e-5)
    assert np.abs(moved[0]).max() > 0.5


@pytest.mark.parametrize(("fraction", "n"), [(1.0, 10), (0.4, 4)])
def test_simulate_omics_fraction_of_patients_have_expression(tmp_path, fraction, n):
    adata = anndata.read_h5ad(simulate(tmp_path, omics_fraction=fraction, prefix="EXT").omics)
    assert adata.n_obs == n
    assert adata.obs_names.str.startswith("EXT-").all()
