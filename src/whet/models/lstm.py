"""An LSTM language model that transformers loads and saves, built from ordinary linear layers.

With gates i, f, g, o, each layer computes (i, f, g, o) = W_ih x_t + W_hh h_{t−1} + b, c_t = σ(f) c_{t−1} + σ(i) tanh(g)
and h_t = σ(o) tanh(c_t). W_ih, W_hh and the softmax layer are `nn.Linear` children, so that factorization, LoRA and
quantizers find them. W_ih runs once for all time steps, W_hh once per step. While both are dense and have no hooks,
torch's LSTM kernel computes the same faster.

Source: Hochreiter, Schmidhuber, "Long short-term memory", Neural Computation 9, 1997; Zaremba, Sutskever, Vinyals,
"Recurrent neural network regularization", 2014, arXiv 1409.2329, for the placement of dropout.
Differs: one bias per layer instead of the two of nn.LSTM, of which only the sum matters.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from whet.errors import InvalidParameter
from whet.models.architecture import is_dense
from whet.models.configs import LstmConfig

__all__ = ["LstmForCausalLM", "LstmLayer", "LstmOutput"]


@dataclass
class LstmOutput(ModelOutput):
    """The output of the model."""

    loss: Tensor | None = None
    """The mean cross-entropy of the labels, if there are any."""
    logits: Tensor | None = None
    """(batch, length, vocab) logits of the next token."""
    state: Tensor | None = None
    """(layers, 2, batch, hidden) hidden and cell state after the last token, to continue from."""
    hidden_states: tuple[Tensor, ...] | None = None
    """(batch, length, hidden) the embeddings and the outputs of each layer, if asked for."""


class LstmLayer(nn.Module):
    """One layer of the recurrence."""

    def __init__(self, in_features: int, hidden_size: int) -> None:
        super().__init__()
        self.input = nn.Linear(in_features, 4 * hidden_size, bias=False)
        self.recurrent = nn.Linear(hidden_size, 4 * hidden_size)

    def forward(self, inputs: Tensor, state: Tensor, real: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the hidden state at every step (batch, length, hidden), and the last state (2, batch, hidden).

        Args:
            inputs: (batch, length, in).
            state: (2, batch, hidden) initial hidden and cell state.
            real: (batch, length) bool, False at padding, which leaves the state unchanged; None without padding.
        """
        # for a single step, the setup of the kernel costs more than the kernel saves
        if real is None and inputs.shape[1] > 1 and _untouched(self.input) and _untouched(self.recurrent):
            return self._by_kernel(inputs, state)
        return self._by_steps(inputs, state, real)

    def _by_kernel(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        bias = self.recurrent.bias
        weights = [self.input.weight, self.recurrent.weight, torch.zeros_like(bias), bias]
        initial = (state[:1].contiguous(), state[1:].contiguous())
        outputs: tuple[Tensor, Tensor, Tensor] = torch.lstm(
            inputs, initial, weights, True, 1, 0.0, torch.is_grad_enabled(), False, True
        )
        return outputs[0], torch.cat(outputs[1:])

    def _by_steps(self, inputs: Tensor, state: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor]:
        hidden, cell = state.unbind()
        outputs = []
        for step, gates in enumerate(self.input(inputs).unbind(1)):
            before = hidden, cell
            i, f, g, o = (self.recurrent(hidden) + gates).chunk(4, dim=1)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
            if real is not None:
                is_real = real[:, step, None]
                hidden, cell = (torch.where(is_real, new, old) for new, old in zip((hidden, cell), before, strict=True))
            outputs.append(hidden)
        return torch.stack(outputs, 1), torch.stack((hidden, cell))


class LstmForCausalLM(PreTrainedModel):
    """Embeddings, LSTM layers and a softmax layer with bias."""

    config_class = LstmConfig
    main_input_name = "input_ids"
    _tied_weights_keys: ClassVar[dict[str, str]] = {"lm_head.weight": "embed_tokens.weight"}
    linears_after_blocks: ClassVar[tuple[str, ...]] = ("lm_head",)
    """The softmax layer is the largest matrix, so that it is compressed too; see `Architecture`."""
    not_exported: ClassVar[str] = "an LSTM's steps, of which there are as many as tokens"
    """What the graph of an export cannot hold; see `whet.runtimes.export`."""

    def __init__(self, config: LstmConfig) -> None:
        if config.vocab_size < 1 or config.hidden_size < 1 or config.num_hidden_layers < 1:
            raise InvalidParameter(
                f"all sizes must be at least 1, but got vocab_size={config.vocab_size}, "
                f"hidden_size={config.hidden_size}, num_hidden_layers={config.num_hidden_layers}; correct them"
            )
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            LstmLayer(config.hidden_size, config.hidden_size) for _ in range(config.num_hidden_layers)
        )
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size)
        self.dropout = nn.Dropout(config.dropout)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        state: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool = False,
    ) -> LstmOutput:
        """Return the logits of the next token at every position, and the state after the last.

        Args:
            input_ids: (batch, length) int64.
            attention_mask: (batch, length), 0 at padding on either side, which leaves the state unchanged.
            state: (layers, 2, batch, hidden) initial state; zeros if None.
            labels: (batch, length) the tokens themselves, each of which the token before it predicts; -100 where
                nothing is to be predicted.
            output_hidden_states: whether to return the embeddings and the hidden states of each layer.
        """
        hidden_states = self.dropout(self.embed_tokens(input_ids))
        begin = self.begin(len(input_ids)) if state is None else state
        real = None if attention_mask is None or bool(attention_mask.all()) else attention_mask.bool()
        ends, shown = [], [hidden_states]
        for layer, initial in zip(self.layers, begin, strict=True):
            hidden_states, end = layer(hidden_states, initial, real)
            hidden_states = self.dropout(hidden_states)
            ends.append(end)
            shown.append(hidden_states)
        logits = self.lm_head(hidden_states)
        loss = None if labels is None else cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        states = tuple(shown) if output_hidden_states else None
        return LstmOutput(loss=loss, logits=logits, state=torch.stack(ends), hidden_states=states)

    def begin(self, batch: int) -> Tensor:
        """Return the initial state of a batch: zeros, (layers, 2, batch, hidden)."""
        weight = self.embed_tokens.weight
        return weight.new_zeros(self.config.num_hidden_layers, 2, batch, self.config.hidden_size)

    def get_output_embeddings(self) -> nn.Module:
        """Return the softmax layer."""
        return self.lm_head

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            init.uniform_(module.weight, -self.config.initializer_range, self.config.initializer_range)
        if isinstance(module, nn.Linear) and module.bias is not None:
            init.zeros_(module.bias)


def _untouched(layer: nn.Module) -> bool:
    """Return whether the layer is dense and has no hooks, which the kernel would not call."""
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return is_dense(layer) and not any(hooks)


AutoModelForCausalLM.register(LstmConfig, LstmForCausalLM)
