"""Register compressed models and the models of whet with transformers, without importing transformers.

transformers keeps tables of the quantizers and configurations that it can load. Their modules take seconds to import.
A finder on `sys.meta_path` therefore waits until another module imports them, and extends each table right after its
module has run.
"""

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["register", "save_as_stored"]


_QUANTIZER = "whet.models.quantizer"
"""It imports transformers."""


def register() -> None:
    """Extend the tables of transformers: those already imported now, the others when they are imported."""
    waiting = {}
    for name, add in _TABLES.items():
        if name in sys.modules:
            add(sys.modules[name])
        else:
            waiting[name] = add
    if waiting and not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport(waiting))


def save_as_stored(model: Any) -> None:
    """Make a model of transformers write its stored form, and the structure of it, wherever it is saved.

    `save_pretrained` asks the model's quantizer for both; Trainer.save_model and push_to_hub call it. Other modules
    stay as they are.
    """
    for module in model.modules():  # the model without its head can be saved by itself
        if hasattr(module, "save_pretrained") and getattr(module, "hf_quantizer", None) is None:
            quantizer = importlib.import_module(_QUANTIZER)
            module.hf_quantizer = quantizer.WhetQuantizer(quantizer.WhetConfig({}))


def _add_quantizer(auto: ModuleType) -> None:
    quantizer = importlib.import_module(_QUANTIZER)
    auto.AUTO_QUANTIZATION_CONFIG_MAPPING[quantizer.QUANT_METHOD] = quantizer.WhetConfig
    auto.AUTO_QUANTIZER_MAPPING[quantizer.QUANT_METHOD] = quantizer.WhetQuantizer


def _add_configs(auto: ModuleType) -> None:
    configs = importlib.import_module("whet.models.configs")
    for config in (configs.CascadeConfig, configs.LstmConfig, configs.RecurrentConfig, configs.ShallowConfig):
        auto.AutoConfig.register(config.model_type, config, exist_ok=True)


_TABLES: dict[str, Callable[[ModuleType], None]] = {
    "transformers.models.auto.configuration_auto": _add_configs,
    "transformers.quantizers.auto": _add_quantizer,
}


class _AfterImport(MetaPathFinder):
    """Calls a function with a module after its import, for each of the given modules."""

    def __init__(self, waiting: dict[str, Callable[[ModuleType], None]]) -> None:
        self.waiting = waiting

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec that the other finders find, with a loader that calls the function after the module ran."""
        if fullname not in self.waiting:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in specs if spec), None)
        if spec is not None and spec.loader is not None:
            self._call_after(spec)
        return spec

    def _call_after(self, spec: ModuleSpec) -> None:
        assert spec.loader is not None
        execute, add = spec.loader.exec_module, self.waiting[spec.name]

        def exec_module(module: ModuleType) -> None:
            execute(module)
            add(module)
            self._done(spec.name)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]

    def _done(self, name: str) -> None:
        self.waiting.pop(name, None)
        if not self.waiting and self in sys.meta_path:
            sys.meta_path.remove(self)
