"""A simulated cohort on disk, with a known signal in morphology and in expression."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from scipy.ndimage import gaussian_filter

from .hdf5_output import hdf5_output, write_anndata

_TISSUES = ("stroma", "fat", "lymphocytes", "tumour", "aggressive tumour")
_PATCH_LEVEL0 = 512  # 256 px at 20x on a slide scanned at 40x


class CohortPaths(NamedTuple):
    """Result of :func:`simulate_cohort`, the paths that :func:`load_cohort` takes.

    Pass them as ``load_cohort(*paths, label="subtype", positive="aggressive")``.

    Attributes
    ----------
    table : Path
        CSV file with one row per slide: ``slide_id``, ``case_id``, ``severity``, ``subtype``, and
        ``site`` if there are several.
    features : Path
        Folder with one HDF5 file per slide.
    omics : Path
        ``.h5ad`` file of raw counts, patients x genes.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from sk_momkd import simulate_cohort
    >>> simulate_cohort(mkdtemp(), n_patients=2, n_patches=5, random_state=0).table.name
    'slides.csv'
    """

    table: Path
    features: Path
    omics: Path


def _check_shares(
    omics_only: float, label_noise: float, omics_fraction: float, largest_share: float
) -> None:
    shares = {
        "omics_only": omics_only,
        "label_noise": label_noise,
        "omics_fraction": omics_fraction,
    }
    for name, value in shares.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must lie in [0, 1], got {value!r}.")
    if not 0 < largest_share <= 1:
        raise ValueError(f"largest_share must lie in (0, 1], got {largest_share!r}.")


def _expression_biology(
    biology: np.random.Generator, n_genes: int, n_signature: int
) -> tuple[NDArray, NDArray]:
    """Mean log expression of each gene and its response to severity."""
    base = biology.normal(3.0, 1.2, size=n_genes)
    slope = np.zeros(n_genes)
    responding = biology.choice(n_genes, size=min(n_signature, n_genes), replace=False)
    slope[responding] = biology.choice([-1, 1], size=len(responding)) * 0.6
    return base, slope


def _shown_severity(extra_random: np.random.Generator, severity: NDArray, hidden: float) -> NDArray:
    """Severity as morphology shows it: of equal variance, a share `hidden` of which is chance."""
    chance = severity.std() * extra_random.normal(size=len(severity))
    return np.sqrt(1 - hidden) * severity + np.sqrt(hidden) * chance


def _table(
    extra_random: np.random.Generator, severity: NDArray, site: NDArray, prefix: str, noise: float
) -> pd.DataFrame:
    """Slides, patients, severity, label and, where there are several, sites."""
    patients = [f"{prefix}-{i:03d}" for i in range(len(severity))]
    slides = [f"{patient}-01Z-00-DX1" for patient in patients]
    table = pd.DataFrame({"slide_id": slides, "case_id": patients, "severity": severity})
    wrong = extra_random.permutation(len(severity)) < round(noise * len(severity))
    table["subtype"] = np.where((severity > 0) ^ wrong, "aggressive", "indolent")
    if site.any():
        table["site"] = [f"{prefix}{at:02d}" for at in site]
    return table


def _tissue_map(
    random: np.random.Generator, n_patches: int, share: float
) -> tuple[NDArray, NDArray]:
    """Coordinates of a blob of tissue and the tissue type of each patch."""
    n = max(4, round(n_patches * random.uniform(2 / 3, 4 / 3)))
    side = int(np.ceil(np.sqrt(1.6 * n)))
    outline = gaussian_filter(random.normal(size=(side, side)), side / 6, mode="constant")
    inside = np.sort(np.argsort(outline.ravel())[-n:])  # raster order, as tools write it
    row, column = np.unravel_index(inside, (side, side))
    fields = gaussian_filter(random.normal(size=(4, side, side)), (0, 2, 2))
    tissue = fields.argmax(axis=0)[row, column]
    center = random.integers(n)
    distance = np.hypot(row - row[center], column - column[center])
    tissue[np.argsort(distance, kind="stable")[: round(share * n)]] = len(_TISSUES) - 1
    return np.stack([column, row], axis=1) * _PATCH_LEVEL0, tissue


def _write_bag(path: Path, features: NDArray, coords: NDArray, planted: NDArray) -> None:
    with hdf5_output(path) as file:
        file.create_dataset(
            "features",
            data=features.astype(np.float32),
            chunks=(1, features.shape[1]),
            fletcher32=True,
        )
        stored = file.create_dataset(
            "coords", data=coords.astype(np.int64), chunks=(1, 2), fletcher32=True
        )
        stored.attrs.update(
            patch_size=256,
            patch_size_level0=_PATCH_LEVEL0,
            level0_magnification=40,
            target_magnification=20,
            overlap=0,
            name=path.stem,
            level0_width=int(coords[:, 0].max()) + _PATCH_LEVEL0,
            level0_height=int(coords[:, 1].max()) + _PATCH_LEVEL0,
        )
        file.create_dataset("planted", data=planted)


def _require_no_other_cohort(table: Path) -> None:
    """Raise where the files of somebody's own cohort would be replaced."""
    if table.exists() and "severity" not in table.read_bytes()[:200].decode(errors="replace"):
        raise ValueError(
            f"{table} is the table of a cohort that is not simulated, and would be replaced. Name "
            "another folder."
        )


def _counts(
    random: np.random.Generator, severity: NDArray, base: NDArray, slope: NDArray
) -> NDArray:
    """Negative binomial counts, (n_patients, n_genes)."""
    depth = random.normal(0, 0.2, size=(len(severity), 1))
    log_mean = base + slope * (severity + 0.2 * random.normal(size=len(severity)))[:, None] + depth
    gamma = random.gamma(4.0, 1 / 4.0, size=log_mean.shape)
    return random.poisson(np.exp(log_mean) * gamma).astype(np.float32)


def simulate_cohort(
    folder: str | PathLike,
    *,
    n_patients: int = 60,
    n_patches: int = 200,
    n_features: int = 64,
    n_genes: int = 1000,
    n_signature: int = 40,
    effect: float = 1.0,
    omics_only: float = 0.0,
    omics_effect: float = 1.0,
    label_noise: float = 0.0,
    largest_share: float = 0.3,
    stain_shift: float = 0.0,
    n_sites: int = 1,
    site_shift: float = 0.0,
    omics_fraction: float = 1.0,
    prefix: str = "SIM",
    random_state: int | None = None,
) -> CohortPaths:
    """Write TRIDENT-style HDF5 bags, a slide table and raw counts of a simulated cohort.

    Each patient has a hidden severity. With noise it determines the share of the slide that one
    connected region of aggressive tumour covers, and, with less noise, the expression of
    `n_signature` genes. The label is aggressive where severity is above zero. The biology (how
    tissues look, which genes respond) is the same in every call with equal widths, so one call
    gives a training cohort and another, with `stain_shift`, a cohort of another hospital. The
    simulation parameters leave everything else unchanged: the same seed with another `label_noise`
    gives the same slides.

    Parameters
    ----------
    folder : path
        Made if it does not exist.
    n_patients, n_patches : int
        One slide per patient; patches per slide vary by a third around `n_patches`.
    n_features, n_genes, n_signature : int
    effect : float, default=1.0
        Effect of severity on morphology; 0 for none.
    omics_only : float, default=0.0
        Share of the variance of severity, in [0, 1], that affects expression and the label but not
        morphology. At 1 the slides carry no information on the label.
    omics_effect : float, default=1.0
        Effect of severity on expression; 0 for none.
    label_noise : float, default=0.0
        Share of patients, in [0, 1], with a wrong label in the table. Morphology and expression
        follow the right label.
    largest_share : float, default=0.3
        Upper limit, in (0, 1], of the share of a slide that the aggressive region covers: the
        informative patches.
    stain_shift : float, default=0.0
        Size of a change that all patches of the cohort share, in standard deviations of noise.
    n_sites : int, default=1
        Number of sites, to which patients are assigned independently of their label. With several
        sites the table has a column ``site``.
    site_shift : float, default=0.0
        Size of a change that all patches of a site share, different at each site, in the same unit.
    omics_fraction : float, default=1.0
        Share of patients with expression.
    prefix : str, default="SIM"
        First part of the patient ids.
    random_state : int, optional

    Returns
    -------
    CohortPaths
        ``table, features, omics``. The ground truth is stored with the data: dataset ``planted`` in
        each bag file, columns ``severity`` in the table and ``signature`` in ``adata.var``.

    Raises
    ------
    ValueError
        If a share lies outside its range, there is not a patient for each site, or the folder has
        the table of a cohort that is not simulated.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from sk_momkd import simulate_cohort
    >>> paths = simulate_cohort(mkdtemp(), n_patients=3, n_patches=10, random_state=0)
    >>> sorted(p.name for p in paths.features.iterdir())[0]
    'SIM-000-01Z-00-DX1.h5'
    """
    from anndata import AnnData

    _check_shares(omics_only, label_noise, omics_fraction, largest_share)
    if not 1 <= n_sites <= n_patients:
        raise ValueError(f"n_sites must be 1 to {n_patients} (one patient each), got {n_sites!r}.")
    folder = Path(folder)
    _require_no_other_cohort(folder / "slides.csv")
    features = folder / "features"
    features.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(random_state)
    extra_random = random.spawn(1)[0]  # apart, so that its draws do not change the others
    biology = np.random.default_rng([n_features, n_genes, n_signature])
    looks = biology.normal(size=(len(_TISSUES), n_features))
    # Aggressive tumour looks like tumour with a difference, not like something else.
    looks[-1] = looks[-2] + 0.8 * biology.normal(size=n_features)
    base, slope = _expression_biology(biology, n_genes, n_signature)
    shift = stain_shift * random.normal(size=n_features)

    severity = random.permutation(np.linspace(-1.5, 1.5, n_patients) + 1e-6)
    site = extra_random.permutation(n_patients) % n_sites
    shifts = shift + site_shift * extra_random.normal(size=(n_sites, n_features))
    shown = _shown_severity(extra_random, severity, omics_only)
    table = _table(extra_random, severity, site, prefix, label_noise)
    for slide, s, at in zip(table["slide_id"], shown, site, strict=True):
        share = largest_share / (1 + np.exp(-3 * effect * (s + 0.4 * random.normal())))
        coords, tissue = _tissue_map(random, n_patches, share)
        values = looks[tissue] + random.normal(size=(len(tissue), n_features)) + shifts[at]
        values += 0.2 * random.normal(size=n_features)  # this slide's own staining
        _write_bag(features / f"{slide}.h5", values, coords, tissue == len(_TISSUES) - 1)

    has_omics = random.permutation(n_patients) < round(omics_fraction * n_patients)
    slope = omics_effect * slope
    adata = AnnData(sparse.csr_matrix(_counts(random, severity[has_omics], base, slope)))
    adata.obs_names = table["case_id"].to_numpy()[has_omics]
    adata.var_names = [f"GENE{j:05d}" for j in range(n_genes)]
    adata.var["signature"] = slope != 0
    write_anndata(adata, folder / "expression.h5ad")
    table.to_csv(folder / "slides.csv.part", index=False)
    os.replace(folder / "slides.csv.part", folder / "slides.csv")  # last: then all is complete
    return CohortPaths(folder / "slides.csv", features, folder / "expression.h5ad")
