"""Models: loading, running and saving them, their structure, and changes to it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
