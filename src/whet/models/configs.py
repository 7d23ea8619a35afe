"""The configurations of the models that transformers does not have, in a module that is cheap to import.

The first instance of a configuration imports its model, which registers itself with the auto classes of transformers.
That happens before any auto class can look for the model.
"""

import importlib
from typing import Any, Literal

from transformers.configuration_utils import PreTrainedConfig

__all__ = [
    "CascadeConfig",
    "CascadeScore",
    "Cell",
    "LstmConfig",
    "Pooling",
    "Reader",
    "RecurrentConfig",
    "ShallowConfig",
]

Cell = Literal["rnn", "lstm"]
Pooling = Literal["last", "mean"]
Reader = Literal["static", "cnn"]
CascadeScore = Literal["probability", "margin", "entropy"]


class LstmConfig(PreTrainedConfig):
    """The sizes of an LSTM language model; embeddings are as wide as the hidden state."""

    model_type = "whet_lstm"

    vocab_size: int = 10_000
    hidden_size: int = 650
    num_hidden_layers: int = 2
    dropout: float = 0.5
    """Dropout of the embeddings, between layers and of the last layer's output; never of the recurrent state."""
    initializer_range: float = 0.05
    """Weights are drawn uniformly from -range to range; biases are zero."""
    tie_word_embeddings: bool = False
    """Whether the softmax layer shares the weight of the embeddings; a shared weight cannot be factorised."""

    def __post_init__(self, **others: Any) -> None:
        """Import the model, which registers itself."""
        super().__post_init__(**others)
        importlib.import_module("whet.models.lstm")


class RecurrentConfig(PreTrainedConfig):
    """The sizes of a recurrent classifier."""

    model_type = "whet_recurrent"

    vocab_size: int = 30522
    embedding_size: int = 256
    hidden_size: int = 256
    """Features of each direction's state."""
    num_hidden_layers: int = 1
    cell: Cell = "lstm"
    bidirectional: bool = True
    pooling: Pooling = "last"
    """The input of the head: each direction's state after its last token, or the mean over tokens."""
    dropout: float = 0.2
    """Dropout of the embeddings, between layers and before the head."""
    pad_token_id: int | None = 0

    def __post_init__(self, **others: Any) -> None:
        """Import the model, which registers itself."""
        super().__post_init__(**others)
        importlib.import_module("whet.models.recurrent")


class CascadeConfig(PreTrainedConfig):
    """Several classifiers, the fastest first: each answers where it is sure, the last one always."""

    model_type = "whet_cascade"

    stages: list[dict[str, Any]] | None = None
    """The configuration of every model."""
    thresholds: list[float] | None = None
    """The least confidence with which a model answers, of all but the last."""
    score: CascadeScore = "probability"
    """What says how sure a model is; see `whet.models.cascade.SCORES`."""
    shown: dict[str, float] | None = None
    """What held-out data showed when the thresholds were chosen; see `whet.cascade`."""
    pad_token_id: int | None = 0

    def __post_init__(self, **others: Any) -> None:
        """Import the model, which registers itself."""
        super().__post_init__(**others)
        importlib.import_module("whet.models.cascade")


class ShallowConfig(PreTrainedConfig):
    """The sizes of a classifier without blocks."""

    model_type = "whet_shallow"

    vocab_size: int = 30522
    embedding_size: int = 256
    reader: Reader = "static"
    """What reads the words: their weighted mean (static), or one layer over every three of them (cnn)."""
    hidden_size: int = 256
    """Features of the head's hidden layer, and of a cnn's outputs."""
    dropout: float = 0.2
    """Dropout of the embeddings and of the head's hidden layer."""
    pad_token_id: int | None = 0

    def __post_init__(self, **others: Any) -> None:
        """Import the model, which registers itself."""
        super().__post_init__(**others)
        importlib.import_module("whet.models.shallow")
