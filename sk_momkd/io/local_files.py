"""Which files are opened: regular ones of their own folder, with content that can be there."""

from __future__ import annotations

import codecs
import errno
import hashlib
import os
import re
import stat
import struct
import zipfile
from collections.abc import Sequence
from os import PathLike
from typing import Any

from ..exceptions import BagFileError

# Limits of one array, stated in the documentation: no file makes the package reserve more.
LARGEST_ARRAY = 64 * 2**30  # bytes
LARGEST_EXPANSION = 1100  # times the bytes of its file; deflate reaches 1,032 at most
_PROBE = 2**16  # bytes at the start, the middle and the end of a file
_ALWAYS_ALLOWED = 64 * 2**20  # bytes, for small files that compress well
_POINTERS = (
    (b"version https://git-lfs", "git-lfs", "git lfs pull"),
    (b"/annex/objects/", "git-annex", "git annex get"),
    (b"../.git/annex/objects/", "git-annex", "git annex get"),
)
_LARGEST_POINTER = 1024
_SIGNATURES: tuple[tuple[bytes, str, tuple[str, ...]], ...] = (  # (start, name, kinds of it)
    (b"\x89HDF", "an HDF5 file", ("HDF5", "h5ad")),
    (b"PK\x03\x04", "a zip archive, as of torch, numpy or Excel", ("torch", "npz", "slideflow")),
    (b"\x1f\x8b", "a gzip file", ("GeoJSON",)),
    (b"\x93NUMPY", "a numpy array", ("npy",)),
    (b"PAR1", "a parquet file", ("parquet",)),
    (b"\x80\x02", "a pickle", ("torch",)),
    *((bytes([0x80, n]), "a pickle, which could run any code", ()) for n in (1, 3, 4, 5)),
    *((mark, "an image, as of a slide", ()) for mark in (b"II*\0", b"MM\0*", b"II+\0")),
    *((mark, "a picture", ()) for mark in (b"\x89PNG", b"\xff\xd8\xff")),
    (b"BZh", "a bzip2 file", ()),
    (b"\xfd7zXZ", "an xz file", ()),
    (b"<", "text in HTML or XML, as a server sends it instead of a file", ()),
)

FileState = tuple[int, int, int, int]


def file_state(path: str | PathLike) -> FileState:
    """Size, times of change and inode, by which a change of a file is noticed."""
    return state_of(os.stat(path))


def state_of(found: os.stat_result) -> FileState:
    """The `file_state` of a file of which `os.stat` returned this."""
    return found.st_size, found.st_mtime_ns, found.st_ino, found.st_ctime_ns


def is_same_file(before: FileState, now: FileState) -> bool:
    """Whether a file was neither written to nor replaced.

    Remote file systems may give a file another inode, and a change of its owner or permissions
    another second time; a file that was replaced has both.
    """
    return before[:2] == now[:2] and (before[2] == now[2] or before[3] == now[3])


def missing(path: str | PathLike) -> BagFileError:
    """The error of a file that does not exist, or of a link that leads nowhere."""
    if os.path.islink(path):
        target = os.readlink(os.fspath(path))
        if not _ends(path):
            return BagFileError(f"{path} is a link that leads back to itself.")
        remedy = "Mount or restore the target, or remove the link."
        if ".git/annex/" in target.replace("\\", "/"):
            remedy = "It is a pointer of git-annex: get the data with `git annex get`."
        return BagFileError(f"{path} is a link to {target}, which does not exist. {remedy}")
    at_home = " Python does not resolve ~: pass os.path.expanduser(path)."
    return BagFileError(f"{path} does not exist.{at_home if str(path).startswith('~') else ''}")


def _ends(path: str | PathLike) -> bool:
    """Whether following a link comes to an end."""
    try:
        os.stat(path)
    except OSError as error:
        return error.errno != errno.ELOOP
    return True


def leaves_its_folder(path: str | PathLike) -> bool:
    """Whether a link leads out of the folder that it is in."""
    folder = os.path.realpath(os.path.dirname(os.path.abspath(path)))
    return not os.path.realpath(path).startswith(os.path.join(folder, ""))


def require_regular(path: str | PathLike, *, allow_external: bool = False) -> FileState:
    """Return the state of a regular file that may be read.

    Raises
    ------
    BagFileError
        If the file is missing, not readable, a folder, a pipe or a device, or, unless
        `allow_external`, a link to a file outside its folder.
    """
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise missing(path) from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise missing(path) from error
        raise BagFileError(f"{path} cannot be opened: {error}.") from error
    if not stat.S_ISREG(found.st_mode):
        what = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe, a socket or a device"
        raise BagFileError(f"{path} is {what}, not a file.")
    if not allow_external and os.path.islink(path) and leaves_its_folder(path):
        raise BagFileError(
            f"{path} is a link to {os.path.realpath(path)}, outside its folder. If you trust it, "
            "allow it with allow_external=True, or copy the file."
        )
    return state_of(found)


def require_unchanged(path: str | PathLike, before: FileState) -> None:
    """Raise if the file is no longer what it was at its `before` state."""
    try:
        same = is_same_file(before, file_state(path))
    except OSError as error:
        raise BagFileError(f"{path} vanished while it was read: {error}") from error
    if not same:
        raise BagFileError(
            f"{path} changed while it was in use. Read it again when the program that writes it "
            "is done."
        )


def require_plausible_size(
    what: str,
    n_bytes: int,
    size_of_file: int,
    *,
    compressed: bool = True,
    expansion: int = LARGEST_EXPANSION,
) -> None:
    """Raise before memory is taken if an array is larger than its file can make it.

    Parameters
    ----------
    what : str
        File and array, for the message.
    n_bytes : int
        Bytes of the array in memory, as the file declares them.
    size_of_file : int
        Bytes of the file.
    compressed : bool, default=True
        Whether the file may hold the array compressed.
    expansion : int
        Largest number of bytes from one compressed byte.
    """
    limit = expansion * size_of_file if compressed else size_of_file
    limit = min(LARGEST_ARRAY, max(limit, _ALWAYS_ALLOWED if compressed else 0))
    if n_bytes > limit:
        raise BagFileError(
            f"{what} declares {n_bytes:,} bytes in a file of {size_of_file:,} bytes; at most "
            f"{limit:,} are read. The file is damaged, or made to fill the memory."
        )


def check_zip(path: str | PathLike, *, expansion: int = 200) -> bool:
    """Whether a file is a zip archive; one whose parts declare more than they hold raises.

    Torch does not compress its archives, and the XML of spreadsheets becomes 50 times smaller.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except FileNotFoundError:
        raise
    except (
        OSError,
        ValueError,
        LookupError,
        zipfile.BadZipFile,
        RuntimeError,
        struct.error,
    ):  # another format, or damaged: its reader says so
        return False
    size = os.path.getsize(path)
    for part in parts:
        what = f"{path}: its part {part.filename!r}"
        compressed = part.compress_type != zipfile.ZIP_STORED
        require_plausible_size(
            what, part.file_size, size, compressed=compressed, expansion=expansion
        )
    total = sum(part.file_size for part in parts)
    require_plausible_size(f"{path}: all its parts", total, size, expansion=expansion)
    return True


def require_path(given: Any, what: str, expected: str) -> None:
    """Raise for what is no path.

    Raises
    ------
    TypeError
    """
    if isinstance(given, str | PathLike):
        return
    remedy = f" Convert it: {what}.to_pandas()." if hasattr(given, "to_pandas") else ""
    raise TypeError(f"{what} is a {type(given).__name__}, expected {expected}.{remedy}")


def require_local(path: str | PathLike, error: type[ValueError]) -> None:
    """Raise `error` for an address, which pandas would fetch, and for a pipe, which would wait."""
    if isinstance(path, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", path):
        raise error(f"{path} is an address, not a file. Download it first, and give its path.")
    try:
        mode = os.stat(path).st_mode
    except OSError:  # missing: the reader says so
        return
    if not stat.S_ISREG(mode):
        raise error(f"{path} is not a file, but a folder, a pipe or a device.")


def describe_content(path: str | PathLike, kind: str) -> str:
    """What a file that is not the `kind` it should be seems to be; "" where unknown."""
    try:
        with open(path, "rb") as file:
            start = file.read(_LARGEST_POINTER)
    except OSError:
        return ""
    if not start:
        return " It is empty."
    for mark, tool, command in _POINTERS:
        if mark in start[:128]:
            return f" It is a pointer of {tool}, not the data: get them with `{command}`."
    if not start.strip(b"\0"):
        return " It begins with zeros, as after a copy that was cut short."
    if start[8:9] == b"{" and "safetensors" not in kind and b'"dtype"' in start:
        return " By its first bytes it is a safetensors file."
    start = start.removeprefix(codecs.BOM_UTF8).lstrip(b" \t\r\n")
    found = [(name, kinds) for mark, name, kinds in _SIGNATURES if start.startswith(mark)]
    if not found:
        return _quoted_text(start)
    return (
        "" if any(w in kind for w in found[0][1]) else f" By its first bytes it is {found[0][0]}."
    )


def _quoted_text(start: bytes) -> str:
    """The first line of a file of text, such as the error of a server; "" for other content."""
    try:
        text = start[:200].decode("ascii")
    except UnicodeDecodeError:
        return ""
    line = text.splitlines()[0][:80] if text else ""
    return f" It is text: {line!r}." if line.isprintable() and line else ""


def sample_digest(paths: Sequence[str]) -> str:
    """Digest of the sizes of files and of samples of their content.

    Raises
    ------
    BagFileError
        If a file cannot be read.
    """
    made = hashlib.blake2b(digest_size=16)
    for path in paths:
        require_regular(path, allow_external=True)
        try:
            with open(path, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                made.update(size.to_bytes(8, "little"))
                for start in (0, max(0, size // 2), max(0, size - _PROBE)):
                    file.seek(start)
                    made.update(file.read(_PROBE))
        except OSError as error:
            raise BagFileError(f"{path} cannot be read: {error}") from error
    return made.hexdigest()
