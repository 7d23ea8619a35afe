"""A text as one stream of words: its vocabulary, contiguous columns, and perplexity with the state carried along.

Perplexity = exp(mean negative log-likelihood per token), over a whole split, without reshuffling or starting afresh.
Errors of neighbouring tokens are not independent, so intervals come from resampled blocks of the text, not tokens.

Source: Zaremba, Sutskever, Vinyals, "Recurrent neural network regularization", 2014, arXiv 1409.2329, for columns and
carried state; Künsch, "The jackknife and the bootstrap for general stationary observations", Annals of Statistics 17,
1989, for blocks.
Differs: every split is scored as a single column, so that no token but the first goes without its context.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from whet import Batches, Comparison, InvalidData, Measurement
from whet.evaluation import bootstrap, paired_bootstrap

__all__ = [
    "END",
    "UNKNOWN",
    "Window",
    "calibration_stretches",
    "columns",
    "perplexity",
    "read_stream",
    "token_losses",
    "windows",
    "word_tokenizer",
]

Array = np.ndarray[Any, Any]

END = "<eos>"
"""Stands at the end of each line."""
UNKNOWN = "<unk>"
"""Stands for every word outside the vocabulary, as it does in the Penn Treebank's own files."""


class Window(NamedTuple):
    """A few time steps of all columns."""

    inputs: Tensor
    """(columns, steps) int64."""
    targets: Tensor
    """(columns, steps) the token after each."""


def word_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """Return a tokenizer of the words of a text, one sentence a line; it adds END to every line that it encodes.

    Ids follow frequency, then the alphabet, after those of END and UNKNOWN.

    Raises:
        InvalidData: the file cannot be read or holds no word.
    """
    words, counts = np.unique(_read(path).split(), return_counts=True)
    order = np.lexsort((words, -counts))
    ranked = [str(words[i]) for i in order if words[i] not in (END, UNKNOWN)]
    if not ranked:
        raise InvalidData(f"the text must hold words, but got none in {path}; name the training text")
    inner = Tokenizer(WordLevel({word: i for i, word in enumerate([END, UNKNOWN, *ranked])}, unk_token=UNKNOWN))
    inner.pre_tokenizer = WhitespaceSplit()
    inner.post_processor = TemplateProcessing(single=f"$A {END}", special_tokens=[(END, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=END, unk_token=UNKNOWN)


def read_stream(path: Path, tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """Return the ids of a text, one sentence a line, as one stream (tokens,) int64.

    Raises:
        InvalidData: the file cannot be read or is empty.
    """
    lines = _read(path).splitlines()
    if not lines:
        raise InvalidData(f"the text must hold words, but got none in {path}; name another file")
    return torch.tensor([token for ids in tokenizer(lines)["input_ids"] for token in ids])


def columns(ids: Tensor, count: int) -> Tensor:
    """Return a stream (tokens,) as `count` contiguous columns (count, tokens // count); what is left over is dropped.

    Raises:
        InvalidData: the columns would have no token to predict.
    """
    length = len(ids) // count
    if length < 2:
        raise InvalidData(
            f"every column must have 2 tokens, but got {len(ids)} tokens for {count} columns; give more text, or fewer"
        )
    return ids[: count * length].reshape(count, length)


def windows(ids: Tensor, steps: int) -> Iterator[Window]:
    """Yield columns (count, length) in order, at most `steps` at a time, with the token that follows each."""
    for start in range(0, ids.shape[1] - 1, steps):
        end = min(start + steps, ids.shape[1] - 1)
        yield Window(ids[:, start:end], ids[:, start + 1 : end + 1])


@torch.inference_mode()
def token_losses(model: nn.Module, ids: Tensor, *, steps: int = 512) -> Tensor:
    """Return the negative log-likelihood of each token but the first, in nats, float64, with the state carried along.

    Args:
        model: in eval mode; takes and returns a state, as `LstmForCausalLM` does.
        ids: (columns, length) contiguous columns; one column scores a text without any break.
        steps: at once; they change nothing but memory and time.

    Returns:
        (columns, length − 1).
    """
    found, state = [], None
    for window in windows(ids, steps):
        out = model(window.inputs, state=state)
        state = out.state
        losses = nn.functional.cross_entropy(out.logits.flatten(0, 1), window.targets.flatten(), reduction="none")
        found.append(losses.reshape(window.targets.shape).double())
    return torch.cat(found, 1)


def perplexity(losses: Tensor, *, baseline: Tensor | None = None, block: int = 500, seed: int = 0) -> Measurement:
    """Return the perplexity of a text with its 95 % interval, and its difference to a baseline on the same text.

    Args:
        losses: (tokens,) nats, in the order of the text.
        baseline: the same of the model to compare with.
        block: tokens that are resampled together: many sentences, so that what a story shares stays together.
        seed: of the resampling.
    """
    sums, sizes = _blocks(losses, block)

    def statistic(of: Array) -> Any:
        return lambda drawn: float(np.exp(of[drawn].sum() / sizes[drawn].sum()))

    versus: Comparison | None = None
    if baseline is not None:
        versus = paired_bootstrap(statistic(sums), statistic(_blocks(baseline, block)[0]), len(sums), seed=seed)
    return Measurement(
        metric="perplexity",
        unit="",
        **bootstrap(statistic(sums), len(sums), seed=seed)._asdict(),
        n=len(losses),
        better="lower",
        conditions={"state": "carried over the whole text", "block": block, "blocks": len(sums)},
        versus=versus,
    )


def calibration_stretches(ids: Tensor, *, count: int, length: int, batch_size: int, seed: int) -> Batches:
    """Return stretches of a training text at random places, as calibration data.

    Each begins with an empty state, which is what one in `length` of the recurrent layers' inputs then is; long
    stretches keep that share small.

    Args:
        ids: (tokens,) the training text.
        count: stretches; they may overlap.
        length: tokens of each.
        batch_size: stretches a batch.
        seed: of the places.

    Raises:
        InvalidData: the text is shorter than one stretch.
    """
    if len(ids) < length:
        raise InvalidData(f"the text must hold {length} tokens, but got {len(ids)}; give more text, or less length")
    starts = np.random.default_rng(seed).integers(len(ids) - length + 1, size=count)
    rows = torch.stack([ids[start : start + length] for start in starts])
    batches = [{"input_ids": some, "attention_mask": torch.ones_like(some)} for some in rows.split(batch_size)]
    return Batches(batches, np.zeros(count))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidData(f"the text must be a readable file, but {path} is not: {error}; check its name") from error


def _blocks(losses: Tensor, block: int) -> tuple[Array, Array]:
    """Summed losses and sizes of contiguous blocks; the last may be shorter."""
    parts = losses.double().split(block)
    return np.array([float(part.sum()) for part in parts]), np.array([len(part) for part in parts])
