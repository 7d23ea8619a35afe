"""A teacher's predictions on the training data, asked for once and kept on disk: the teacher may then leave memory."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from whet.errors import InvalidParameter
from whet.utils.files import new_folder
from whet.utils.progress import track

__all__ = ["cached_logits", "predictions"]

LOGITS, ABOUT = "logits.safetensors", "about.json"
BATCH = 64


def cached_logits(
    folder: Path,
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping[str, Any]],
) -> Tensor:
    """Return (examples, classes) what the teacher answers, from the folder if it is there, which is written if not.

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
    wanted = {"teacher_sha256": _digest(teacher), "tokens_sha256": _sha256(json.dumps(unlabeled).encode())}
    if (folder / ABOUT).is_file():
        return _read(folder, wanted)
    with new_folder(folder, overwrite=False) as draft:
        found = predictions(teacher, tokenizer, rows)
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


def predictions(
    teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Mapping[str, Any]]
) -> Tensor:
    """Return (examples, classes) what a model answers, asked in batches of like length.

    Args:
        teacher: in eval mode.
        tokenizer: pads.
        rows: one of `encoding.tokenize` per example; labels are not read.
    """
    unlabeled = [{key: value for key, value in row.items() if key != "labels"} for row in rows]
    order = np.argsort([len(row["input_ids"]) for row in rows], kind="stable")
    found = torch.empty(len(rows), teacher.config.num_labels)
    with torch.inference_mode():
        for start in track(range(0, len(rows), BATCH), "asking the teacher"):
            places = order[start : start + BATCH]
            batch = tokenizer.pad([unlabeled[i] for i in places], return_tensors="pt").to(teacher.device)
            found[torch.as_tensor(places)] = teacher(**batch).logits.float().cpu()
    return found


def _digest(teacher: PreTrainedModel) -> str:
    together = hashlib.sha256()
    for name, weight in teacher.state_dict().items():
        together.update(name.encode())
        together.update(weight.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return together.hexdigest()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
