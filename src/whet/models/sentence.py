"""Folders of sentence-transformers: read what stands around the Transformer, and write it again.

`modules.json` lists modules, each with a class and a folder: a Transformer right in the folder, then Pooling, then
maybe Normalize. Whatever changes answers and is not known here is refused, and never dropped. Pooling is written in the
spelling that every version of sentence-transformers since 2.0 reads.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from whet.errors import InvalidModel, InvalidParameter
from whet.models.folder import find_file, read_list, read_object
from whet.numerics.pooling import POOLINGS
from whet.numerics.vectors import require_dimensions
from whet.tasks.kinds.base import NO_HEAD, TaskKind
from whet.tasks.sentences import MODULES, SENTENCES, SETTINGS, TRANSFORMER, SentenceModules
from whet.utils.inputs import one_line

__all__ = [
    "Prompts",
    "keep_dimensions",
    "read_modules",
    "read_prompts",
    "require_vectors",
    "sentence_files",
    "vector_width",
    "without_modules",
]

_TOKENIZER = "tokenizer_config.json"
_MODEL_TYPES = (None, "SentenceTransformer")
_BOOLEANS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""The poolings as versions before 6 spell them, in the order in which several are joined."""
_SINCE_2_0 = 4
"""How many of them version 2.0 knows."""
_HARMLESS: Mapping[str, tuple[Any, ...] | None] = {
    "max_seq_length": None,
    "do_lower_case": None,
    "transformer_task": ("feature-extraction",),
    "modality_config": ({"text": {"method": "forward", "method_output_name": "last_hidden_state"}},),
    "module_output_name": ("token_embeddings",),
    "unpad_inputs": None,
    **{
        f"{what}_{suffix}": ({},)
        for what in ("model", "tokenizer", "processor", "config")
        for suffix in ("args", "kwargs")
    },
}
"""The known settings of a Transformer, each with the values under which answers stay the same; None for any value."""
_LONGEST = 10**6
"""Tokenizers without a limit give a number far above it."""


class _Module(NamedTuple):
    """One entry of modules.json."""

    kind: str
    """The last part of its class, such as Pooling."""
    folder: str
    """Name of its folder; empty for the model's own."""


def read_modules(source: str | Path) -> SentenceModules | None:
    """Return what sentence-transformers wrote around the model of a folder or hub name; None if it is no embedder.

    Raises:
        InvalidModel: the modules are others than a Transformer, Pooling and Normalize, or a value would change answers
            in a way that whet does not compute.
    """
    listed = find_file(source, MODULES)
    if listed is None:
        return None
    settings = _object(source, SETTINGS)
    if settings.get("model_type") == "CrossEncoder":
        return None
    if settings.get("model_type") not in _MODEL_TYPES:
        raise InvalidModel(
            "a model of sentence-transformers must be a SentenceTransformer or a CrossEncoder, but "
            f"{source} holds a {settings['model_type']!s:.40}; whet does not compress these yet"
        )
    modules = _modules(listed)
    normalize = len(modules) == 3
    pooling = _poolings(source, f"{modules[1].folder}/config.json")
    known = SentenceModules(
        pooling=pooling.modes,
        normalize=normalize,
        max_length=_max_length(source),
        dimensions=_dimensions(source, settings),
        settings=settings,
    )
    if not pooling.includes_prompt and known.prompts:
        raise InvalidModel(
            f"prompts must be part of what is pooled, but {source} has include_prompt=false; whet does not leave "
            "prompts out"
        )
    similarity = settings.get("similarity_fn_name")
    if not normalize and similarity not in (None, "cosine"):
        raise InvalidModel(
            f"vectors must be compared by their cosine, or be normalized, but {source} has "
            f"similarity_fn_name={similarity!r:.40} and no Normalize; whet does not measure lengths of vectors"
        )
    return known


class Prompts(NamedTuple):
    """What sentence-transformers puts before texts."""

    prompts: dict[str, str]
    """By what a text is for, such as query; empty ones are left out."""
    default: str
    """Before texts of which nothing else is said."""


def read_prompts(source: str | Path) -> Prompts:
    """Return the prompts of a folder or hub name; none of a model that sentence-transformers did not write."""
    if find_file(source, MODULES) is None:
        return Prompts({}, "")
    known = SentenceModules(pooling=(), normalize=False, settings=_object(source, SETTINGS))
    return Prompts(known.prompts, known.default_prompt)


def sentence_files(config: Any) -> dict[str, bytes]:
    """Return the files of sentence-transformers for a model in memory, by name; none if it is no embedder.

    Args:
        config: the model's configuration, whose width they name.
    """
    known = SentenceModules.of(config)
    if known is None:
        return {}
    classes = ["Transformer", "Pooling", *(["Normalize"] if known.normalize else [])]
    folders = ["", *(f"{i}_{name}" for i, name in enumerate(classes) if i)]
    modules = [
        {"idx": i, "name": str(i), "path": folder, "type": f"sentence_transformers.models.{name}"}
        for i, (name, folder) in enumerate(zip(classes, folders, strict=True))
    ]
    files: dict[str, Any] = {
        MODULES: modules,
        SETTINGS: {**known.settings, **({"truncate_dim": known.dimensions} if known.dimensions else {})},
        TRANSFORMER: {"max_seq_length": known.max_length, "do_lower_case": False},
        "1_Pooling/config.json": _spelled(known.pooling, config.hidden_size),
    }
    if known.normalize:
        names = ("module_input_name", "module_output_name")
        files["2_Normalize/config.json"] = dict.fromkeys(names, "sentence_embedding")
    return {name: (json.dumps(value, indent=2) + "\n").encode() for name, value in files.items()}


def without_modules(config: Any) -> None:
    """Take what `sentence_files` writes out of a configuration that is about to be saved, in place."""
    if SentenceModules.of(config) is not None:
        delattr(config, SENTENCES)


def vector_width(config: Any) -> int:
    """Return how many dimensions the vectors of an embedder in memory have, from its configuration."""
    known = SentenceModules.of(config)
    assert known is not None, "only embedders give vectors"
    width = int(config.hidden_size) * len(known.pooling)
    return min(width, known.dimensions or width)


def keep_dimensions(config: Any, dimensions: int) -> None:
    """Let the vectors of an embedder in memory keep their leading dimensions, in place; what is saved then says so.

    Raises:
        InvalidParameter: they have fewer.
    """
    require_dimensions(dimensions, vector_width(config))
    config.update({SENTENCES: {**getattr(config, SENTENCES), "dimensions": dimensions}})


def require_vectors(kind: TaskKind, option: str) -> None:
    """Refuse an option that is one of vectors for models that give none.

    Raises:
        InvalidParameter: the kind gives something else.
    """
    if NO_HEAD not in kind.heads:
        raise InvalidParameter(
            f"{option} must go with a model of sentence embeddings, but got {kind.holds}; leave it out"
        )


class _Pooling(NamedTuple):
    modes: tuple[str, ...]
    includes_prompt: bool


def _object(source: str | Path, name: str) -> Mapping[str, Any]:
    path = find_file(source, name)
    return {} if path is None else read_object(path)


def _modules(path: Path) -> list[_Module]:
    """Return the modules, which are a Transformer, Pooling and maybe Normalize."""
    found = [_module(path, entry) for entry in read_list(path)]
    kinds = [module.kind for module in found]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise InvalidModel(
            f"the modules of a sentence embedder must be Transformer, Pooling and maybe Normalize, but {path} lists "
            f"{', '.join(kinds) or 'none'}; whet supports no others, and leaves none out"
        )
    if found[0].folder:
        raise InvalidModel(
            f"the Transformer must lie right in the model's folder, but {path} has path={found[0].folder!r:.80}; save "
            "the model again with sentence-transformers, version 5 or newer"
        )
    return found


def _module(path: Path, entry: Any) -> _Module:
    name, folder = (entry.get(key) if isinstance(entry, dict) else None for key in ("type", "path"))
    plain = isinstance(folder, str) and folder not in (".", "..") and not set(folder) & set("/\\:")
    if not isinstance(name, str) or not isinstance(folder, str) or not plain:
        raise InvalidModel(
            f"every module must have a class and a folder of its own, but {path} has {one_line(entry, 80)}; copy it "
            "again"
        )
    package, _, kind = name.rpartition(".")
    return _Module(kind if package.partition(".")[0] == "sentence_transformers" else name, folder)


def _poolings(source: str | Path, name: str) -> _Pooling:
    """Return the poolings in either spelling."""
    config = _object(source, name)
    if not config:
        raise InvalidModel(
            f"the pooling of a sentence embedder must be known, but {source} has no {name}; copy it again"
        )
    modes = config.get("pooling_mode") or [mode for key, mode in _BOOLEANS.items() if config.get(key)] or "mean"
    listed: Sequence[Any] = [modes] if isinstance(modes, str) else modes
    unknown = [mode for mode in listed if mode not in POOLINGS] if isinstance(listed, list) else [listed]
    unknown += [key for key in config if key.startswith("pooling_mode_") and key not in _BOOLEANS and config[key]]
    if unknown:
        raise InvalidModel(
            f"the pooling must be among {', '.join(POOLINGS)}, but {source} has {unknown[0]!r:.60} in {name}; whet "
            "supports no others"
        )
    return _Pooling(tuple(listed), config.get("include_prompt", True) is not False)


def _spelled(modes: tuple[str, ...], width: int) -> dict[str, Any]:
    """Return what a folder says of its poolings; what is younger than 2.0 is left out where it is not used."""
    if list(modes) != [mode for mode in POOLINGS if mode in modes]:  # in another order than the old spelling can say
        return {"embedding_dimension": width, "pooling_mode": list(modes)}
    known = {name: mode in modes for name, mode in _BOOLEANS.items()}
    return {
        "word_embedding_dimension": width,
        **{name: used for i, (name, used) in enumerate(known.items()) if used or i < _SINCE_2_0},
    }


def _dimensions(source: str | Path, settings: Mapping[str, Any]) -> int | None:
    dimensions = settings.get("truncate_dim")
    if dimensions is not None and (type(dimensions) is not int or dimensions < 1):
        raise InvalidModel(
            f"1 <= truncate_dim must hold, but {source} has {dimensions!r:.40}; correct it in {SETTINGS}"
        )
    return dimensions


def _max_length(source: str | Path) -> int | None:
    """Return the longest input that SentenceTransformer.encode gives the model, after a check of all other settings."""
    config, tokenizer = _object(source, TRANSFORMER), _object(source, _TOKENIZER)
    for key, value in config.items():
        known = _HARMLESS.get(key, ())
        if known is not None and value not in (None, *known):
            raise InvalidModel(
                f"a Transformer must have no settings that change its answers, but {source} has {key}={value!r:.80} in "
                f"{TRANSFORMER}; whet does not apply it"
            )
    if config.get("do_lower_case") and not tokenizer.get("do_lower_case"):
        raise InvalidModel(
            f"the tokenizer itself must make text lower case, but {source} has do_lower_case=true in {TRANSFORMER} "
            f"only; set it in {_TOKENIZER}"
        )
    length = config.get("max_seq_length")
    if length is None:
        limit = tokenizer.get("model_max_length")
        length = limit if isinstance(limit, int) and limit < _LONGEST else None
    if length is not None and (type(length) is not int or length < 1):
        raise InvalidModel(
            f"1 <= max_seq_length must hold, but {source} has {length!r:.40}; correct it in {TRANSFORMER}"
        )
    return length
