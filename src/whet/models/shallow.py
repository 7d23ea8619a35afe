"""Classifiers without blocks, 40 to 400 times as fast as a small Transformer: words, one step, and a small head.

`static` reads a text as the weighted mean of its words' vectors, with a weight for each word that is learned; `cnn`
reads every three neighbouring words by one linear layer, and takes the largest and the mean of what it finds. Both
ignore padding.

Source: Kim, "Convolutional neural networks for sentence classification", 2014, arXiv 1408.5882, for `cnn`; Arora,
Liang, Ma, "A simple but tough-to-beat baseline for sentence embeddings", ICLR 2017, for weights of words.
Differs: weights are learned, not computed from frequencies; filters of one width, and the mean beside the largest.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import AutoModelForSequenceClassification

from whet.errors import InvalidParameter
from whet.models._from_words import FromWords
from whet.models.configs import ShallowConfig

__all__ = ["ShallowForSequenceClassification"]


class WeightedMean(nn.Module):
    """The mean of the words' vectors, by a weight of each word."""

    def __init__(self, config: ShallowConfig) -> None:
        super().__init__()
        self.log_weight = nn.Embedding(config.vocab_size, 1)
        self.features = config.embedding_size

    def forward(self, input_ids: Tensor, words: Tensor, real: Tensor) -> Tensor:
        """Return (batch, features) from ids (batch, length), words (batch, length, width), and 1 at real tokens."""
        weights: Tensor = self.log_weight(input_ids).exp() * real
        return (words * weights).sum(1) / weights.sum(1).clamp_min(torch.finfo(words.dtype).tiny)


class Convolution(nn.Module):
    """One linear layer over every three neighbouring words: the largest and the mean of each of its outputs."""

    def __init__(self, config: ShallowConfig) -> None:
        super().__init__()
        # a linear layer instead of a convolution, which 8-bit runtimes and methods of compression know
        self.linear = nn.Linear(3 * config.embedding_size, config.hidden_size)
        self.features = 2 * config.hidden_size

    def forward(self, input_ids: Tensor, words: Tensor, real: Tensor) -> Tensor:
        """Return (batch, features); see `WeightedMean.forward`."""
        around = pad(words * real, (0, 0, 1, 1))
        found = self.linear(torch.cat([around[:, :-2], around[:, 1:-1], around[:, 2:]], -1)).relu() * real
        return torch.cat([found.amax(1), found.sum(1) / real.sum(1).clamp_min(1)], -1)


READERS: dict[str, type[WeightedMean | Convolution]] = {"static": WeightedMean, "cnn": Convolution}


class ShallowForSequenceClassification(FromWords):
    """Embeddings, a reader, and a head with one hidden layer."""

    config_class = ShallowConfig

    def __init__(self, config: ShallowConfig) -> None:
        if config.reader not in READERS or min(config.embedding_size, config.hidden_size) < 1:
            raise InvalidParameter(
                f"reader must be one of {', '.join(READERS)} and all sizes at least 1, but got reader={config.reader}, "
                f"embedding_size={config.embedding_size}, hidden_size={config.hidden_size}; correct them"
            )
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_size)
        self.reader = READERS[config.reader](config)
        self.dense = nn.Linear(self.reader.features, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def read(self, input_ids: Tensor, words: Tensor, real: Tensor) -> Tensor:
        """See `FromWords.read`."""
        hidden: Tensor = self.dense(self.reader(input_ids, self.dropout(words), real))
        return hidden.relu()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Embedding | nn.Linear):
            module.reset_parameters()
        if isinstance(module, WeightedMean):
            module.log_weight.weight.zero_()


AutoModelForSequenceClassification.register(ShallowConfig, ShallowForSequenceClassification)
