"""A teacher's logits on the training data, computed once and cached on disk.

With cached logits, training need not load the teacher. A cache records digests of the teacher's weights and of the
encoded examples, and is refused for any others.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from whet.errors import InvalidParameter
from whet.models.inference import predict_logits
from whet.tasks.encoding import pad_batches
from whet.utils.files import digest
from whet.utils.outputs import adding_to, new_folder

__all__ = ["cached_logits", "teacher_logits"]

LOGITS, ABOUT = "logits.safetensors", "about.json"
BATCH = 64


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
        rows: one per example, from `encoding.tokenize`.

    Raises:
        InvalidParameter: the cache is of another teacher or other data, or cannot be read.
        OutputExists: the folder holds something else.
        OutputNotWritten: the folder cannot be written.
    """
    unlabeled = [{key: value for key, value in row.items() if key != "labels"} for row in rows]
    digests = {"teacher_sha256": digest(_weights(teacher)), "tokens_sha256": digest(json.dumps(unlabeled).encode())}
    if (folder / ABOUT).is_file():
        return _read(folder, digests)
    with adding_to(folder, wait=True):
        if (folder / ABOUT).is_file():  # another run has just written it
            return _read(folder, digests)
        with new_folder(folder, overwrite=False) as draft:
            logits = teacher_logits(teacher, tokenizer, rows)
            save_file({"logits": logits}, draft / LOGITS)
            (draft / ABOUT).write_text(json.dumps(digests, indent=1), encoding="utf-8")
    return logits


def _read(folder: Path, digests: Mapping[str, str]) -> Tensor:
    try:
        recorded = dict(json.loads((folder / ABOUT).read_text(encoding="utf-8")))
        logits: Tensor = load_file(folder / LOGITS)["logits"]
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise InvalidParameter(f"the cache must be readable, but got {folder}: {error}; delete it") from error
    if recorded != digests:
        same_teacher = recorded.get("teacher_sha256") == digests["teacher_sha256"]
        other = "other data or another tokenizer" if same_teacher else "another teacher"
        raise InvalidParameter(
            f"the cache must be of this teacher, data and tokenizer, but {folder} was made with {other}; "
            "give another folder, or delete it"
        )
    return logits


def teacher_logits(
    teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Mapping[str, Any]]
) -> Tensor:
    """Return a model's logits, (examples, classes) float32, computed in batches of similar length.

    Args:
        teacher: in eval mode.
        tokenizer: pads the batches.
        rows: one per example, from `encoding.tokenize`; labels are not read.
    """
    order = np.argsort([len(row["input_ids"]) for row in rows], kind="stable")
    batches = pad_batches([rows[i] for i in order], tokenizer, batch_size=BATCH)
    logits = predict_logits(teacher, batches, name="the teacher")
    in_order = np.empty_like(logits)
    in_order[order] = logits
    return torch.from_numpy(in_order)


def _weights(model: PreTrainedModel) -> Iterator[bytes]:
    for name, weight in model.state_dict().items():
        yield name.encode()
        yield weight.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
