"""The structure of a compressed model as transformers reads it: `quantization_config` under quant_method "whet"."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["QUANT_METHOD", "WhetConfig", "WhetQuantizer"]

QUANT_METHOD = "whet"


class WhetConfig(QuantizationConfigMixin):
    """The structure of a compressed model, as it stands in config.json."""

    def __init__(self, structure: Mapping[str, Mapping[str, Any]], **others: Any) -> None:
        self.quant_method = QUANT_METHOD
        self.structure = structure


class WhetQuantizer(HfQuantizer):
    """Gives an empty model the layers that its weights were saved from."""

    def _process_model_before_weight_loading(self, model: "PreTrainedModel", **others: Any) -> None:
        from whet.models.surgery import rebuild  # at import time, transformers has not finished its own imports

        rebuild(model, self.quantization_config.structure)

    def _process_model_after_weight_loading(self, model: "PreTrainedModel", **others: Any) -> "PreTrainedModel":
        from whet.models.surgery import from_storage

        from_storage(model)
        return model

    def is_serializable(self) -> bool:
        """Return that a loaded model can be saved again."""
        return True

    @property
    def is_trainable(self) -> bool:
        """The factors are ordinary weights, and can be trained on."""
        return True

    @property
    def is_qat_trainable(self) -> bool:
        """Lets transformers.Trainer train all weights, not only adapters."""
        return True
