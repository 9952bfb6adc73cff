"""Numbers that can be believed: by patient, out of fold, with intervals."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
