"""Predictions of a checkpoint of the authors' program, by their program and by this package.

    python benchmarks/official_checkpoint.py --program MoMKD --data DATA

`--program` is a checkout of the authors' repository; it needs einops and einx. Networks of three
sizes get random weights, are saved as the program saves them, and predict 50 windows of her2st (or
random bags, where the width of the features has to be that of the network) in both ways.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import torch
from sklearn.neighbors import kneighbors_graph

from sk_momkd import Bag, MoMKDClassifier

SIZES = ((153, 512), (153, 256), (64, 64))  # features, width of the encoder


def windows(folder: Path, n: int = 50) -> list[tuple[np.ndarray, np.ndarray]]:
    """Features and coordinates of the first `n` slides of a folder."""
    found = []
    for path in sorted(folder.glob("*.h5"))[:n]:
        with h5py.File(path) as file:
            found.append((file["features"][:].astype(np.float32), file["coords"][:]))
    return found


def random_bags(n_features: int, n: int = 20) -> list[tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(range(8), range(5)), axis=-1).reshape(-1, 2) * 256
    return [(random.normal(size=(40, n_features)).astype(np.float32), grid) for _ in range(n)]


def largest_differences(program, n_features: int, dim: int, bags: list) -> tuple[float, float]:
    """Of a probability, with coordinates alone and with stored edges."""
    torch.manual_seed(0)
    network = program(200, n_features, dim, dim, 64, 16).eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s_0_mkd_checkpoint.pt"
        torch.save(network.state_dict(), path)
        clf = MoMKDClassifier.from_official_checkpoint(path)
    by_coords, by_edges = 0.0, 0.0
    for features, coords in bags:
        graph = kneighbors_graph(coords, 8, mode="connectivity", include_self=False)
        edges = np.stack(graph.nonzero()).astype(np.int64)
        with torch.no_grad():
            out = network.forward_inference((torch.tensor(features), torch.tensor(edges)))
        parts = out if isinstance(out, tuple | list) else [out]
        logits = next(p for p in parts if torch.is_tensor(p) and p.shape[-1] == 2)
        expected = logits.reshape(1, 2).softmax(dim=1).numpy()
        plain, stored = Bag(features, coords), Bag(features, coords, edge_index=edges)
        by_coords = max(by_coords, np.abs(clf.predict_proba([plain]) - expected).max())
        by_edges = max(by_edges, np.abs(clf.predict_proba([stored]) - expected).max())
    return by_coords, by_edges


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    sys.path.insert(0, str(options.program))
    from models.mkd import MKD

    for n_features, dim in SIZES:
        real = windows(options.data / "her2st" / "features") if n_features == 153 else None
        bags = [bag for bag in real or random_bags(n_features) if len(bag[0]) > 8]
        by_coords, by_edges = largest_differences(MKD, n_features, dim, bags)
        print(
            f"{n_features} features, width {dim}, {len(bags)} slides: largest difference "
            f"{by_coords:.1e} with coordinates alone, {by_edges:.1e} with stored edges"
        )


if __name__ == "__main__":
    main()
