"""The hooks by which transformers loads a compressed model: its `quantization_config` with quant_method "whet"."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["QUANT_METHOD", "WhetConfig", "WhetQuantizer"]

QUANT_METHOD = "whet"


class WhetConfig(QuantizationConfigMixin):
    """The structure of a compressed model, as config.json holds it; `rebuild` refuses what is none."""

    def __init__(self, structure: Any = None, **others: Any) -> None:
        self.quant_method = QUANT_METHOD
        self.structure = structure


class WhetQuantizer(HfQuantizer):
    """Rebuilds the compressed layers in an empty model before its weights are loaded."""

    def _process_model_before_weight_loading(
        self, model: "PreTrainedModel", checkpoint_files: Sequence[str] | None = None, **others: Any
    ) -> None:
        from whet.models.plain_loading import compare_with_manifest
        from whet.models.surgery import rebuild  # not at the top, where transformers has not finished its own imports

        compare_with_manifest(checkpoint_files)
        rebuild(model, self.quantization_config.structure)

    def _process_model_after_weight_loading(self, model: "PreTrainedModel", **others: Any) -> "PreTrainedModel":
        from whet.models.layers._heads import refuse_attentions
        from whet.models.layers.base import SavedLayer
        from whet.models.surgery import from_storage

        from_storage(model)
        if any(isinstance(layer, SavedLayer) and layer.hides_attentions for layer in model.modules()):
            refuse_attentions(getattr(model.config, "output_attentions", False))
        model.is_quantized = False  # weights are ordinary now: half(), float() and to(dtype) may change them
        return model

    def get_state_dict_and_metadata(self, model: "PreTrainedModel") -> tuple[dict[str, Any] | None, dict[str, str]]:
        """Return what `save_pretrained` writes: the weights in their stored form, described in the configuration."""
        from whet.models.sixteen_bits import has_sixteen_bits, in_sixteen_bits
        from whet.models.surgery import describe, to_storage

        if getattr(model, "_hf_peft_config_loaded", False):  # adapters alone are saved, and transformers finds them
            return None, {}
        stored = to_storage(model)
        structure = describe(stored)
        config: Any = model.config
        if structure:
            config.quantization_config = self.quantization_config = WhetConfig(structure)
            # transformers would fuse the weights of some families, such as query, key and value, whose shapes differ
            model._weight_conversions = []
        elif hasattr(config, "quantization_config"):
            del config.quantization_config
        weights = stored.state_dict()
        return in_sixteen_bits(weights) if has_sixteen_bits(model) else weights, {}

    def is_serializable(self) -> bool:
        """True: a loaded model can be saved again."""
        return True

    @property
    def is_trainable(self) -> bool:
        """True: compressed layers can be trained."""
        return True

    @property
    def is_qat_trainable(self) -> bool:
        """True: transformers.Trainer may train all weights, not only adapters."""
        return True
