"""Make fine-tuned NLP Transformers smaller and faster, and prove what that cost.

Importing it makes the saved structure of compressed models known to transformers, so that
`AutoModelForSequenceClassification.from_pretrained(folder)` gives the exact model, and its LSTM language model to
`AutoModelForCausalLM`. Everything else is imported when its name is first used.
"""

import lazy_loader

from whet import errors as errors
from whet.models.registration import register

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

register()
