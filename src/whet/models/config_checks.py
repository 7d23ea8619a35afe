"""The values in a model's config.json, checked before anything is built or read by them."""

from collections.abc import Mapping
from typing import Any

from whet.errors import InvalidArtifact, InvalidModel
from whet.utils.manifests import CONFIG

__all__ = ["MULTI_LABEL", "check_config"]

_PROBLEMS = (None, "regression", "single_label_classification", "multi_label_classification")
MULTI_LABEL = _PROBLEMS[-1]
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_SIZES = {
    **dict.fromkeys(_LAYERS, 1_000),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "n_head", "n_heads", "num_heads"), 10_000),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 20_000_000),
    **dict.fromkeys(("hidden_size", "intermediate_size", "n_embd", "n_inner", "dim", "hidden_dim"), 10_000_000),
    **dict.fromkeys(("d_model", "d_ff", "d_kv", "head_dim", "embedding_size"), 10_000_000),
    "vocab_size": 100_000_000,
    "num_labels": 1_000_000,
}
"""The largest value of each size that a configuration may have; all are at least 1. Building a model of a million
layers takes hours, and transformers builds it, and names every label, before it looks at the weights."""
_USUAL_DTYPES = ("float32", "float16", "bfloat16", "float64")


def check_config(source: str, config: Mapping[str, Any]) -> None:
    """Check the values that everything depends on, and those that transformers would run into without a word.

    Args:
        source: the folder or hub name, for messages.
        config: what its config.json holds.

    Raises:
        InvalidModel: a value cannot be that of a model.
        InvalidArtifact: whet wrote it, and the structure of its layers is missing.
    """

    def require(right: bool, what: str, name: str) -> None:
        if not right:
            raise InvalidModel(
                f"{what} must hold, but {source} has {name}={config.get(name)!r:.80} in {CONFIG}; correct it, or copy "
                "it again"
            )

    kind, names = config.get("model_type"), config.get("architectures")
    require(kind is None or isinstance(kind, str), "a model_type that is text", "model_type")
    listed = names is None or (isinstance(names, list) and all(isinstance(name, str) for name in names))
    require(listed, "architectures that are a list of names", "architectures")
    for name, most in _SIZES.items():
        value = config.get(name)
        if isinstance(value, str | bool | int | float):  # some families have lists, one size a layer
            require(type(value) is int and 1 <= value <= most, f"1 <= {name} <= {most:,}", name)
    for name in ("layer_norm_eps", "layer_norm_epsilon", "rms_norm_eps"):
        value = config.get(name)
        require(value is None or (isinstance(value, float) and value > 0), f"0 < {name}", name)
    for name in ("dtype", "torch_dtype"):
        value = config.get(name)
        known = value in (None, "auto") or (isinstance(value, str) and _is_dtype(value.removeprefix("torch.")))
        require(known or isinstance(value, dict), f"a {name} that torch has", name)
    words, pad = config.get("vocab_size"), config.get("pad_token_id")
    if type(words) is int and pad is not None:
        require(type(pad) is int and -words <= pad < words, "a pad_token_id below vocab_size", "pad_token_id")
    labels, indices = config.get("id2label"), config.get("label2id")
    numbered = isinstance(labels, dict) and set(labels) == {str(i) for i in range(len(labels))}
    require(labels is None or (numbered and len(labels) > 0), "an id2label from 0, 1, 2 ... to names", "id2label")
    require(indices is None or isinstance(indices, dict), "a label2id from names to numbers", "label2id")
    problem, outputs = config.get("problem_type"), len(labels) if labels else config.get("num_labels", 1)
    require(problem in _PROBLEMS, f"a problem_type that is one of {', '.join(_PROBLEMS[1:])}", "problem_type")
    require(problem != "regression" or outputs == 1, "one output for a regression", "problem_type")
    for name in ("attn_implementation", "_attn_implementation"):  # such a name is a hub's, which code comes from
        require("/" not in str(config.get(name)), "attention that is built in", name)
    _check_quantization(source, config.get("quantization_config"))


def _is_dtype(name: str) -> bool:
    if name in _USUAL_DTYPES:
        return True
    import torch  # slow to import

    return isinstance(getattr(torch, name, None), torch.dtype)


def _check_quantization(source: str, quantization: Any) -> None:
    if quantization is None:
        return
    if not isinstance(quantization, dict):
        quantization = {"quant_method": quantization}
    method = quantization.get("quant_method")
    if method == "whet":
        structure = quantization.get("structure")
        if not isinstance(structure, dict) or not all(isinstance(entry, dict) for entry in structure.values()):
            raise InvalidArtifact(
                f"the structure of compressed layers must be there, but {source} has structure={structure!r:.60} in "
                f"{CONFIG}; copy it again"
            )
        return
    if method is None and any(quantization.get(f"load_in_{bits}bit") for bits in (4, 8)):
        method = "bitsandbytes"
    raise InvalidModel(
        f"the weights must be dense or compressed by whet, but {source} was quantized by {method!s:.40}; give the "
        "model that it was made from"
    )
