"""Helpers for all wings: lookup by name, parameters, files, processes, progress, hardware."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
