"""What classifiers have in common that read embeddings of words without a Transformer."""

from abc import abstractmethod

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from whet.models.inference import kind_of_model

__all__ = ["FromWords"]


class FromWords(PreTrainedModel):
    """Embeddings, something that reads them, and a linear head; padding is never read.

    A subclass sets `embed_tokens`, `dropout` and `classifier`.
    """

    main_input_name = "input_ids"
    embed_tokens: nn.Embedding
    dropout: nn.Dropout
    classifier: nn.Linear

    @abstractmethod
    def read(self, input_ids: Tensor, words: Tensor, real: Tensor) -> Tensor:
        """Return what the head reads, (batch, features).

        Args:
            input_ids: (batch, length) int64.
            words: (batch, length, width) their embeddings.
            real: (batch, length, 1), 1 at real tokens and 0 at padding.
        """

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **_: object,
    ) -> SequenceClassifierOutput:
        """Return the logits, (batch, labels), and the loss if labels are given.

        Args:
            input_ids: (batch, length) int64.
            attention_mask: (batch, length), 0 at padding on either side; None without padding.
            labels: (batch,) classes, or scores if the head has one output.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        real = mask.unsqueeze(-1).to(self.embed_tokens.weight.dtype)
        features = self.read(input_ids, self.embed_tokens(input_ids), real)
        logits = self.classifier(self.dropout(features))
        loss = None if labels is None else kind_of_model(self).loss(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)
