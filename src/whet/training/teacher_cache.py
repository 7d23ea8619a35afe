"""A teacher's predictions on the training data, asked for once and kept on disk: the teacher may then leave memory."""

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
from whet.utils.files import digest, new_folder

__all__ = ["cached_logits", "teacher_logits"]

LOGITS, ABOUT = "logits.safetensors", "about.json"
BATCH = 64


def cached_logits(
    folder: Path,
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping[str, Any]],
) -> Tensor:
    """Return the teacher's logits, (examples, classes), from the folder if it is there; otherwise it is written.

    Args:
        folder: of this teacher, data and tokenizer.
        teacher: in eval mode.
        tokenizer: pads.
        rows: one of `encoding.tokenize` per example.

    Raises:
        InvalidParameter: the folder was made with another teacher or other data, or cannot be read.
        OutputExists, OutputNotWritten: it holds something else, or cannot be written.
    """
    unlabeled = [{key: value for key, value in row.items() if key != "labels"} for row in rows]
    wanted = {"teacher_sha256": digest(_weights(teacher)), "tokens_sha256": digest(json.dumps(unlabeled).encode())}
    if (folder / ABOUT).is_file():
        return _read(folder, wanted)
    with new_folder(folder, overwrite=False) as draft:
        found = teacher_logits(teacher, tokenizer, rows)
        save_file({"logits": found}, draft / LOGITS)
        (draft / ABOUT).write_text(json.dumps(wanted, indent=1), encoding="utf-8")
    return found


def _read(folder: Path, wanted: Mapping[str, str]) -> Tensor:
    try:
        held = dict(json.loads((folder / ABOUT).read_text(encoding="utf-8")))
        found: Tensor = load_file(folder / LOGITS)["logits"]
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise InvalidParameter(f"the cache must be readable, but got {folder}: {error}; delete it") from error
    if held != wanted:
        same = held.get("teacher_sha256") == wanted["teacher_sha256"]
        other = "other data or another tokenizer" if same else "another teacher"
        raise InvalidParameter(
            f"the cache must be of this teacher, data and tokenizer, but {folder} was made with {other}; "
            "name another folder, or delete it"
        )
    return found


def teacher_logits(
    teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Mapping[str, Any]]
) -> Tensor:
    """Return the teacher's logits, (examples, classes), computed in batches of similar lengths.

    Args:
        teacher: in eval mode.
        tokenizer: pads.
        rows: one of `encoding.tokenize` per example; labels are not read.
    """
    order = np.argsort([len(row["input_ids"]) for row in rows], kind="stable")
    batches = pad_batches([rows[i] for i in order], tokenizer, batch_size=BATCH)
    logits = predict_logits(teacher, batches, name="the teacher")
    found = np.empty_like(logits)
    found[order] = logits
    return torch.from_numpy(found)


def _weights(model: PreTrainedModel) -> Iterator[bytes]:
    for name, weight in model.state_dict().items():
        yield name.encode()
        yield weight.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
