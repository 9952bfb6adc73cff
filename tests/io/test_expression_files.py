"""Expression in Excel, parquet, GCT and zarr, with patients on either side."""

import gzip

import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from sk_momkd import load_cohort
from sk_momkd.exceptions import OmicsError

SLIDES = pd.DataFrame({"slide_id": ["007", "008"], "case_id": ["P1", "P2"], "er": ["+", "-"]})
RNA = pd.DataFrame([[4.5, 5.5, 6.5], [1.5, 2.5, 3.5]], ["P2", "P1"], ["ESR1", "PGR", "ERBB2"])


@pytest.fixture
def features(tmp_path):
    folder = tmp_path / "features"
    folder.mkdir()
    for slide in SLIDES["slide_id"]:
        with h5py.File(folder / f"{slide}.h5", "w") as file:
            file["features"] = np.ones((2, 3))
    return folder


def excel(frame, folder):
    pytest.importorskip("openpyxl")
    frame.to_excel(folder / "rna.xlsx", index_label="gene")
    return folder / "rna.xlsx"


def parquet(frame, folder):
    pytest.importorskip("pyarrow")
    frame.to_parquet(folder / "rna.parquet")
    return folder / "rna.parquet"


def parquet_with_a_column_of_ids(frame, folder):
    pytest.importorskip("pyarrow")
    frame.reset_index(names="id").to_parquet(folder / "rna.parquet", index=False)
    return folder / "rna.parquet"


def gct_text(frame, version):
    lines = [version, f"{len(frame)}\t{frame.shape[1]}" + ("\t1\t1" if version == "#1.3" else "")]
    lines.append("\t".join(["Name", "Description", *frame.columns]))
    lines += ["\t".join(["batch", "na", *"1" * frame.shape[1]])] if version == "#1.3" else []
    lines += ["\t".join([name, "text", *map(str, row)]) for name, row in frame.iterrows()]
    return "\n".join(lines) + "\n"


def gct(frame, folder):
    (folder / "rna.gct").write_text(gct_text(frame, "#1.2"))
    return folder / "rna.gct"


def gct_13_compressed(frame, folder):
    (folder / "rna.gct.gz").write_bytes(gzip.compress(gct_text(frame, "#1.3").encode()))
    return folder / "rna.gct.gz"


def zarr(frame, folder):
    AnnData(sparse.csr_matrix(frame), frame[[]], frame.T[[]]).write_zarr(folder / "rna.zarr")
    return folder / "rna.zarr"


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("write", "turned"),
    [
        *((w, t) for w in (excel, parquet, parquet_with_a_column_of_ids) for t in (False, True)),
        (gct, True),
        (gct_13_compressed, True),
        (zarr, False),
    ],
)
def test_expression_is_joined_by_id(tmp_path, features, write, turned):
    path = write(RNA.T if turned else RNA, tmp_path)
    omics = load_cohort(SLIDES, features, path, label="er").omics
    assert list(omics.obs_names) == ["P1", "P2"]
    values = omics[:, RNA.columns].X
    values = values.toarray() if sparse.issparse(values) else values
    np.testing.assert_array_equal(values, RNA.loc[["P1", "P2"]])


def test_damaged_or_unknown_files_are_named(tmp_path, features):
    (tmp_path / "rna.gct").write_text(gct_text(RNA.T, "#1.2").replace("PGR", "PGR\tmore"))
    (tmp_path / "rna.parquet").write_bytes(b"PAR1")
    (tmp_path / "rna.rds").write_bytes(b"x")
    for name in ("rna.gct", "rna.parquet", "rna.rds"):
        with pytest.raises((OmicsError, ValueError), match=name.replace(".", r"\.")):
            load_cohort(SLIDES, features, tmp_path / name, label="er")


def test_text_among_numbers_is_named(tmp_path, features):
    path = excel(RNA.map(lambda value: "high" if value == 5.5 else value), tmp_path)
    with pytest.raises(OmicsError, match=r"rna\.xlsx: column 'PGR' is not numeric"):
        load_cohort(SLIDES, features, path, label="er")
