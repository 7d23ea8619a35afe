"""The hooks by which transformers loads a compressed model: its `quantization_config` with quant_method "whet"."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["QUANT_METHOD", "WhetConfig", "WhetQuantizer"]

QUANT_METHOD = "whet"


class WhetConfig(QuantizationConfigMixin):
    """The structure of a compressed model, as config.json holds it."""

    def __init__(self, structure: Mapping[str, Mapping[str, Any]], **others: Any) -> None:
        self.quant_method = QUANT_METHOD
        self.structure = structure


class WhetQuantizer(HfQuantizer):
    """Rebuilds the compressed layers in an empty model before its weights are loaded."""

    def _process_model_before_weight_loading(self, model: "PreTrainedModel", **others: Any) -> None:
        from whet.models.surgery import rebuild  # not at the top, where transformers has not finished its own imports

        rebuild(model, self.quantization_config.structure)

    def _process_model_after_weight_loading(self, model: "PreTrainedModel", **others: Any) -> "PreTrainedModel":
        from whet.models.surgery import from_storage

        from_storage(model)
        return model

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
