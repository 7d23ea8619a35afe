"""Where a model comes from, as the hub tells it: the hub's model that it was made from, its licence, its languages.

A model that whet wrote says so in its manifest. Of any other model, the head of its card does, where it has one: the
README.md that the hub, the Trainer of transformers and others write. What is not there is left out and never guessed.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from whet.errors import InvalidModel, WhetError
from whet.models.folder import find_file, is_folder
from whet.models.manifest import Lineage, read_manifest
from whet.utils.inputs import read_text
from whet.utils.manifests import CARD, is_artifact
from whet.utils.yaml_files import parse_yaml

__all__ = ["FINETUNE", "QUANTIZED", "lineage_from", "public_name"]

FINETUNE, QUANTIZED = "finetune", "quantized"
"""The hub's words for what was done to a base model."""
_HEAD = re.compile(r"---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(\r?\n|$)", re.DOTALL)
"""The YAML at the beginning of a card."""
_HUB_NAME = re.compile(r"(\w[\w.-]{0,95}/)?\w[\w.-]{0,95}", re.ASCII)
"""Old models and data sets have no owner in their name, such as bert-base-uncased."""
_WORD = re.compile(r"[\w.+-]{1,64}", re.ASCII)
"""A licence, or the code of a language."""


def lineage_from(origin: str | Path, *, relation: str | None, datasets: Sequence[str] = ()) -> Lineage:
    """Return where a model comes from, from what its origin says of itself.

    Args:
        origin: folder or hub name of the model that it was made from.
        relation: what was done to that: FINETUNE, QUANTIZED, or None if the hub has no word for it.
        datasets: hub names of the data that it was trained on.
    """
    before = _of_origin(origin)
    if before.base_model is None or before.base_model == str(origin):
        whole = relation
    elif FINETUNE in (before.base_model_relation, relation):
        whole = FINETUNE
    else:
        whole = relation if before.base_model_relation == relation else None
    return before.model_copy(
        update={
            "base_model_relation": whole if before.base_model else None,
            "datasets": tuple(dict.fromkeys([*before.datasets, *datasets])),
        }
    )


def public_name(origin: str) -> str:
    """Return a model's name without where it lies on this machine: a hub name stays, of another path the last name."""
    path = Path(origin)
    hub_name = len(path.parts) <= 2 and not path.is_absolute() and not origin.startswith((".", "~"))
    return origin if hub_name else path.name or path.resolve().name


def _of_origin(origin: str | Path) -> Lineage:
    """What is known of the origin; its relation is None where it is the model on the hub itself."""
    try:
        if is_artifact(origin):
            return read_manifest(Path(origin)).lineage
        card = find_file(origin, CARD)
        known = {} if card is None else _metadata(card)
    except WhetError:  # a card is no part of a model, and none is worth a model that was just made
        known = {}
    told = Lineage(
        license=next(iter(_texts(known.get("license"), _WORD)), None),
        language=_texts(known.get("language"), _WORD),
        datasets=_texts(known.get("datasets"), _HUB_NAME),
    )
    if not is_folder(origin) and _HUB_NAME.fullmatch(str(origin)):
        return told.model_copy(update={"base_model": str(origin)})
    base = next(iter(_texts(known.get("base_model"), _HUB_NAME)), None)
    relation = next(iter(_texts(known.get("base_model_relation"), _WORD)), None)
    return told.model_copy(update={"base_model": base, "base_model_relation": relation if base else None})


def _metadata(card: Path) -> Mapping[str, Any]:
    """Return the YAML at the head of a card."""
    text = read_text(card, what="a model card", error=InvalidModel)
    head = _HEAD.match(text)
    known = parse_yaml(head[1], what="the head of a model card", source=card, error=InvalidModel) if head else {}
    return known if isinstance(known, Mapping) else {}


def _texts(value: Any, pattern: re.Pattern[str]) -> tuple[str, ...]:
    """Return the texts of a value, one or a list, that are what they should be."""
    values = value if isinstance(value, list) else [value]
    return tuple(one for one in values if isinstance(one, str) and pattern.fullmatch(one))
