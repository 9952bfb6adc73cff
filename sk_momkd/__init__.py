"""MoMKD for scikit-learn: slide classifiers that are trained with privileged omics.

Names are loaded when they are first used; those that need no torch load without it.
"""

from typing import Any

import lazy_loader as _lazy

__version__ = "0.3.0.dev0"

_load, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
_RENAMED = {  # old name: new name
    "geometry": "check_geometry",
    "slide_to_anndata": "slide_anndata",
}


def __getattr__(name: str) -> Any:
    """Load a public name; a renamed one warns and gives what it is called now."""
    if name not in _RENAMED:
        return _load(name)
    from warnings import warn

    new = _RENAMED[name]
    warn(f"sk_momkd.{name} is now sk_momkd.{new}.", FutureWarning, stacklevel=2)
    return _load(new)
