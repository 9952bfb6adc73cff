"""Fitted trees of scikit-learn as plain arrays; a tree is made of them after they are checked.

A tree is an object of a compiled class that follows its indices unchecked, so that a made-up file
could read and write memory which is not the tree's. It is therefore not loaded but built anew.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..exceptions import ModelFileError

_LEAF = -1  # in place of children


def is_tree(value: Any) -> bool:
    """Whether this is the compiled object of a fitted tree."""
    kind = type(value)
    return (kind.__module__, kind.__name__) == ("sklearn.tree._tree", "Tree")


class StoredTree:
    """A tree as arrays.

    Parameters
    ----------
    tree : sklearn.tree._tree.Tree

    Attributes
    ----------
    n_features, n_outputs : int
    n_classes : int64 ndarray of shape (n_outputs,)
    names : list of str
        Fields of a node, first those with integers.
    integers, floats : ndarray of shape (n_nodes, number of such fields)
    values : float64 ndarray of shape (n_nodes, n_outputs, largest of n_classes)
    """

    def __init__(self, tree: Any) -> None:
        state = tree.__getstate__()
        nodes, kinds = state["nodes"], state["nodes"].dtype
        of_kind = {kind: [n for n in kinds.names if kinds[n].kind in kind] for kind in ("iu", "f")}
        self.n_features, self.n_outputs = int(tree.n_features), int(tree.n_outputs)
        self.n_classes = np.asarray(tree.n_classes, np.int64)
        self.names = of_kind["iu"] + of_kind["f"]
        self.integers = np.stack([nodes[n].astype(np.int64) for n in of_kind["iu"]], axis=1)
        self.floats = np.stack([nodes[n] for n in of_kind["f"]], axis=1)
        self.values = state["values"]

    def restored(self, name: str) -> Any:
        """The tree.

        Raises
        ------
        ModelFileError
            If the content is not that of a tree; names the file.
        """
        from sklearn.tree._tree import NODE_DTYPE, Tree

        try:
            columns = self._columns(NODE_DTYPE)
            depth = self._checked(columns)
        except (AttributeError, TypeError, ValueError, OverflowError) as error:
            raise ModelFileError(f"{name} holds a tree that is none: {error}.") from error
        nodes = np.zeros(len(self.values), NODE_DTYPE)
        for field, values in columns.items():
            nodes[field] = values
        tree = Tree(self.n_features, self.n_classes.astype(np.intp), self.n_outputs)
        state = {"max_depth": depth, "node_count": len(nodes), "nodes": nodes}
        tree.__setstate__(state | {"values": np.ascontiguousarray(self.values)})
        return tree

    def _columns(self, dtype: Any) -> dict[str, NDArray]:
        """Arrays by field of a node."""
        for array, kind in ((self.integers, np.int64), (self.floats, np.float64)):
            if array.ndim != 2 or array.dtype != kind or len(array) != len(self.values):
                raise ValueError(f"its nodes are {array.shape} of {array.dtype}")
        if len(self.names) != self.integers.shape[1] + self.floats.shape[1]:
            raise ValueError(f"it has {len(self.names)} fields")
        columns = dict(zip(self.names, [*self.integers.T, *self.floats.T], strict=True))
        if not columns.keys() <= set(dtype.names) or len(columns) != len(self.names):
            raise ValueError(f"its fields are {', '.join(map(str, self.names))}")
        return columns

    def _checked(self, columns: dict[str, NDArray]) -> int:
        """Depth of the tree, whose nodes come after those that they are below."""
        sizes, n = self.n_classes, len(self.values)
        if type(self.n_features) is not int or type(self.n_outputs) is not int or n == 0:
            raise ValueError("it has no features, no outputs or no nodes")
        if sizes.shape != (self.n_outputs,) or sizes.dtype != np.int64 or not (sizes > 0).all():
            raise ValueError(f"it has the classes {sizes}")
        expected = (n, self.n_outputs, int(sizes.max()))
        if self.values.shape != expected or self.values.dtype != np.float64:
            raise ValueError(f"its values are {self.values.shape} of {self.values.dtype}")
        left, right, feature = (columns[k] for k in ("left_child", "right_child", "feature"))
        inner, own = (left != _LEAF) | (right != _LEAF), np.arange(n)
        for child in (left[inner], right[inner]):
            if not ((child > own[inner]) & (child < n)).all():
                raise ValueError("a node lies beyond its end or above itself")
        if not ((feature[inner] >= 0) & (feature[inner] < self.n_features)).all():
            raise ValueError(f"it asks for features beyond its {self.n_features}")
        return _depth(left, right, own[inner])


def _depth(left: NDArray, right: NDArray, inner: NDArray) -> int:
    """Largest number of steps from the root to a node."""
    depth = np.zeros(len(left), int)
    for i in inner.tolist():  # those above come first
        for child in (left[i], right[i]):
            depth[child] = max(depth[child], depth[i] + 1)
    return int(depth.max())
