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


def planted_shares(paths):
    """Share of planted patches of each slide, in the order of the table."""
    shares = []
    for slide in pd.read_csv(paths.table)["slide_id"]:
        with h5py.File(paths.features / f"{slide}.h5") as file:
            shares.append(file["planted"][:].mean())
    return np.array(shares)


def follows_severity(paths):
    """Correlation of severity with planted shares, and its median with the signature genes."""
    severity = pd.read_csv(paths.table)["severity"]
    adata = anndata.read_h5ad(paths.omics)
    expression = np.log2(adata.X.toarray() + 1)
    genes = answering(adata)
    r = [abs(np.corrcoef(expression[:, j], severity)[0, 1]) for j in genes]
    return np.corrcoef(planted_shares(paths), severity)[0, 1], np.median(r)


def answering(adata):
    """Genes that answer; where none does, all."""
    found = np.flatnonzero(adata.var["signature"])
    return found if len(found) else np.arange(adata.n_vars)


@pytest.mark.slow
def test_simulate_omics_only_hides_severity_from_morphology_and_not_from_omics(tmp_path):
    cohorts = [
        simulate(tmp_path / str(hidden), n_patients=120, omics_only=hidden)
        for hidden in (0.0, 0.5, 1.0)
    ]
    shown, expressed = zip(*map(follows_severity, cohorts), strict=True)
    assert shown[0] > shown[1] + 0.1 > shown[2] + 0.3
    assert abs(shown[2]) < 0.2  # twice the standard error of a correlation that is none
    assert len(set(expressed)) == 1


@pytest.mark.slow
def test_simulate_omics_effect_decides_whether_expression_follows_severity(tmp_path):
    cohorts = [
        simulate(tmp_path / str(effect), n_patients=120, omics_effect=effect)
        for effect in (1.0, 0.3, 0.0)
    ]
    shown, expressed = zip(*map(follows_severity, cohorts), strict=True)
    assert expressed[0] > expressed[1] + 0.1 > expressed[2] + 0.2
    assert expressed[2] < 0.1  # the median |r| of chance with 120 patients is 0.06
    assert not anndata.read_h5ad(cohorts[2].omics).var["signature"].any()
    assert len(set(shown)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 0.2, 1.0])
def test_simulate_label_noise_is_the_share_of_wrong_labels_and_nothing_else(tmp_path, noise):
    plain = simulate(tmp_path / "plain", n_patients=20)
    noisy = simulate(tmp_path / "noisy", n_patients=20, label_noise=noise)
    table = pd.read_csv(noisy.table)
    wrong = (table["subtype"] == "aggressive") != (table["severity"] > 0)
    assert wrong.mean() == pytest.approx(noise)
    np.testing.assert_array_equal(stacked(noisy), stacked(plain))
    counts = [anndata.read_h5ad(p.omics).X.toarray() for p in (plain, noisy)]
    np.testing.assert_array_equal(*counts)


def test_simulate_largest_share_bounds_the_informative_patches(tmp_path):
    sizes = (0.1, 0.3, 0.9)
    shares = [planted_shares(simulate(tmp_path / str(s), largest_share=s)) for s in sizes]
    assert shares[0].mean() < shares[1].mean() < shares[2].mean()
    for share, largest in zip(shares, sizes, strict=True):
        assert share.max() <= largest + 1 / 40  # rounded to whole patches of at least 20


@pytest.mark.slow
def test_simulate_sites_are_named_and_balanced_and_do_not_follow_severity(tmp_path):
    table = pd.read_csv(simulate(tmp_path, n_patients=200, n_sites=4).table)
    assert table["site"].value_counts().tolist() == [50] * 4
    means = table.groupby("site")["severity"].mean()
    assert np.abs(means).max() < 3 * table["severity"].std() / np.sqrt(50)


def test_simulate_one_site_has_no_column_and_a_shift_of_zero_changes_nothing(paths, tmp_path):
    several = simulate(tmp_path, n_sites=3)
    assert "site" not in pd.read_csv(paths.table)
    np.testing.assert_array_equal(stacked(several), stacked(paths))


def test_simulate_site_shift_moves_the_slides_of_a_site_alike(tmp_path):
    sizes = []
    for shift in (0.0, 1.0, 3.0):
        plain = simulate(tmp_path / f"plain{shift}", n_sites=2)
        shifted = simulate(tmp_path / f"shifted{shift}", n_sites=2, site_shift=shift)
        site = pd.read_csv(plain.table)["site"]  # in the order of the files
        patches = [
            h5py.File(file)["features"].shape[0] for file in sorted(plain.features.iterdir())
        ]
        of_patch = np.repeat(site, patches).to_numpy()
        moved = stacked(shifted) - stacked(plain)
        ways = [moved[of_patch == name] for name in sorted(set(site))]
        for way in ways:
            np.testing.assert_allclose(way, np.broadcast_to(way[0], way.shape), atol=1e-5)
        sizes.append(np.abs(ways[0][0] - ways[1][0]).max())
    assert sizes[0] == 0 < 0.5 < sizes[1] < sizes[2]


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("omics_only", 1.5),
        ("label_noise", -0.1),
        ("omics_fraction", 2),
        ("largest_share", 0),
        ("n_sites", 11),
        ("n_sites", 0),
    ],
)
def test_simulate_value_out_of_range_raises_naming_it(tmp_path, argument, value):
    with pytest.raises(ValueError, match=f"{argument} must .* got {value!r}"):
        simulate(tmp_path, **{argument: value})
    assert not list(tmp_path.iterdir())
