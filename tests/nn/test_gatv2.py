"""The weights of the graph layer start like those of torch-geometric's GATv2Conv."""

import torch
from torch_geometric.nn import GATv2Conv

from sk_momkd.nn.gatv2 import GATv2


def test_reset_parameters_bounds_are_those_of_torch_geometric():
    theirs, ours = GATv2Conv(400, 64, heads=2), GATv2(400, 128, 2, dropout=0.0)
    ours.reset_parameters(torch.Generator().manual_seed(0))
    for name, parameter in theirs.named_parameters():
        mine = ours.get_parameter(name)
        assert mine.shape == parameter.shape
        expected = parameter.abs().max()  # both uniform: the largest of many nears the bound
        torch.testing.assert_close(mine.abs().max(), expected, rtol=0.05, atol=1e-9)
