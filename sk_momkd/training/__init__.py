"""Training: batches, the loop and its callbacks. Only this package imports skorch.

Names are loaded when they are first used, so an estimator that is imported, built or loaded
from a file does not import skorch (and torch_geometric, which skorch imports where it can).
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
