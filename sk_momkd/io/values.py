"""Plain values as JSON and arrays, and back: numbers, text, containers, tables, arrays.

JSON has numbers, text, lists and the values true, false and null as they are; everything else is an
object of one key, which names the kind. Arrays of numbers are not in the JSON, which refers to them
by name.
"""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..exceptions import ModelFileError

_NUMBERS = "biuf"  # kinds of numpy types
_SCALAR_TYPE = re.compile(r"[<|][biufU]\d{1,2}|<U\d{1,5}")
_MOST_TEXT = 2**26  # characters of an array of text
_JSON_TYPES = (bool, int, str, type(None))


class ValueWriter:
    """Encodes values; arrays of numbers are collected in `arrays`."""

    def __init__(self) -> None:
        self.arrays: dict[str, NDArray] = {}

    @abstractmethod
    def encode_object(self, value: Any, name: str) -> Any:
        """JSON of a value that is not plain; raises where it cannot be saved."""

    def encode(self, value: Any, name: str) -> Any:
        """JSON of a value; `name` is its place, in arrays and in messages."""
        if type(value) in _JSON_TYPES:
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {"float": repr(value)}
        if isinstance(value, np.generic):
            return self._scalar(value, name)
        if isinstance(value, np.ndarray):
            return self._array(value, name)
        if isinstance(value, list | tuple | set | frozenset):
            return self._sequence(value, name)
        if isinstance(value, Mapping):
            pairs = [
                [self.encode(k, name), self.encode(v, f"{name}.{k}")] for k, v in value.items()
            ]
            return {"dict": pairs}
        return self._other(value, name)

    def _other(self, value: Any, name: str) -> Any:
        if isinstance(value, bytes):
            return {"bytes": value.hex()}
        if isinstance(value, PurePath):
            return {"path": str(value)}
        if isinstance(value, np.random.RandomState):
            kind, keys, *rest = value.get_state(legacy=True)
            if kind == "MT19937":
                return {"random_state": [self.encode(keys, name), *map(self._plain, rest)]}
        if type(value).__module__.partition(".")[0] == "pandas":
            return self._pandas(value, name)
        return self.encode_object(value, name)

    @staticmethod
    def _plain(number: Any) -> Any:
        return number if isinstance(number, float) else int(number)

    def _sequence(self, value: Any, name: str) -> Any:
        items = [self.encode(item, f"{name}.{i}") for i, item in enumerate(value)]
        if isinstance(value, list):
            return items
        return {"tuple" if isinstance(value, tuple) else "set": items}

    def _scalar(self, value: np.generic, name: str) -> Any:
        if value.dtype.kind not in f"{_NUMBERS}U":
            return self.encode_object(value, name)
        return {"scalar": [_little(value.dtype).str, self.encode(value.item(), name)]}

    def _array(self, value: NDArray, name: str) -> Any:
        if value.dtype.kind in _NUMBERS and value.dtype.itemsize <= 8:
            while name in self.arrays:
                name = f"{name}+"
            self.arrays[name] = np.ascontiguousarray(value, _little(value.dtype))
            self.arrays[name] = self.arrays[name].reshape(value.shape)
            return {"array": name}
        if value.dtype.kind not in "UO":
            raise ModelFileError(f"{name} is an array of {value.dtype}, which cannot be saved.")
        items = [self.encode(v, f"{name}.{i}") for i, v in enumerate(value.ravel().tolist())]
        kind = "O" if value.dtype.kind == "O" else _little(value.dtype).str
        return {"text": [kind, list(value.shape), items]}

    def _pandas(self, value: Any, name: str) -> Any:
        import pandas as pd

        if isinstance(value, pd.Series):
            parts = [value.index.to_numpy(), value.to_numpy()]
            return {"series": [self.encode(part, f"{name}.{i}") for i, part in enumerate(parts)]}
        if not isinstance(value, pd.DataFrame) or not value.columns.is_unique:
            return self.encode_object(value, name)
        index = None if isinstance(value.index, pd.RangeIndex) else value.index.to_numpy()
        columns = [
            [self.encode(c, name), self.encode(value[c].to_numpy(), f"{name}.{c}")] for c in value
        ]
        return {"table": [self.encode(index, f"{name}.index"), columns]}


def _little(dtype: np.dtype) -> np.dtype:
    return dtype.newbyteorder("<")


class ValueReader:
    """Decodes what a `ValueWriter` encoded.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        Those that are read are taken out.
    """

    def __init__(self, arrays: dict[str, NDArray]) -> None:
        self.arrays = arrays
        self._kinds: dict[str, Callable[[Any], Any]] = {
            "float": self._float,
            "bytes": _bytes,
            "scalar": self._scalar,
            "array": self._array,
            "text": self._text,
            "tuple": lambda items: tuple(map(self.decode, _list(items))),
            "set": lambda items: set(map(self.decode, _list(items))),
            "dict": self._dict,
            "path": _path,
            "random_state": self._random_state,
            "series": self._series,
            "table": self._table,
        }

    @abstractmethod
    def decode_object(self, kind: str, stored: Any) -> Any:
        """Value of a kind that is not plain; raises where there is none."""

    def decode(self, stored: Any) -> Any:
        """The value that was encoded as `stored`."""
        if isinstance(stored, list):
            return list(map(self.decode, stored))
        if not isinstance(stored, dict):
            return stored
        if len(stored) != 1:
            raise ModelFileError(f"a value has the keys {list(stored)[:5]}, expected one key.")
        ((kind, content),) = stored.items()
        read = self._kinds.get(kind)
        return self.decode_object(kind, content) if read is None else read(content)

    def take_array(self, name: Any) -> NDArray:
        """The array of this name, each of which belongs to one place."""
        if not isinstance(name, str) or name not in self.arrays:
            raise ModelFileError(f"the array {name!r:.100} is missing, or is used twice.")
        return self.arrays.pop(name)

    @staticmethod
    def _float(text: Any) -> float:
        if text not in ("inf", "-inf", "nan"):
            raise ModelFileError(f"a number is {text!r:.100}, expected inf, -inf or nan.")
        return float(text)

    def _scalar(self, content: Any) -> Any:
        kind, value = _list(content, 2)
        if not isinstance(kind, str) or not _SCALAR_TYPE.fullmatch(kind):
            raise ModelFileError(f"a number has the type {kind!r:.100}.")
        return np.dtype(kind).type(self.decode(value))

    def _array(self, name: Any) -> NDArray:
        return np.array(self.take_array(name))  # a copy, which can be written to

    def _text(self, content: Any) -> NDArray:
        kind, shape, items = _list(content, 3)
        values = list(map(self.decode, _list(items)))
        shape = [n for n in _list(shape) if type(n) is int and n >= 0]
        if math.prod(shape) != len(values):
            raise ModelFileError(f"an array has {len(values)} values and another shape.")
        if kind == "O":
            filled = np.empty(len(values), dtype=object)
            filled[:] = values
            return filled.reshape(shape)
        known = isinstance(kind, str) and re.fullmatch(r"<U\d{1,5}", kind)
        if not known or int(kind[2:]) * len(values) > _MOST_TEXT:
            raise ModelFileError(f"an array of {len(values)} texts has the type {kind!r:.100}.")
        if not all(isinstance(value, str) for value in values):
            raise ModelFileError("an array of text has other values.")
        return np.array(values, dtype=kind).reshape(shape)

    def _dict(self, pairs: Any) -> dict[Any, Any]:
        decoded = [tuple(map(self.decode, _list(pair, 2))) for pair in _list(pairs)]
        if len(dict(decoded)) != len(decoded):
            raise ModelFileError("a mapping has the same key twice.")
        return dict(decoded)

    def _random_state(self, content: Any) -> np.random.RandomState:
        keys, *rest = map(self.decode, _list(content, 4))
        state = np.random.RandomState()
        state.set_state(("MT19937", keys, *rest))
        return state

    def _series(self, content: Any) -> Any:
        import pandas as pd

        index, values = map(self.decode, _list(content, 2))
        return pd.Series(values, index=index)

    def _table(self, content: Any) -> Any:
        import pandas as pd

        index, columns = _list(content, 2)
        decoded = [tuple(map(self.decode, _list(column, 2))) for column in _list(columns)]
        return pd.DataFrame(dict(decoded), index=self.decode(index))


def _bytes(text: Any) -> bytes:
    if not isinstance(text, str):
        raise ModelFileError(f"bytes are stored as {type(text).__name__}, expected text.")
    return bytes.fromhex(text)


def _path(text: Any) -> Any:
    from pathlib import Path

    if not isinstance(text, str):
        raise ModelFileError(f"a path is {text!r:.100}, expected text.")
    return Path(text)


def _list(content: Any, length: int | None = None) -> list[Any]:
    if not isinstance(content, list) or length not in (None, len(content)):
        raise ModelFileError(
            f"a value is stored as {type(content).__name__}, expected a list"
            + ("." if length is None else f" of {length}.")
        )
    return content
