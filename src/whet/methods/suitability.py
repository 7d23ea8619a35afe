"""Which methods can work on a model: each is asked, on a small copy and random tokens.

A method knows best what it needs of a model, and says so when it is applied. Methods that train are not asked: any
model can be trained, and training takes long.
"""

import contextlib
import copy
import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from whet.calibration.resources import Resources
from whet.errors import InvalidModel, WhetError
from whet.methods.base import Method, Stage, all_methods
from whet.models.architecture import Architecture
from whet.models.inference import example_batch, input_names, new_model
from whet.models.resizing import resized_config
from whet.models.surgery import keep_blocks
from whet.tasks.data import Batches, Examples, TrainingText
from whet.utils.inputs import one_line
from whet.utils.progress import track

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["refusals"]

BLOCKS = 2
"""Blocks of the model that methods are tried on."""
WIDTH, HEADS = 32, 2
"""Its hidden size and heads."""
SHAPE = (4, 16)
"""Sentences and tokens of the batches that they read."""


def refusals(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> dict[str, str]:
    """Return why each method refuses the model, in a few words, by its name; empty for those that can work on it.

    Args:
        model: in eval mode, on the CPU; it stays as it is.
        tokenizer: the model's.
    """
    small = _small(model)
    resources = _resources(small, tokenizer)
    methods = all_methods()
    with torch.random.fork_rng():
        return {name: _refusal(methods[name], small, resources) for name in track(list(methods), "asking methods")}


def _refusal(method: type[Method], model: nn.Module, resources: Resources) -> str:
    step = method(**method.example)
    if step.stage is Stage.TRAINING:
        return ""
    try:
        step.apply(copy.deepcopy(model), resources.only(step.reads))
    except WhetError as error:
        return _in_few_words(error)
    return ""


def _in_few_words(error: WhetError) -> str:
    """What must hold, of a sentence such as "<what must hold>, but got <what it is>; <what to do>"."""
    return one_line(str(error).partition(", but ")[0].partition("; ")[0], 120)


def _small(model: "PreTrainedModel") -> "PreTrainedModel":
    """A small model of the same class and configuration; of a compressed one, some of its own blocks."""
    if getattr(model.config, "quantization_config", None) is None:
        try:
            config = resized_config(model.config, layers=BLOCKS, width=WIDTH, heads=HEADS)
            small = new_model(model, config).eval()
            small(**example_batch(small, ["input_ids", "attention_mask"], 1, 8))
            return small
        except Exception:  # sizes of some families do not go together in this way
            return _with_few_blocks(model)
    return _with_few_blocks(model)


def _with_few_blocks(model: "PreTrainedModel") -> "PreTrainedModel":
    small = copy.deepcopy(model)
    blocks = len(Architecture.of(small).blocks)
    if blocks > BLOCKS:
        with contextlib.suppress(InvalidModel):  # Funnel's blocks are of several sizes
            keep_blocks(small, list(range(BLOCKS)))
    return small


def _resources(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> Resources:
    """Random tokens in all the forms that methods read; enough of them for any rank."""
    # every batch has a mask, also of a model that reads none, such as FNet
    names = list(dict.fromkeys([*input_names(model, tokenizer.model_input_names), "attention_mask"]))
    size, length = SHAPE
    count = math.ceil(2 * int(model.config.hidden_size) / (size * length)) + 1
    batches = Batches([example_batch(model, names, size, length)] * count, np.zeros(size * count))
    words = tokenizer.batch_decode(batches.batches[0]["input_ids"], skip_special_tokens=True)
    text = TrainingText(Examples(words, [math.nan] * len(words)), tokenizer)
    return Resources(calibration=batches, train=batches, validation=batches, text=text, teacher=copy.deepcopy(model))
