"""Torch files, written here as each tool writes them."""

import ast
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

import sk_momkd
from sk_momkd import read_bags
from sk_momkd.exceptions import BagFileError

X = np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32)
GRID = np.stack(np.divmod(np.arange(12), 4)[::-1], axis=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_clam_pt_is_features_alone(tmp_path, dtype):
    torch.save(torch.tensor(X).to(dtype), tmp_path / "007.pt")
    (bag,) = read_bags(tmp_path)
    assert (bag.bag_id, bag.coords, bag.info.format) == ("007", None, "pt")
    np.testing.assert_array_equal(bag.features, torch.tensor(X).to(dtype).float().numpy())


def test_slideflow_coordinates_are_centres(tmp_path):
    torch.save(torch.tensor(X), tmp_path / "S1.pt")
    np.savez(tmp_path / "S1.index.npz", GRID * 299 + 149)
    (bag,) = read_bags(tmp_path)
    assert (bag.info.format, bag.info.anchor) == ("slideflow", "centre")
    np.testing.assert_array_equal(bag.coords, GRID * 299 + 149)


def test_pyg_data_file_keeps_positions_and_edges(tmp_path):
    edges = torch.tensor([[0, 1], [1, 2]])
    data = Data(x=torch.tensor(X), pos=torch.tensor(GRID), edge_index=edges)
    torch.save(data, tmp_path / "S1.pt")
    (bag,) = read_bags(tmp_path)
    assert bag.info.keys == ("x", "pos", "edge_index")
    np.testing.assert_array_equal(bag.features, X)
    np.testing.assert_array_equal(bag.edge_index, edges)


class Malicious:
    def __reduce__(self):
        return os.mkdir, (os.environ["SHOULD_NOT_EXIST"],)


def test_pt_with_code_inside_is_refused_and_not_run(tmp_path, monkeypatch):
    target = tmp_path / "made"
    monkeypatch.setenv("SHOULD_NOT_EXIST", str(target))
    torch.save({"x": Malicious()}, tmp_path / "S1.pt")
    with pytest.raises(BagFileError, match=r"S1\.pt is not a readable torch file"):
        read_bags(tmp_path)[0].load()
    assert not target.exists()


@pytest.mark.parametrize("content", [{"a": torch.ones(2)}, [1, 2], Data(pos=torch.ones(2, 2))])
def test_pt_of_something_else_says_what_it_holds(tmp_path, content):
    torch.save(content, tmp_path / "S1.pt")
    with pytest.raises(BagFileError, match=f"holds a {type(content).__name__}"):
        read_bags(tmp_path)[0].load()


def test_read_pyg_without_positions(tmp_path):
    torch.save(Data(x=torch.ones(2, 3)), tmp_path / "S1.pt")
    (bag,) = read_bags(tmp_path)
    assert bag.info.keys == ("x",)
    assert bag.coords is None


def test_read_sparse_tensor_raises_naming_the_file(tmp_path):
    torch.save(torch.eye(3).to_sparse(), tmp_path / "S1.pt")
    with pytest.raises(BagFileError, match=r"S1\.pt holds no dense tensor"):
        read_bags(tmp_path)[0].load()


def test_read_code_in_a_torch_file_is_refused_without_bad_advice(tmp_path):
    torch.save(print, tmp_path / "S1.pt")
    with pytest.raises(BagFileError, match=r"S1\.pt is not a readable torch file") as raised:
        read_bags(tmp_path)[0].load()
    assert "Re-running" not in str(raised.value)


@pytest.mark.slow
def test_declared_torch_runs_no_code_of_a_file_and_every_call_asks_for_weights_alone():
    """Before 2.10, weights_only=True could be made to run code (CVE-2025-32434, CVE-2026-24747)."""
    root = Path(sk_momkd.__file__).parents[1]
    (declared,) = re.findall(r'"torch>=([\d.]+)[,"]', (root / "pyproject.toml").read_text())
    assert tuple(map(int, declared.split("."))) >= (2, 10)
    calls = 0
    for path in (root / "sk_momkd").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                calls += 1
                asked = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert asked["weights_only"] == "True", path
    assert calls >= 2
