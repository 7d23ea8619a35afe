"""Load tokenizers and models: only safetensors, in fp32; never a pickle, never code from the checkpoint.

Importing transformers is slow, so that each function imports what it needs of it.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from whet.errors import InvalidModel
from whet.models.adapter import base_of, load_merged
from whet.models.architecture import refuse_cascade
from whet.models.checkpoint import KIND, Checkpoint
from whet.models.folder import find_file, is_folder, reading, weight_names
from whet.models.inference import kind_of_model, kinds_of_model
from whet.models.manifest import file_names
from whet.models.model_files import ADAPTER_WEIGHTS
from whet.models.plain_loading import compared_already
from whet.models.recognition import whole_of
from whet.models.sentence import read_prompts
from whet.models.surgery import without_pooler
from whet.models.weights import SAFE, check_finite, check_run, load_checkpoint
from whet.tasks.base import Task
from whet.tasks.data import Examples
from whet.tasks.encoding import encode
from whet.tasks.kinds.base import TaskKind
from whet.tasks.pairing import folded
from whet.tasks.sentences import SENTENCES
from whet.utils.distributed import is_first
from whet.utils.files import digest, json_digest
from whet.utils.lengths import longest_input
from whet.utils.manifests import CONFIG, read_by_a_load
from whet.utils.progress import note

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "check_head",
    "class_order",
    "common_max_length",
    "empty_model",
    "load_tokenizer",
    "load_unverified",
    "load_with_new_head",
    "max_positions",
    "source_digest",
    "weight_files",
]

_TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json", "vocab.txt", "vocab.json")


def load_tokenizer(source: str | Path) -> "PreTrainedTokenizerBase":
    """Return the tokenizer of a folder or hub name; without a padding token it pads with its end token.

    Its attributes `prompts` and `default_prompt` are what sentence-transformers puts before texts; see `Prompts`. An
    adapter without a tokenizer has that of its base.

    Raises:
        InvalidModel: the tokenizer is missing or empty, has neither a padding nor an end token, fails at a text, or
            has more tokens than the model.
    """
    from transformers import AutoTokenizer

    checkpoint = Checkpoint.of(source)
    if checkpoint.adapter is not None and not any(find_file(source, name) for name in _TOKENIZER_FILES):
        return load_tokenizer(base_of(checkpoint).source)
    with reading(source):
        tokenizer = AutoTokenizer.from_pretrained(str(source), **SAFE)
        words = tokenizer.get_vocab()
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        # without tokenizer files transformers returns an empty tokenizer, to which every word is unknown
        raise InvalidModel(
            f"the tokenizer must know words, but {source} has no tokenizer or an empty one; add its tokenizer files"
        )
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise InvalidModel(f"the tokenizer must have a padding or an end token, but {source} has neither; add one")
        tokenizer.pad_token = tokenizer.eos_token
    length = tokenizer.model_max_length
    if not isinstance(length, int | float) or length < 1:
        raise InvalidModel(
            f"the tokenizer must have a length of texts, but {source} has model_max_length={length!r:.80}; correct it "
            "in tokenizer_config.json"
        )
    with reading(source):
        encode(Examples(["a", "a b"], [0, 0]), tokenizer, max_length=8, batch_size=2)
    rows = checkpoint.config.get("vocab_size")
    if isinstance(rows, int) and max(words.values()) >= rows:
        token = max(words, key=words.__getitem__)
        raise InvalidModel(
            f"the model must have a row for every token, but {source} has vocab_size={rows} and the token "
            f"{token!r:.40} as {words[token]}; give it the model's own tokenizer"
        )
    tokenizer.prompts, tokenizer.default_prompt = read_prompts(source)
    return tokenizer


def load_unverified(source: str | Path, *, kind: str | None = None) -> "PreTrainedModel":
    """Return the model of a folder or hub name, in fp32 and eval mode.

    An adapter is merged into its base. Digests are not compared; `whet.load_model` does that first.

    Args:
        source: folder or hub name.
        kind: name of the kind of its answers, where the source does not tell; see `whet.tasks.kinds`.

    Raises:
        InvalidModel: it holds another kind of model, which the message names, or cannot be loaded; a weight such as
            its head's is missing, left over or not finite.
    """
    checkpoint = Checkpoint.of(source)
    whole = whole_of(checkpoint)
    found = whole.kind(kind)
    if checkpoint.adapter is not None:
        model, missing = load_merged(checkpoint, found), frozenset[str]()
        _say_merged(checkpoint.source, whole.source)
    else:
        with compared_already():
            model, missing = load_checkpoint(checkpoint, found, head="own")
    if (modules := whole.modules_for(found)) is not None:
        model.config.update({SENTENCES: modules.to_dict()})
        missing = without_pooler(model, missing)
        if whole.modules is None:
            _say_mean(checkpoint.source)
    _say_kind(model, found)
    found.mark(model.config, whole.settings)
    if missing:
        raise InvalidModel(
            f"every weight must be in the checkpoint, but {source} lacks {', '.join(sorted(missing)[:4])}; "
            "fine-tune it first: whet finetune"
        )
    check_finite(model)
    if getattr(model.config, "pad_token_id", None) is None:
        # a decoder's head finds the last token of a padded sentence by this id
        model.config.pad_token_id = load_tokenizer(source).pad_token_id
    check_run(model, str(source))
    return model


def _say_kind(model: "PreTrainedModel", kind: TaskKind) -> None:
    """Let the configuration say the kind, where the class of the model and its configuration leave several."""
    if len(kinds_of_model(model)) > 1 or kind_of_model(model).name() != kind.name():
        model.config.update({KIND: kind.name()})


@cache
def _say_merged(adapter: str, base: str) -> None:
    """Say it once."""
    if is_first():
        note(f"the adapter {adapter} is merged into its base {base}")


@cache
def _say_mean(source: str) -> None:
    """Say it once."""
    if is_first():
        note(f"vectors of {source} are the mean over their tokens, since its folder says nothing of pooling")


def empty_model(folder: Path, *, least_words: int = 0) -> nn.Module:
    """Return the uncompressed model of a folder's configuration, with weights on the meta device.

    Args:
        folder: folder of the model; of an adapter, its base's is read.
        least_words: smallest size of the vocabulary; a smaller one is raised to it.

    Raises:
        InvalidModel: the configuration cannot be read.
    """
    import transformers  # slow to import

    checkpoint = Checkpoint.of(folder)
    whole = whole_of(checkpoint)
    source, kind = whole.source, whole.kind()
    with reading(folder):
        config = transformers.AutoConfig.from_pretrained(source, **SAFE)
        config.vocab_size = max(config.vocab_size, least_words)
        with torch.device("meta"):
            model: nn.Module = getattr(transformers, kind.auto_class).from_config(config, **SAFE)
    return model


def load_with_new_head(
    source: str | Path, kind: TaskKind, label_names: Sequence[str] | None, tokenizer: "PreTrainedTokenizerBase"
) -> "PreTrainedModel":
    """Return a base model with a new head for fine-tuning; kinds without outputs of their own take the model as it is.

    Args:
        source: folder or hub name of the base model.
        kind: what the new head answers.
        label_names: names of the classes; None makes a head with one score. A head that the base has for these
            classes keeps their order.
        tokenizer: the tokenizer whose padding token the model ignores.

    Raises:
        InvalidModel: the base cannot be loaded, has a head of another size or for something else, or a weight below
            the head is missing, left over or not finite.
    """
    from transformers import AutoConfig

    checkpoint = Checkpoint.of(source)
    names = kind.output_names(label_names)
    if not names:
        return load_unverified(source, kind=kind.name())
    checkpoint.require_base(kind, len(names))
    has_head = checkpoint.has_head_of(kind)
    with reading(source):
        config = AutoConfig.from_pretrained(str(source), **SAFE)
        if checkpoint.architectures and has_head and config.num_labels != len(names):
            raise InvalidModel(
                f"the base must have no head, or one for the task's {len(names)} classes, but {source} has "
                f"num_labels={config.num_labels}; name the base that it was trained from"
            )
        if has_head:
            names = _in_order_of(config.id2label, names)
        config = AutoConfig.from_pretrained(
            str(source),
            num_labels=len(names),
            id2label=dict(enumerate(names)),
            label2id={name: i for i, name in enumerate(names)},
            problem_type=kind.problem_type,
            **SAFE,
        )
    config.pad_token_id = tokenizer.pad_token_id
    with compared_already():
        model = load_checkpoint(checkpoint, kind, head="new", config=config).model
    refuse_cascade(model)
    _say_kind(model, kind)
    kind.mark(model.config)
    check_finite(model)
    check_run(model, str(source))
    return model


def _in_order_of(head: Mapping[int, str], names: tuple[str, ...]) -> tuple[str, ...]:
    """The names of classes in the order of a head that has them, so that each of its rows keeps its class."""
    own = {folded(name): name for name in names}
    rows = [folded(str(head[index])) for index in sorted(head)]
    return tuple(own[row] for row in rows) if len(own) == len(names) and sorted(own) == sorted(rows) else names


def common_max_length(wanted: int, *models: "PreTrainedModel") -> int:
    """Return the smaller of `wanted` and the largest number of tokens that all models can read."""
    return min([wanted, *(limit for model in models if (limit := max_positions(model)))])


def max_positions(model: "PreTrainedModel") -> int | None:
    """Return the largest number of tokens that the model can read, or None if nothing says."""
    limits = (longest_input(model.config.to_dict()), _positions_after_padding(model))
    return min((limit for limit in limits if limit is not None), default=None)


def _positions_after_padding(model: "PreTrainedModel") -> int | None:
    """Positions that are left in a table which counts from the padding token's id + 1, as RoBERTa's; None without."""
    config = model.config
    rows = getattr(config, "max_position_embeddings", None)
    if rows is None or rows == getattr(config, "vocab_size", None):
        return None
    for module in model.modules():
        padding, weight = getattr(module, "padding_idx", None), getattr(module, "weight", None)
        if padding is not None and isinstance(weight, torch.Tensor) and len(weight) == rows:
            return int(rows) - int(padding) - 1
    return None


def weight_files(source: str | Path) -> list[Path]:
    """Return the weight files that a load reads, of a folder, or of a hub name that has been loaded before."""
    checkpoint = Checkpoint.of(source)
    if checkpoint.adapter is not None:
        own = find_file(source, ADAPTER_WEIGHTS)
        return [*weight_files(base_of(checkpoint).source), *([] if own is None else [own])]
    return [path for name in weight_names(source) if (path := find_file(source, name)) is not None]


def source_digest(source: str | Path) -> str:
    """Return one digest of all files that a load of a folder or hub name may read, of an adapter's base too.

    Of a hub name, only files that were loaded before count.
    """
    checkpoint = Checkpoint.of(source)
    folder, base = Path(source), ""
    if not is_folder(source):
        found = find_file(source, CONFIG if checkpoint.adapter is None else ADAPTER_WEIGHTS)
        folder = folder if found is None else found.parent
    if checkpoint.adapter is not None:
        base = source_digest(base_of(checkpoint).source)
    names = [name for name in file_names(folder) if read_by_a_load(name) and (folder / name).is_file()]
    return json_digest([base, {name: digest(folder / name) for name in names}])


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
        InvalidData: the model is of another kind, its head has other classes, or nothing tells which of its classes
            is which.
        InvalidParameter: the label map does not fit.
    """
    task.for_kind(kind_of_model(model))
    config: Any = model.config
    pairing = task.pairing(config.id2label)
    task.say_once(f"classes {pairing.note}", pairing.note)
    return pairing.order
