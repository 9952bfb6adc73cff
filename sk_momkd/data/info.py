"""What a bag file says about itself beside its numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

GEOMETRY = ("unit", "anchor", "patch_size", "encoder")  # written to AnnData and read back


@dataclass(frozen=True)
class BagInfo:
    """Format, keys and geometry of a bag.

    Attributes
    ----------
    format : str
        "trident", "momkd", "clam", "stamp", "pt", "slideflow", "pyg", "anndata", or "memory".
    keys : tuple of str
        The datasets by which it was recognised and from which it is read.
    unit : str or None
        "level-0 px" or "um"; None without coordinates.
    anchor : {"top-left", "centre"}
        The point of a patch that its coordinates name.
    patch_size : float or None
        Width of a patch in `unit`.
    encoder : str or None
    """

    format: str
    keys: tuple[str, ...] = ()
    unit: str | None = None
    anchor: str = "top-left"
    patch_size: float | None = None
    encoder: str | None = None

    @property
    def patch_size_level0(self) -> float | None:
        """Width of a patch in level-0 pixels, where the file tells."""
        return self.patch_size if self.unit == "level-0 px" else None

    def __str__(self) -> str:
        parts = [f"{self.format}: {', '.join(self.keys)}" if self.keys else self.format]
        if self.unit is not None:
            size = "" if self.patch_size is None else f", patches of {self.patch_size:g}"
            parts.append(f"{self.anchor} in {self.unit}{size}")
        parts += [self.encoder] if self.encoder else []
        return "; ".join(parts)


def text(value: Any) -> str | None:
    """An HDF5 attribute as text, None where it is absent."""
    if value is None:
        return None
    return value.decode() if isinstance(value, bytes) else str(value)


def number(value: Any) -> float | None:
    """An HDF5 attribute as a number, None where it is absent or no number."""
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None
