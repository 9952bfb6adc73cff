"""What a file that should be a table is instead, by its first bytes and lines."""

from __future__ import annotations

import codecs
from os import PathLike

from ..exceptions import CohortError
from .local_files import describe_content

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # Excel before 2007, and whatever has a password
_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # also where UTF-32 begins
_AS_TEXT = "dtype=str, keep_default_na=False"
_PACKED = ((b"\x1f\x8b", "gzip", ".gz"), (b"BZh", "bzip2", ".bz2"), (b"\xfd7zXZ", "xz", ".xz"))


def start_of(path: str | PathLike) -> bytes:
    """The first bytes of a file."""
    with open(path, "rb") as file:
        return file.read(512)


def encoding_of(start: bytes) -> str:
    """Encoding of a text by the mark at its beginning: UTF-8, or UTF-16 as Excel writes it."""
    return "utf-16" if start.startswith(_WIDE) and start[2:4] != b"\0\0" else "utf-8-sig"


def require_text(path: str | PathLike) -> None:
    """Raise if a file that is no packed one holds something else than text.

    Raises
    ------
    CohortError
        Naming what it is, and the remedy.
    """
    start, said = start_of(path), f"{path} is no table of text"
    for mark, packer, suffix in _PACKED:
        if start.startswith(mark):
            raise CohortError(f"{said}, but packed by {packer}: let its name end in {suffix}.")
    if start.startswith(b"PK\x03\x04"):
        raise CohortError(
            f"{said}, but a zip archive, as Excel writes: let its name end in .xlsx, or in .zip if "
            "it holds a table."
        )
    if start.startswith(_OLE):
        raise CohortError(f"{said}, but an Excel file: let its name end in .xls.")
    hint = describe_content(path, "table") if start else ""  # its reader says that it is empty
    if "It is text" not in hint and hint:
        raise CohortError(f"{said}.{hint}")
    if b"\0" in start and encoding_of(start) != "utf-16":
        wide = "It may be UTF-16 or UTF-32: save it as UTF-8 (in Excel 'CSV UTF-8')."
        raise CohortError(f"{said}: it has zero bytes. {wide}")


def not_utf8(path: str | PathLike, separator: str) -> str:
    """Message on a text in another encoding, such as that of Windows."""
    return (
        f"{path} is not a readable table: it is not UTF-8 text. Save it as UTF-8 (in Excel 'CSV "
        f"UTF-8'), or pass a DataFrame: pd.read_csv(path, encoding='cp1252', {_AS_TEXT}, "
        f"sep={separator!r})."
    )


def not_excel(path: str | PathLike, suffix: str, error: Exception) -> str:
    """Message on a file that is not of Excel, although it is called so."""
    said = f"{path} is not a readable {suffix} table"
    if suffix == ".xlsx" and start_of(path).startswith(_OLE):
        return (
            f"{said}: it is protected by a password, or of an Excel before 2007. Open it in Excel, "
            "take the password off, and save it as .xlsx or 'CSV UTF-8'."
        )
    return f"{said}: {error}.{describe_content(path, 'Excel')}"


def check_first_line(path: str | PathLike, head: str) -> None:
    """Raise if the first line is one that Excel reads as an instruction."""
    if head.casefold().startswith("sep="):
        raise CohortError(
            f"{path} begins with {head!r}, a line for Excel; expected the names of the columns. "
            "Remove that line."
        )
