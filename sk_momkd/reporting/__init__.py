"""Figures and the one-file HTML report; the only user of matplotlib and jinja2."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
