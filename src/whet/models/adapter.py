"""Load a LoRA adapter that peft saved, merged into the base that it names: W + (alpha / rank) B A for each layer.

Only the fields of the configuration that the merged weights depend on are passed to peft; others can make it import
modules by name. A field that would change the weights in another way is refused.
"""

import contextlib
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from whet.errors import InvalidModel, InvalidParameter
from whet.models.checkpoint import Checkpoint
from whet.models.folder import conversion, find_file, reading
from whet.models.model_files import ADAPTER_WEIGHTS
from whet.models.surgery import without_pooler
from whet.models.weights import SAFE, load_checkpoint
from whet.tasks.kinds.base import NO_HEAD, TEXT_HEAD, TaskKind

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["base_of", "load_merged", "merged"]

_USED = (
    "r",
    "lora_alpha",
    "target_modules",
    "exclude_modules",
    "modules_to_save",
    "fan_in_fan_out",
    "bias",
    "lora_bias",
    "use_rslora",
    "use_dora",
    "rank_pattern",
    "alpha_pattern",
    "layers_to_transform",
    "layers_pattern",
    "task_type",
)
_OF_TRAINING = (
    "peft_type",
    "peft_version",
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "lora_dropout",
    "eva_config",
    "corda_config",
    "loftq_config",
    "lora_ga_config",
    "runtime_config",
)
_HEADS = {
    "SEQ_CLS": (TEXT_HEAD,),
    "TOKEN_CLS": ("ForTokenClassification",),
    "QUESTION_ANS": ("ForQuestionAnswering",),
    "FEATURE_EXTRACTION": ("Model",),
    "CAUSAL_LM": ("ForCausalLM", "LMHeadModel"),
}
"""How classes of models end for each task of peft."""
_INITIAL_WEIGHTS = (None, True, False, "gaussian", "eva", "orthogonal")
"""Ways to start training that leave the base as it is; the others subtract their first adapter from it."""
_PREFIX = "base_model.model."


def base_of(checkpoint: Checkpoint) -> Checkpoint:
    """Return the base that an adapter names.

    Raises:
        InvalidModel: it names none, or one that is no whole model.
    """
    name = (checkpoint.adapter or {}).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise InvalidModel(
            f"an adapter must name its base, but {checkpoint.source} has base_model_name_or_path={name!r:.60}; put the "
            "folder or hub name of its base there"
        )
    try:
        base = Checkpoint.of(name)
    except InvalidModel as error:
        raise InvalidModel(
            f"the adapter {checkpoint.source} must name its base, but base_model_name_or_path={name!r} is none: {error}"
        ) from error
    if base.adapter is not None:
        raise InvalidModel(f"the base of an adapter must be a whole model, but {name} holds an adapter; merge it first")
    return base


def merged(checkpoint: Checkpoint) -> Checkpoint:
    """Return what an adapter and its base are together: its base, with the head that it brings.

    Raises:
        InvalidModel: peft trained it for something that whet has no kind for, or for another head than its base has.
    """
    base, task_type = base_of(checkpoint), (checkpoint.adapter or {}).get("task_type")
    base.refuse_encoder_decoder()
    if task_type not in (None, *_HEADS):
        raise InvalidModel(
            f"the task_type of an adapter must be one of {', '.join(_HEADS)}, but {checkpoint.source} has "
            f"{task_type!r:.60}; whet does not compress such models yet"
        )
    whole = replace(base, around=checkpoint.source if checkpoint.modules is not None else None)
    if _brings_head(checkpoint, base):
        head = _HEADS[task_type or "SEQ_CLS"][0]
        return replace(whole, config={**base.config, **_outputs(checkpoint), "architectures": [head]})
    if task_type is not None and not all(name.endswith(_HEADS[task_type]) for name in base.architectures):
        raise InvalidModel(
            f"an adapter must be of its base's kind, but {checkpoint.source} has task_type={task_type} and its base "
            f"{base.source} holds {base.holds()}; correct task_type, or base_model_name_or_path"
        )
    return whole


def load_merged(checkpoint: Checkpoint, kind: TaskKind) -> "PreTrainedModel":
    """Return the base of an adapter with the adapter merged into its weights, in fp32 and eval mode.

    Args:
        checkpoint: the adapter.
        kind: what both answer together.

    Raises:
        InvalidParameter: peft is not installed.
        InvalidModel: it is no LoRA adapter of a model that whet knows, its base cannot be loaded, or weights are
            missing or left over.
    """
    try:
        import peft
    except ImportError as error:
        raise InvalidParameter(
            f"{checkpoint.source} holds an adapter, which needs peft, but it is not installed; pip install 'whet[lora]'"
        ) from error
    adapter = checkpoint.adapter or {}
    _require_lora(checkpoint, adapter, peft.LoraConfig().to_dict())
    base, weights = base_of(checkpoint), _adapter_weights(checkpoint)
    model, missing = load_checkpoint(base, kind, head="new", config=_config(checkpoint, base))
    if NO_HEAD in kind.heads:
        missing = without_pooler(model, missing)
    saved = {name.removeprefix(_PREFIX) for name in weights}
    if lacking := sorted(missing - saved):
        raise InvalidModel(
            f"every weight must be in the adapter or its base, but {checkpoint.source} and {base.source} lack "
            f"{', '.join(lacking[:4])}; save the adapter with these modules (modules_to_save)"
        )
    with reading(checkpoint.source), _quiet():
        adapted: Any = peft.get_peft_model(
            model, peft.LoraConfig(**{name: adapter[name] for name in _USED if name in adapter})
        )
        peft.set_peft_model_state_dict(adapted, dict(weights))
        taken = peft.get_peft_model_state_dict(adapted)
    if others := sorted(taken.keys() ^ weights.keys()):
        raise InvalidModel(
            f"the adapter's weights must be those of its configuration, but {', '.join(others[:3])} of "
            f"{checkpoint.source} are missing or left over; copy it again"
        )
    with reading(checkpoint.source):
        whole: PreTrainedModel = adapted.merge_and_unload()
    whole.name_or_path = checkpoint.source
    return whole.requires_grad_(True).eval()


def _require_lora(checkpoint: Checkpoint, adapter: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    def refuse(name: str) -> InvalidModel:
        return InvalidModel(
            f"an adapter must be plain LoRA, but {checkpoint.source} has "
            f"{name}={adapter.get(name)!r:.60}; merge it with peft, and give the merged model"
        )

    if adapter.get("peft_type") != "LORA":
        raise refuse("peft_type")
    if adapter.get("init_lora_weights") not in _INITIAL_WEIGHTS:
        raise refuse("init_lora_weights")
    for name in adapter.keys() - {*_USED, *_OF_TRAINING, "init_lora_weights"}:
        if adapter[name] and adapter[name] != defaults.get(name):
            raise refuse(name)


def _adapter_weights(checkpoint: Checkpoint) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    path = find_file(checkpoint.source, ADAPTER_WEIGHTS)
    if path is None:
        raise InvalidModel(
            f"an adapter's weights must be in safetensors, but {checkpoint.source} lacks {ADAPTER_WEIGHTS}; save it "
            f"again with peft, or convert it if you trust it: "
            f"{conversion(checkpoint.source, 'adapter_model*.bin', ADAPTER_WEIGHTS)}"
        )
    with reading(checkpoint.source):
        weights: dict[str, Tensor] = load_file(path)
    return weights


def _brings_head(checkpoint: Checkpoint, base: Checkpoint) -> bool:
    """Whether the head of the base, if it has one, is none that the adapter was trained with."""
    headless = bool(base.architectures) and base.is_pretrained
    return headless and (checkpoint.adapter or {}).get("task_type") != "CAUSAL_LM"


def _config(checkpoint: Checkpoint, base: Checkpoint) -> Any:
    """Return the configuration of the merged model, with as many outputs as the base or the adapter's head has."""
    from transformers import AutoConfig

    with reading(base.source):
        config = AutoConfig.from_pretrained(base.source, **SAFE)
        if _brings_head(checkpoint, base):
            for name, value in _outputs(checkpoint).items():
                config.update({name: value})
    return config


def _outputs(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what a configuration says of the outputs of an adapter's own head; nothing, if its size is fixed."""
    own = checkpoint.config.get("id2label")
    if own:
        return {"id2label": {int(index): name for index, name in own.items()}}
    if (checkpoint.adapter or {}).get("task_type") not in (None, "SEQ_CLS", "TOKEN_CLS"):
        return {}
    ends = ("score.weight", "classifier.weight", "out_proj.weight")
    weights = _adapter_weights(checkpoint)
    heads = {len(weight) for name, weight in weights.items() if name.endswith(ends) and ".layer" not in name}
    if len(heads) != 1:
        raise InvalidModel(
            f"an adapter must hold its head, since its base has none, but {checkpoint.source} does not; save it with "
            "task_type=SEQ_CLS"
        )
    return {"num_labels": heads.pop()}


@contextlib.contextmanager
def _quiet() -> Any:
    with warnings.catch_warnings():
        # peft calls a deprecated name of transformers, and corrects a flag for layers of GPT-2's kind
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        warnings.filterwarnings("ignore", "fan_in_fan_out is set", UserWarning)
        yield
