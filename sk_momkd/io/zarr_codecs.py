"""Codecs that stores of zarr name: one that unpickles would run any code of the store."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..exceptions import BagFileError
from ..messages import first_few
from .local_files import require_regular
from .read_errors import errors_that_name

KNOWN_CODECS = frozenset(
    {
        *("blosc", "zlib", "gzip", "zstd", "lz4", "lzma", "bz2", "zfpy", "pcodec"),
        *("bytes", "endian", "transpose", "sharding_indexed", "vlen-utf8", "vlen-bytes"),
        *("shuffle", "delta", "fixedscaleoffset", "quantize", "bitround", "packbits", "astype"),
        *("crc32", "crc32c", "adler32", "fletcher32", "jenkins_lookup3"),
    }
)
_NAMING = {".zarray", ".zgroup", ".zmetadata", "zarr.json"}  # zarr takes arrays from all of them
_LARGEST = 2**26  # bytes
_PREFIX = "numcodecs."  # of the same codecs in version 3


def stored_json(file: str | os.PathLike) -> Any:
    """Content of a file of metadata, decoded as zarr decodes it.

    Raises
    ------
    ValueError
        If it is too large, or no JSON.
    RecursionError
        If it is nested too deeply.
    """
    if os.path.getsize(file) > _LARGEST:
        raise ValueError(f"it has more than {_LARGEST:,} bytes")
    return json.loads(Path(file).read_bytes())


def require_known_codecs(path: str) -> None:
    """Raise if an array of a store names a codec other than the usual ones.

    Raises
    ------
    BagFileError
        For such a codec, and for metadata that cannot be read.
    """
    for file in _files_naming_codecs(path):
        require_regular(file, allow_external=True)  # links were refused before, unless allowed
        with errors_that_name(file, "file of metadata of zarr"):
            codecs = {_name(codec) for node in _nodes(file) for codec in _codecs(node)}
        if other := sorted(codecs - KNOWN_CODECS):
            raise BagFileError(
                f"{file} names the codec {first_few(other)}, but arrays of zarr are read if their "
                f"codecs are among {', '.join(sorted(KNOWN_CODECS))}: another, as pickle, could "
                "run any code that the store holds. If you trust its writer, write it again with "
                "one of them, as zstd."
            )


def _files_naming_codecs(path: str) -> Iterator[str]:
    """Files that name codecs, also in folders that are links, each folder once."""
    seen = set()
    for folder, folders, files in os.walk(path, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        # A file system that ignores case finds them under other names too.
        yield from (os.path.join(folder, f) for f in sorted(files) if f.lower() in _NAMING)


def _nodes(file: str) -> Iterator[Any]:
    """Groups and arrays that a file describes, without the attributes that users set."""
    stored = stored_json(file)
    if os.path.basename(file).lower() != ".zmetadata":
        yield stored
        return
    members = _mapping(_mapping(stored).get("metadata"))
    yield from (node for name, node in members.items() if name.split("/")[-1] != ".zattrs")


def _codecs(node: Any) -> Iterator[Any]:
    """Codecs of an array, those within them, and those of the arrays below a group."""
    node = _mapping(node)
    for key in ("filters", "codecs", "index_codecs"):
        listed = node.get(key)
        if not isinstance(listed, list | None):
            raise ValueError(f"its {key} is no list")
        for codec in listed or ():
            yield codec
            if isinstance(codec, dict):  # of sharding
                yield from _codecs(codec.get("configuration"))
    if node.get("compressor") is not None:
        yield node["compressor"]
    below = _mapping(_mapping(node.get("consolidated_metadata")).get("metadata"))
    for member in below.values():
        yield from _codecs(member)


def _mapping(value: Any) -> dict[str, Any]:
    """An object of JSON, empty where there is none."""
    if not isinstance(value, dict | None):
        raise ValueError(f"it holds {str(value)[:40]!r} in place of an object")
    return value or {}


def _name(codec: Any) -> str:
    """Name of a codec: ``id`` in version 2, ``name`` in version 3, where it may be a string."""
    names = [codec] if isinstance(codec, str) else []
    if isinstance(codec, dict):
        names = [codec[key] for key in ("id", "name") if key in codec]
    if len(names) != 1 or not isinstance(names[0], str):
        raise ValueError(f"the codec {str(codec)[:80]} has no name")
    return names[0].removeprefix(_PREFIX)
