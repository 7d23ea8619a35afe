"""A tiny LSTM language model and tokens for it, awkward on purpose."""

from typing import Any

import torch
from torch import Tensor, nn

from helpers import VOCAB
from whet.models.lstm import LstmConfig, LstmForCausalLM


def tiny_lstm(*, hidden: int = 12, layers: int = 2, **others: Any) -> LstmForCausalLM:
    """A model whose biases are not zero, with a dead row, and whose gates are neither open nor shut."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = LstmConfig(vocab_size=VOCAB, hidden_size=hidden, num_hidden_layers=layers, **others)
        model = LstmForCausalLM(config).eval()
        for parameter in model.parameters():
            nn.init.uniform_(parameter, -0.8, 0.8)
        model.layers[0].input.weight.data[3] = 0
    return model


def tokens(batch: int = 3, length: int = 9) -> Tensor:
    return torch.randint(VOCAB, (batch, length), generator=torch.Generator().manual_seed(1))
