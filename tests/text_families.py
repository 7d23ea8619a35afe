"""Tiny random classifiers of many families of transformers, awkward like those of `helpers.tiny_model`."""

from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from helpers import PAD, VOCAB, made_awkward

SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "pad_token_id": PAD,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "num_labels": 3,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
    "embedding_size": 32,
}
GROUPED = {"num_key_value_heads": 2, "head_dim": 8}
"""Two heads share a key and a value."""
OWN: dict[str, dict[str, Any]] = {
    "modernbert": {"local_attention": 4, "global_attn_every_n_layers": 2, "cls_token_id": 2, "sep_token_id": 3},
    "modernbert-decoder": {"local_attention": 4, "cls_token_id": 2, "sep_token_id": 3},
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "share_att_key": True,
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
    },
    "deberta": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False},
    "gptj": {"rotary_dim": 4},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "phi3", "olmo2"), GROUPED),
    "gemma2": {**GROUPED, "query_pre_attn_scalar": 8},
    "gemma3_text": {**GROUPED, "query_pre_attn_scalar": 8},
    "gemma": {**GROUPED, "num_key_value_heads": 1},
    "eurobert": {**GROUPED, "mask_token_id": 4},
}


def tiny_of(family: str, **changes: Any) -> nn.Module:
    """Return a random classifier of a family, by its name in transformers: two blocks, hidden size 32, four heads."""
    default = AutoConfig.for_model(family)
    wanted = {**SIZES, **OWN.get(family, {}), **changes}
    known = default.to_dict().keys() | default.attribute_map.keys() | {"num_labels", *OWN.get(family, {}), *changes}
    config = type(default)(**{name: value for name, value in wanted.items() if name in known})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return made_awkward(AutoModelForSequenceClassification.from_config(config))
