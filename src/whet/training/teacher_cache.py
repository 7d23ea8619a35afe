"""A teacher's logits on the training data, computed once and cached on disk.

With cached logits, training need not load the teacher. A cache records digests of the teacher's weights and of the
encoded examples, and is refused for any others.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from whet.errors import InvalidParameter
from whet.models.inference import predict_logits
from whet.tasks.encoding import LABELS, pad_batches
from whet.training.states import weights_digest
from whet.utils.files import can_write, digest
from whet.utils.outputs import adding_to, new_folder

__all__ = ["cached_logits", "teacher_logits"]

LOGITS, ABOUT = "logits.safetensors", "about.json"
BATCH = 64


class _About(BaseModel):
    """What a cache was made of."""

    teacher_sha256: str
    """Digest of the teacher's weights."""
    tokens_sha256: str
    """Digest of the encoded examples, without labels."""
    logits_sha256: str | None = None
    """Digest of the file of logits, which caches of 0.1.0 lack."""


def cached_logits(
    folder: Path,
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping[str, Any]],
) -> Tensor:
    """Return the teacher's logits, (examples, classes), from the cache; a missing cache is computed and written.

    Args:
        folder: the cache, of one teacher, data set and tokenizer.
        teacher: in eval mode.
        tokenizer: pads the batches.
        rows: one per example, from `Examples.encode`.

    Raises:
        InvalidParameter: the cache is of another teacher or other data, or is damaged.
        OutputExists: the folder holds something else.
        OutputNotWritten: the folder cannot be written.
    """
    unlabeled = [{key: value for key, value in row.items() if key not in LABELS} for row in rows]
    about = _About(
        teacher_sha256=weights_digest(teacher), tokens_sha256=digest(json.dumps(unlabeled).encode()), logits_sha256=None
    )
    shape = (len(rows), teacher.config.num_labels)
    if (folder / ABOUT).is_file() and not can_write(folder.parent):
        return _read(folder, about, shape)
    with adding_to(folder, wait=True):  # which removes what a killed run left, also where the cache was whole by then
        if (folder / ABOUT).is_file():
            return _read(folder, about, shape)
        with new_folder(folder, overwrite=False) as draft:
            logits = teacher_logits(teacher, tokenizer, rows)
            save_file({"logits": logits}, draft / LOGITS)
            whole = about.model_copy(update={"logits_sha256": digest(draft / LOGITS)})
            (draft / ABOUT).write_text(whole.model_dump_json(indent=1), encoding="utf-8")
    return logits


def _read(folder: Path, about: _About, shape: tuple[int, ...]) -> Tensor:
    try:
        recorded = _About.model_validate_json((folder / ABOUT).read_bytes())
    except (OSError, ValidationError) as error:
        raise _damaged(folder, f"its {ABOUT} is not as it was written") from error
    if recorded.tokens_sha256 != about.tokens_sha256 or recorded.teacher_sha256 != about.teacher_sha256:
        same_teacher = recorded.teacher_sha256 == about.teacher_sha256
        other = "other data or another tokenizer" if same_teacher else "another teacher"
        raise InvalidParameter(
            f"the cache must be of this teacher, data and tokenizer, but {folder} was made with {other}; "
            "give another folder, or delete it"
        )
    try:
        if recorded.logits_sha256 not in (None, digest(folder / LOGITS)):
            raise _damaged(folder, f"its {LOGITS} is not as it was written")
        logits: Tensor = load_file(folder / LOGITS)["logits"]
    except (OSError, KeyError, SafetensorError) as error:
        raise _damaged(folder, f"its {LOGITS} cannot be read") from error
    if logits.shape != shape or not logits.isfinite().all():
        raise _damaged(folder, f"it holds {tuple(logits.shape)} logits where finite ones of {shape} are due")
    return logits


def _damaged(folder: Path, problem: str) -> InvalidParameter:
    return InvalidParameter(f"the cache must be whole, but got {folder}, and {problem}; delete it, and it is made anew")


def teacher_logits(
    teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Mapping[str, Any]]
) -> Tensor:
    """Return a model's logits, (examples, classes) float32, computed in batches of similar length.

    Args:
        teacher: in eval mode.
        tokenizer: pads the batches.
        rows: one per example, from `Examples.encode`; labels are not read.
    """
    order = np.argsort([len(row["input_ids"]) for row in rows], kind="stable")
    batches = pad_batches([rows[i] for i in order], tokenizer, batch_size=BATCH)
    logits = predict_logits(teacher, batches, name="the teacher")
    in_order = np.empty_like(logits)
    in_order[order] = logits
    return torch.from_numpy(in_order)
