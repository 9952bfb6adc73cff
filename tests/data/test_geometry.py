"""Step between patches against their size."""

import numpy as np

from sk_momkd import Bag, geometry, read_bags, write_trident

GRID = np.stack(np.divmod(np.arange(12), 4), axis=1)


def test_geometry_tells_overlap_gaps_and_unknown_size(tmp_path):
    for name, step in (("exact", 512), ("overlap", 256), ("gaps", 1024)):
        bag = Bag(np.ones((12, 2)), GRID * step)
        write_trident(tmp_path / f"{name}.h5", bag, patch_size_level0=512)
    table = geometry([*read_bags(tmp_path), Bag(np.ones((2, 2)), bag_id="memory")])
    assert table["step_per_patch"].to_list()[:3] == [1.0, 2.0, 0.5]
    assert table.loc["bag 'memory'", ["patch_size", "step"]].isna().all()
    assert table["n_instances"].to_list() == [12, 12, 12, 2]


def test_geometry_one_patch_has_no_step():
    assert np.isnan(geometry([Bag(np.ones((1, 2)), [[5, 5]])])["step"].iloc[0])
