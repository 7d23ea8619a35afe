"""Load tokenizers and models: only safetensors, in fp32; never a pickle, never code from the checkpoint.

Importing transformers is slow, so that each function imports what it needs of it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import nn

from whet.errors import InvalidModel, WhetError
from whet.tasks.base import Task
from whet.tasks.kinds.base import kind_of_labels

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "check_finite",
    "check_head",
    "class_order",
    "common_max_length",
    "empty_model",
    "load_model",
    "load_tokenizer",
    "load_with_new_head",
    "max_positions",
    "weight_files",
]

_FAILURES = (OSError, ValueError, RuntimeError, KeyError, SafetensorError)
"""The exceptions that transformers raises for checkpoints that it cannot read."""
_SAFE: dict[str, Any] = {"trust_remote_code": False}


def load_tokenizer(source: str | Path) -> "PreTrainedTokenizerBase":
    """Return the tokenizer of a folder or hub name; without a padding token it pads with its end token.

    Raises:
        InvalidModel: the tokenizer is missing or empty, or has neither a padding nor an end token.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(source), **_SAFE)
    except _FAILURES as error:
        raise _unloadable(source, error) from error
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        # without tokenizer files transformers returns an empty tokenizer, to which every word is unknown
        raise InvalidModel(
            f"the tokenizer must know words, but {source} has no tokenizer or an empty one; add its tokenizer files"
        )
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise InvalidModel(f"the tokenizer must have a padding or an end token, but {source} has neither; add one")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(source: str | Path) -> "PreTrainedModel":
    """Return the sequence classifier or regressor of a folder or hub name, in fp32 and eval mode.

    Raises:
        InvalidModel: the model cannot be loaded, a weight such as its head's is missing, or a weight is not finite.
    """
    from transformers import AutoModelForSequenceClassification

    _refuse_file(source)
    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(
            str(source), dtype=torch.float32, use_safetensors=True, output_loading_info=True, **_SAFE
        )
    except WhetError:
        raise
    except _FAILURES as error:
        raise _unloadable(source, error) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise InvalidModel(
            f"every weight must be in the checkpoint, but {source} lacks {', '.join(missing[:4])}; "
            "fine-tune it first: whet finetune"
        )
    check_finite(model)
    if getattr(model.config, "pad_token_id", None) is None:
        # a decoder's head finds the last token of a padded sentence by this id
        model.config.pad_token_id = load_tokenizer(source).pad_token_id
    return model.eval()


def empty_model(folder: Path, *, least_words: int = 0) -> nn.Module:
    """Return the uncompressed model of a folder's configuration, with weights on the meta device.

    Args:
        folder: folder of the model.
        least_words: smallest size of the vocabulary; a smaller one is raised to it.

    Raises:
        InvalidModel: the configuration cannot be read.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification

    try:
        config = AutoConfig.from_pretrained(str(folder), **_SAFE)
        config.vocab_size = max(config.vocab_size, least_words)
        with torch.device("meta"):
            model: nn.Module = AutoModelForSequenceClassification.from_config(config, **_SAFE)
    except _FAILURES as error:
        raise _unloadable(folder, error) from error
    return model


def load_with_new_head(
    source: str | Path, label_names: Sequence[str] | None, tokenizer: "PreTrainedTokenizerBase"
) -> "PreTrainedModel":
    """Return a base model with a new head for fine-tuning.

    Args:
        source: folder or hub name of the base model.
        label_names: names of the classes; None makes a head with one score.
        tokenizer: the tokenizer whose padding token the model ignores.

    Raises:
        InvalidModel: the base cannot be loaded, has a head of another size, or a weight is not finite.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification

    _refuse_file(source)
    kind = kind_of_labels(label_names)
    names = kind.output_names(label_names)
    try:
        _refuse_other_head(source, len(names))
        config = AutoConfig.from_pretrained(
            str(source),
            num_labels=len(names),
            id2label=dict(enumerate(names)),
            label2id={name: i for i, name in enumerate(names)},
            problem_type=kind.problem_type,
            **_SAFE,
        )
        config.pad_token_id = tokenizer.pad_token_id
        model = AutoModelForSequenceClassification.from_pretrained(
            str(source), config=config, dtype=torch.float32, use_safetensors=True, **_SAFE
        )
    except WhetError:
        raise
    except _FAILURES as error:
        raise _unloadable(source, error) from error
    check_finite(model)
    return model


def check_finite(model: nn.Module) -> None:
    """Check that all weights of the model are finite.

    Raises:
        InvalidModel: a weight is NaN or infinite; the message names the first few tensors.
    """
    bad = [
        name
        for name, tensor in model.state_dict().items()
        if tensor.is_floating_point() and not tensor.isfinite().all()
    ]
    if bad:
        raise InvalidModel(
            f"all weights must be finite, but got NaN or infinity in {', '.join(bad[:4])}; train it again"
        )


def common_max_length(wanted: int, *models: "PreTrainedModel") -> int:
    """Return the smaller of `wanted` and the largest number of tokens that all models can read."""
    return min([wanted, *(limit for model in models if (limit := max_positions(model)))])


def max_positions(model: "PreTrainedModel") -> int | None:
    """Return the largest number of tokens that the model can read, or None if its configuration does not say."""
    config = model.config
    positions = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    # RoBERTa numbers positions from padding_idx + 1, so that padding_idx + 1 positions are never used
    offset = config.model_type in ("roberta", "xlm-roberta", "camembert")
    return positions - config.pad_token_id - 1 if positions and offset else positions


def _unloadable(source: str | Path, error: Exception) -> InvalidModel:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return InvalidModel(
        f"the model must be a folder or hub name that transformers can read, but got {source!s}: "
        f"{reason.rstrip('.')}; check the name, or what the folder holds"
    )


def _refuse_other_head(source: str | Path, classes: int) -> None:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(str(source), **_SAFE)
    trained = any("ForSequenceClassification" in name for name in config.architectures or ())
    if trained and config.num_labels != classes:
        raise InvalidModel(
            f"the base must have no head, or one for the task's {classes} classes, but {source} has "
            f"num_labels={config.num_labels}; name the base that it was trained from"
        )


def _refuse_file(source: str | Path) -> None:
    # transformers would read a file as weights, even as a pickle
    if Path(source).is_file():
        raise InvalidModel(f"the model must be a folder or hub name, but got the file {source}; name its folder")


def weight_files(source: str | Path) -> list[Path]:
    """Return the weight files of a folder, or of a hub name that has been loaded before."""
    from transformers.utils import cached_file

    config = Path(cached_file(str(source), "config.json"))
    return sorted(config.parent.glob("*.safetensors"))


def check_head(model: nn.Module, task: Task) -> None:
    """Check that a model is one for a task whose texts alone are read; of a user's own texts, nothing is asked.

    Raises:
        InvalidData, InvalidParameter: see `class_order`.
    """
    if task.names:
        class_order(model, task)


def class_order(model: nn.Module, task: Task) -> list[int]:
    """Return the model's class index for each of the task's classes; those that the task lacks come last.

    A pairing that does not follow from equal names is said once.

    Raises:
        InvalidData: the model's head has other classes, or scores where the task has classes; or nothing tells which
            of its classes is which.
        InvalidParameter: the label map does not fit.
    """
    config: Any = model.config
    pairing = task.pairing(config.id2label)
    task.say_once(f"classes {pairing.note}", pairing.note)
    return pairing.order
