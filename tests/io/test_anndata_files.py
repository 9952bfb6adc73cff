"""AnnData files, written here as LazySlide writes them."""

import numpy as np
from anndata import AnnData
from scipy import sparse

from sk_momkd import read_bags

X = np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32)
GRID = np.stack(np.divmod(np.arange(12), 4)[::-1], axis=1)


def test_lazyslide_anndata_with_graph_and_tile_spec(tmp_path):
    slide = AnnData(X)
    slide.obsm["spatial"] = GRID * 448
    graph = np.zeros((12, 12))
    graph[3, 5] = 1  # patch 3 lists 5 as its neighbour
    slide.obsp["spatial_connectivities"] = sparse.csr_matrix(graph)
    slide.uns["tile_spec"] = {"base_width": 448, "mpp": 0.5}
    slide.write_h5ad(tmp_path / "S1.h5ad")
    (bag,) = read_bags(tmp_path)
    np.testing.assert_array_equal(bag.features, X)
    np.testing.assert_array_equal(bag.coords, GRID * 448)
    assert bag.edge_index.tolist() == [[5], [3]]
    assert bag.info.patch_size_level0 == 448
