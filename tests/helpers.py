"""Tiny models and data that are awkward on purpose: what a fresh model has as zero, these have not."""

from typing import Literal

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)
from transformers.pytorch_utils import Conv1D

from whet.calibration.gradients import fisher_noise, noise_generator
from whet.tasks.data import Batch, Batches, Examples
from whet.tasks.kinds.base import kind_named

Family = Literal["bert", "distilbert", "roberta", "gpt2", "llama"]
FAMILIES: tuple[Family, ...] = ("bert", "distilbert", "roberta", "gpt2", "llama")

REFUSED: dict[str, tuple[Family, ...]] = {
    "factorization.attention": ("gpt2", "llama"),
    "factorization.shared_qkv": ("gpt2", "llama"),
    "lossless.first_token": ("gpt2", "llama"),
}
"""The families that a method has a reason to refuse, which its own test checks."""

VOCAB = 99
PAD = 0


def tiny_model(family: Family, num_labels: int = 3, seed: int = 0, blocks: int | None = None) -> nn.Module:
    """Return a random classifier of that family in eval mode: two blocks (Llama three) or `blocks`, hidden size 32.

    Its biases are not zero, its first block's first linear layer has a dead row, and its logits depend on the tokens.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = made_awkward(_fresh(family, num_labels, blocks or (3 if family == "llama" else 2)), seed)
    first = next(module for name, module in model.named_modules() if ".0." in name and _is_linear(module))
    row = first.weight.T if isinstance(first, Conv1D) else first.weight
    row.data[3] = 0
    _assert_awkward(model)
    return model


def made_awkward(model: nn.Module, seed: int = 0) -> nn.Module:
    """Return the model in eval mode, every parameter redrawn so that none is zero or one alone."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        _make_awkward(module, generator)
    return model.eval()


def tiny_batches(
    count: int = 6, batch_size: int = 4, vocab: int = VOCAB, seed: int = 0, ragged: bool = True
) -> Batches:
    """Return `count` batches of random tokens, padded on the right to the longest of each; shortest first.

    Args:
        count: batches.
        batch_size: examples in each.
        vocab: ids are 1 ... vocab - 1, 0 is padding.
        seed: of everything.
        ragged: whether lengths differ, from 2 to 12 tokens, or all are 8.
    """
    random = np.random.default_rng(seed)
    examples = count * batch_size
    lengths = np.sort(random.integers(2, 13, size=examples)) if ragged else np.full(examples, 8)
    batches = []
    for start in range(0, examples, batch_size):
        sentences = [random.integers(1, vocab, size=length) for length in lengths[start : start + batch_size]]
        batches.append(padded(sentences))
    return Batches(batches, random.integers(3, size=examples))


def padded(sentences: list[np.ndarray], *, extra: int = 0, filler: int = PAD) -> Batch:
    """Return the batch of these sentences, `extra` positions longer than need be, with `filler` under the padding."""
    length = max(map(len, sentences)) + extra
    ids = torch.full((len(sentences), length), filler)
    mask = torch.zeros((len(sentences), length), dtype=torch.long)
    for i, sentence in enumerate(sentences):
        ids[i, : len(sentence)] = torch.from_numpy(sentence)
        mask[i, : len(sentence)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def sentences_of(batches: Batches) -> list[list[np.ndarray]]:
    """Return the real tokens of every example, batch by batch."""
    return [
        [ids[mask.bool()].numpy() for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]
        for batch in batches
    ]


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Return a word-level tokenizer as wide as the tiny models' vocabulary, with the words w5, w6, ..."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = {word: i for i, word in enumerate([*special, *(f"w{i}" for i in range(5, VOCAB))])}
    inner = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    inner.pre_tokenizer = Whitespace()
    inner.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=40, **names)


def words_of(batches: Batches) -> Examples:
    """Return the sentences that `word_tokenizer` reads as these batches' tokens; special ones stay out."""
    sentences = [sentence for batch in sentences_of(batches) for sentence in batch]
    return Examples([" ".join(f"w{id}" for id in ids if id >= 5) for ids in sentences], list(batches.labels))


def tokens_seen(model: nn.Module, name: str, batch: Batch) -> int:
    """Return how many tokens of each example the module of that name gives something for."""
    seen: list[int] = []
    handle = model.get_submodule(name).register_forward_hook(
        lambda _module, _inputs, out: seen.append((out if isinstance(out, Tensor) else out[0]).shape[1])
    )
    with torch.inference_mode():
        model(**batch)
    handle.remove()
    [found] = seen
    return found


def _fresh(family: Family, num_labels: int, blocks: int) -> nn.Module:
    shared = {"vocab_size": VOCAB, "num_labels": num_labels, "pad_token_id": PAD}
    encoder = {
        "hidden_size": 32,
        "num_hidden_layers": blocks,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 40,
    }
    if family == "bert":
        return BertForSequenceClassification(BertConfig(**shared, **encoder))
    if family == "roberta":
        return RobertaForSequenceClassification(RobertaConfig(**shared, **encoder))
    if family == "distilbert":
        return DistilBertForSequenceClassification(
            DistilBertConfig(**shared, dim=32, n_layers=blocks, n_heads=4, hidden_dim=64, max_position_embeddings=40)
        )
    if family == "gpt2":
        return GPT2ForSequenceClassification(
            GPT2Config(
                **shared,
                n_embd=32,
                n_layer=blocks,
                n_head=4,
                n_inner=64,
                n_positions=40,
                bos_token_id=1,
                eos_token_id=2,
            )
        )
    return LlamaForSequenceClassification(
        LlamaConfig(**shared, **encoder, num_key_value_heads=2, bos_token_id=1, eos_token_id=2)
    )


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | Conv1D)


@torch.no_grad()
def _make_awkward(module: nn.Module, generator: torch.Generator) -> None:
    """Redraw the module's own parameters."""

    def draw(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=generator)

    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    if _is_linear(module):
        inputs = weight.shape[0] if isinstance(module, Conv1D) else weight.shape[1]
        weight.copy_(draw(weight) * 2 / inputs**0.5)
    elif isinstance(module, nn.Embedding):
        weight.copy_(draw(weight))
    elif isinstance(weight, nn.Parameter):  # a norm
        weight.copy_(1 + 0.3 * draw(weight))
    if isinstance(bias, nn.Parameter):
        bias.copy_(0.4 * draw(bias))


@torch.no_grad()
def _assert_awkward(model: nn.Module) -> None:
    logits = torch.cat([model(**batch).logits for batch in tiny_batches(count=2, seed=1)])
    assert logits.std(0).min() > 0.1, "the logits must depend on the tokens"
    assert all(
        module.bias.abs().min() > 0 for module in model.modules() if _is_linear(module) and module.bias is not None
    )


def noise_of(logits: Tensor, seed: int, first: int) -> Tensor:
    """The noise of consecutive examples, each from its own generator."""
    kind = kind_named("regression" if logits.shape[-1] == 1 else "classification")
    return torch.stack([fisher_noise(kind, one, noise_generator(seed, first + i)) for i, one in enumerate(logits)])


def block_weights(model: nn.Module) -> int:
    """How many weights the matrices of a model's blocks have."""
    return sum(p.numel() for name, p in model.named_parameters() if "layer" in name and p.dim() == 2)


def linears(model: nn.Module) -> float:
    """Seconds on a machine on which every weight of a block takes as long as any other."""
    return 3000.0 + block_weights(model)


def padded_on(side: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return ids (4, 6), and the same with other tokens as padding on a side, (4, 11), with the mask of that."""
    ids = torch.randint(1, VOCAB, (4, 6), generator=torch.Generator().manual_seed(1))
    junk = torch.randint(1, VOCAB, (4, 5), generator=torch.Generator().manual_seed(2))
    parts = [(ids, torch.ones_like(ids)), (junk, torch.zeros_like(junk))]
    padded, mask = (torch.cat(tensors, 1) for tensors in zip(*(parts if side == "right" else parts[::-1]), strict=True))
    return ids, padded, mask
