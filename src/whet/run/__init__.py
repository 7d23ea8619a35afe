"""Runs models: text in, labels and scores out, in ONNX Runtime, OpenVINO or PyTorch.

The wing needs numpy, tokenizers and the runtime, `pip install 'whet[run]'`; torch and transformers are imported only to
run a model in PyTorch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
