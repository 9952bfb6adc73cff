"""Models in files that hold arrays and text alone: written whole, checked, and never executed."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
