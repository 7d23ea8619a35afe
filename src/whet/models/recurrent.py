"""A recurrent classifier that transformers loads and saves, and that ignores padding without packed sequences.

Every layer is a recurrence of torch without biases. Its input has one more feature, 1 at real tokens, whose weights
are the bias; at padding the whole input is zero. A zero state then stays zero, since tanh(0) = 0 in an Elman network
and c = σ(f)·0 + σ(i)·tanh(0) = 0 in an LSTM, so that leading padding has no effect in either direction. States after
the last token are never read: the head reads each direction's state after its last token, or the mean over tokens.
Packed sequences would compute the same but cannot be exported.

Source: Elman, "Finding structure in time", Cognitive Science 14, 1990; Hochreiter, Schmidhuber, "Long short-term
memory", Neural Computation 9, 1997; Schuster, Paliwal, "Bidirectional recurrent neural networks", 1997.
"""

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from whet.errors import InvalidParameter
from whet.models._from_words import FromWords
from whet.models.configs import RecurrentConfig

__all__ = ["RecurrentForSequenceClassification"]

KINDS: dict[str, type[nn.RNN | nn.LSTM]] = {"rnn": nn.RNN, "lstm": nn.LSTM}


class RecurrentForSequenceClassification(FromWords):
    """Embeddings, recurrent layers and a linear head."""

    config_class = RecurrentConfig

    def __init__(self, config: RecurrentConfig) -> None:
        if config.cell not in KINDS or min(config.embedding_size, config.hidden_size, config.num_hidden_layers) < 1:
            raise InvalidParameter(
                f"cell must be one of {', '.join(KINDS)} and all sizes at least 1, but got cell={config.cell}, "
                f"embedding_size={config.embedding_size}, hidden_size={config.hidden_size}, "
                f"num_hidden_layers={config.num_hidden_layers}; correct them"
            )
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_size)
        across = (1 + config.bidirectional) * config.hidden_size
        widths = [config.embedding_size] + [across] * (config.num_hidden_layers - 1)
        self.layers = nn.ModuleList(
            KINDS[config.cell](
                width + 1, config.hidden_size, bias=False, batch_first=True, bidirectional=config.bidirectional
            )
            for width in widths
        )
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(across, config.num_labels)
        self.post_init()

    def read(self, input_ids: Tensor, words: Tensor, real: Tensor) -> Tensor:
        """See `FromWords.read`."""
        states = words
        for layer in self.layers:
            states, _last = layer(torch.cat([self.dropout(states) * real, real], -1))
        return self._pooled(states, real)

    def _pooled(self, states: Tensor, real: Tensor) -> Tensor:
        if self.config.pooling == "mean":
            return (states * real).sum(1) / real.sum(1).clamp_min(1)
        # no sorting and no loop over examples, since both would fix the shape of an exported model
        remaining = real.flip(1).cumsum(1).flip(1)  # number of real tokens from here to the end
        forward = (states[..., : self.config.hidden_size] * (real * (remaining == 1))).sum(1)
        if not self.config.bidirectional:
            return forward
        first = real * (real.cumsum(1) == 1)
        return torch.cat([forward, (states[..., self.config.hidden_size :] * first).sum(1)], -1)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Embedding | nn.Linear | nn.RNN | nn.LSTM):
            module.reset_parameters()


AutoModelForSequenceClassification.register(RecurrentConfig, RecurrentForSequenceClassification)
