"""Load the weights of a checkpoint into its model, all of them: none is missing, left over or of another shape."""

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import nn

from whet.errors import InvalidModel
from whet.models.checkpoint import Checkpoint
from whet.models.folder import reading
from whet.models.inference import answers, kind_of_model
from whet.tasks.kinds.base import TaskKind
from whet.utils.progress import without_foreign_bars

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["SAFE", "Loaded", "check_finite", "check_run", "load_checkpoint"]

SAFE: dict[str, Any] = {"trust_remote_code": False}
SPARSE = "block_sparse"
"""What BigBird's configuration calls attention that is sparse for long texts."""
TOKENS = 8
"""Tokens of the input that a model is tried on; Funnel and CANINE pool a few away."""
_UNUSED = re.compile(
    r"""(^|\.)(
    position_ids | token_type_ids | inv_freq | masked_bias  # buffers that older versions saved
    | pooler\..*  # of models whose class reads the first token itself, such as RoBERTa's
    | cls\.(predictions|seq_relationship)\..* | lm_head(\..*)? | vocab_\w+\..* | generator_lm_head\..*  # of pretraining
    )$""",
    re.VERBOSE,
)
"""Weights that a classifier's class never reads, so that its answers are the same without them."""


class Loaded(NamedTuple):
    """A model, and what its checkpoint lacked."""

    model: "PreTrainedModel"
    """In fp32 and eval mode."""
    missing: frozenset[str]
    """The weights that were drawn at random."""


def load_checkpoint(
    checkpoint: Checkpoint, kind: TaskKind, *, head: Literal["own", "new"], config: Any = None
) -> Loaded:
    """Return the model of a checkpoint.

    Args:
        checkpoint: a whole model.
        kind: what its head answers, or is to answer.
        head: own for a fine-tuned model, of which all weights must be used; with new, weights of heads may be missing
            or left over, but none of the model below them.
        config: replaces the checkpoint's own configuration.

    Raises:
        InvalidModel: transformers cannot load it, or weights are left over, of other shapes, or not finite.
    """
    import transformers  # slow to import

    given = {} if config is None else {"config": config}
    with reading(checkpoint.source), without_foreign_bars():
        model, report = getattr(transformers, kind.auto_class).from_pretrained(
            checkpoint.source,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, with their names
            **given,
            **SAFE,
        )
    missing = frozenset(report["missing_keys"])
    _refuse_other_shapes(checkpoint, report["mismatched_keys"])
    left = [name for name in report["unexpected_keys"] if not _UNUSED.search(name)]
    if head == "new":
        left = [name for name in left if _below_head(model, name)]
        _refuse_missing(checkpoint, [name for name in missing if _below_head(model, name)])
    if left:
        raise InvalidModel(
            f"every weight must be used, but {checkpoint.source} holds {_listed(left)}, for which its "
            f"{type(model).__name__} has no place; correct its config.json, or copy it again"
        )
    return Loaded(_with_full_attention(model.eval()), missing)


def _with_full_attention(model: "PreTrainedModel") -> "PreTrainedModel":
    """Return the model with full attention from the start, where it is sparse for long texts alone, as BigBird's.

    transformers replaces sparse attention by full attention for good at the first short text. A compressed attention
    would be lost there.
    """
    switch = getattr(model.base_model, "set_attention_type", None)
    if switch is not None and getattr(model.config, "attention_type", None) == SPARSE:
        switch("original_full")
        model.config.attention_type = "original_full"
    return model


def _refuse_other_shapes(checkpoint: Checkpoint, mismatched: Iterable[tuple[Any, ...]]) -> None:
    for name, *shapes in sorted(mismatched):
        stored, configured = ("x".join(map(str, shape)) or "a number" for shape in shapes)
        raise InvalidModel(
            f"weights must have the shapes that config.json gives them, but {checkpoint.source} has {name} as {stored} "
            f"instead of {configured}; correct its config.json, or copy it again"
        )


def _refuse_missing(checkpoint: Checkpoint, names: Iterable[str]) -> None:
    # language models have no pooler, so that fine-tuning trains a new one
    lacking = [name for name in names if ".pooler." not in name]
    if lacking:
        raise InvalidModel(
            f"every weight below the head must be in the checkpoint, but {checkpoint.source} lacks {_listed(lacking)}; "
            "correct its config.json, or copy it again"
        )


def _below_head(model: "PreTrainedModel", name: str) -> bool:
    """Return whether the weight is one of the base model's, with or without the name of the base model before it."""
    prefix = model.base_model_prefix
    base: Any = getattr(model, prefix, None)
    if base is None:
        return False
    children = dict(base.named_children()) | dict(base.named_parameters(recurse=False))
    return name.startswith(f"{prefix}.") or name.partition(".")[0] in children


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)[:4])


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


def check_run(model: "PreTrainedModel", source: str) -> None:
    """Check that the model answers a few tokens; values in a configuration may fail only then.

    It reads each weight once, which costs about as much as to look whether all are finite.

    Raises:
        InvalidModel: it fails, or its answer is not one row of finite logits.
    """
    config: Mapping[str, Any] = model.config.to_dict()
    words = int(config.get("vocab_size") or 2)
    end = config.get("eos_token_id")  # an encoder-decoder's head reads the last of these
    ids = torch.tensor(
        [[words // 2] * (TOKENS - 1) + [end if isinstance(end, int) and 0 <= end < words else words - 1]]
    )
    kind = kind_of_model(model)
    with reading(source), torch.inference_mode():
        logits = answers(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, kind).logits
    expected = model.config.num_labels if kind.has_classes else logits.shape[-1]
    right = logits.dim() == 2 and logits.shape[-1] == expected and (len(logits) == 1 or not kind.one_row)
    if not right or not logits.isfinite().all():
        raise InvalidModel(
            f"the model must give one row of finite logits {'a text' if kind.one_row else 'a token'}, but {source} "
            f"gives {logits.tolist()!s:.60} for {TOKENS} tokens; correct its config.json, or train it again"
        )
