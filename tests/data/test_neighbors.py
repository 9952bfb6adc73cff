"""Nearest patches, counted by hand, and the same whatever the order of the patches."""

import numpy as np
import pytest

from sk_momkd.data.neighbors import most_similar_patches, nearest_patches, row_keys

LINE = np.array([[0, 0], [1, 0], [3, 0], [7, 0]])


def test_nearest_patches_on_a_line_are_the_ones_counted_by_hand():
    assert nearest_patches(LINE, 1).tolist() == [[1], [0], [1], [2]]
    assert nearest_patches(LINE, 2).tolist() == [[1, 2], [0, 2], [1, 0], [2, 1]]


def test_nearest_patches_on_a_cross_are_its_centre():
    cross = np.array([[5, 5], [5, 6], [5, 4], [6, 5], [4, 5]]) * 256
    found = nearest_patches(cross, 1)
    assert found[1:].tolist() == [[0]] * 4
    assert found[0, 0] in {1, 2, 3, 4}


def test_nearest_patches_of_random_coords_have_the_smallest_distances():
    coords = np.random.default_rng(0).integers(0, 12, size=(80, 2)) * 512
    found = nearest_patches(coords, 8)
    distances = np.linalg.norm(coords[:, None] - coords, axis=2)
    own = distances[np.arange(80)[:, None], found]
    np.fill_diagonal(distances, np.inf)
    np.testing.assert_allclose(own, np.sort(distances, axis=1)[:, :8])
    assert not (found == np.arange(80)[:, None]).any()
    assert all(len(set(row)) == 8 for row in found.tolist())


@pytest.mark.parametrize("n_duplicates", [2, 3, 4, 5, 12, 40])
def test_nearest_patches_of_duplicates_are_others_at_the_same_place(n_duplicates):
    coords = np.concatenate([np.full((n_duplicates, 2), 256), LINE + 9999])
    found = nearest_patches(coords, 3)
    assert found.shape == (len(coords), 3)
    assert not (found == np.arange(len(coords))[:, None]).any()
    assert all(len(set(row)) == 3 for row in found.tolist())
    close = (found[:n_duplicates] < n_duplicates).sum(axis=1)
    assert (close == min(3, n_duplicates - 1)).all()


@pytest.mark.parametrize(("n", "k", "expected"), [(1, 8, 0), (2, 8, 1), (4, 4, 3), (4, 3, 3)])
def test_nearest_patches_of_few_are_all_the_others(n, k, expected):
    found = nearest_patches(LINE[:n], k)
    assert found.shape == (n, expected)
    assert found.dtype == np.int64
    assert [set(row) for row in found.tolist()] == [set(range(n)) - {i} for i in range(n)]


def test_nearest_patches_of_equal_distance_are_the_left_and_then_the_upper_ones():
    cross = np.array([[5, 5], [6, 5], [5, 6], [5, 4], [4, 5]]) * 256
    assert nearest_patches(cross, 1)[0].tolist() == [4]
    assert set(nearest_patches(cross, 2)[0]) == {4, 3}
    assert set(nearest_patches(cross, 3)[0]) == {4, 3, 2}


def test_nearest_patches_at_one_place_are_chosen_by_their_features():
    coords = np.array([[0, 0], [9, 0], [9, 0], [9, 0]])
    keys = np.array([0, 7, 3, 5], dtype=np.uint64)
    assert nearest_patches(coords, 1, lambda: keys).tolist() == [[2], [2], [3], [2]]


def named(found, names):
    """Name of each patch with the sorted names of its neighbours, in any order of the patches."""
    return sorted((names[i], *sorted(names[row])) for i, row in enumerate(found))


@pytest.mark.parametrize("scale", [1, 256, 0.2527])
@pytest.mark.parametrize("seed", range(8))
def test_neighbours_do_not_depend_on_the_order_of_patches(seed, scale):
    """On lattices with gaps, with several patches at one place, with equal patches."""
    random = np.random.default_rng(seed)
    n, k = random.integers(2, 60), random.integers(1, 10)
    coords = random.integers(0, random.integers(2, 9), size=(n, 2)) * scale
    features = random.integers(0, 3, size=(n, 4)).astype(np.float32)
    keys, order = row_keys([features]), random.permutation(n)
    for content, search in (
        (features, lambda rows: most_similar_patches(features[rows], k)),
        (
            np.hstack([coords, features]),
            lambda rows: nearest_patches(coords[rows], k, lambda: keys[rows]),
        ),
    ):
        _, names = np.unique(content, axis=0, return_inverse=True)
        assert named(search(np.arange(n)), names) == named(search(order), names[order])


def test_most_similar_patches_have_the_smallest_distances():
    features = np.random.default_rng(0).integers(0, 4, size=(70, 20)).astype(np.float32)
    features[::7] = features[0]  # blank patches
    found = most_similar_patches(features, 8)
    distances = np.linalg.norm(features[:, None] - features, axis=2)
    own = np.sort(np.take_along_axis(distances, found, axis=1))
    np.fill_diagonal(distances, np.inf)
    np.testing.assert_allclose(own, np.sort(distances, axis=1)[:, :8], atol=1e-6)
    assert not (found == np.arange(70)[:, None]).any()


def test_row_keys_are_those_of_the_content_alone():
    rows = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
    rows[4] = rows[7]
    rows[[1, 2]] = [[0.0] * 5, [-0.0] * 5]
    keys = row_keys([rows])
    assert keys.tolist() == row_keys([rows[:4], rows[4:]]).tolist()
    assert keys[::-1].tolist() == row_keys([rows[::-1]]).tolist()
    assert keys[4] == keys[7]
    assert keys[1] == keys[2]
    assert len(set(keys.tolist())) == 7
