"""The verbs of the command line as functions: load, fine-tune, distil, compress, measure."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
