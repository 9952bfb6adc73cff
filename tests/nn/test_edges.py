"""Edges by receiver and by sender."""

import torch

from sk_momkd.nn.edges import Edges


def test_edges_sorted_both_ways_describe_the_same_edges():
    edge_index = torch.tensor([[0, 2, 2, 1, 3], [1, 1, 1, 1, 0]])  # a duplicate, a self loop
    edges = Edges.of(edge_index, 4)
    expected = sorted([(0, 1), (2, 1), (2, 1), (3, 0), (0, 0), (1, 1), (2, 2), (3, 3)])
    assert sorted(zip(*(end.tolist() for end in edges.pairs()), strict=True)) == expected
    by_sender = [
        (j, int(edges.receiver[k]))
        for j in range(4)
        for k in range(edges.out_offsets[j], edges.out_offsets[j + 1])
    ]
    assert sorted(by_sender) == expected
    sender, receiver = edges.pairs()
    assert [(int(sender[e]), int(receiver[e])) for e in edges.position] == by_sender


def test_edges_join_numbers_nodes_and_edges_on():
    one, two = Edges.of(torch.tensor([[0], [1]]), 2), Edges.of(torch.tensor([[2], [0]]), 3)
    both = Edges.join([one, two])
    expected = Edges.of(torch.tensor([[0, 4], [1, 2]]), 5)
    for name in ("in_offsets", "sender", "out_offsets", "receiver", "position"):
        assert torch.equal(getattr(both, name), getattr(expected, name)), name


def test_edges_among_kept_nodes_are_those_of_the_graph_without_the_others():
    index = torch.tensor([[0, 1, 2, 3, 3], [1, 2, 3, 0, 1]])
    kept = torch.tensor([True, True, False, True])
    expected = Edges.of(torch.tensor([[0, 2, 2], [1, 0, 1]]), 3)
    found = Edges.of(index, 4).among(kept)
    for name in ("in_offsets", "sender", "out_offsets", "receiver", "position"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
