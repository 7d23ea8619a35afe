import sys

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2ForSequenceClassification

from helpers import FAMILIES, Family, tiny_batches, tiny_model
from whet.calibration.resources import Resources
from whet.errors import InvalidParameter, NothingToCompress
from whet.methods.factorization.svd import Svd
from whet.methods.recipe import Recipe
from whet.models.architecture import Architecture
from whet.models.inference import predict_logits
from whet.training.lora import attach_lora, merge_lora, trainable_count
from whet.training.settings import LoraSettings

families = pytest.mark.parametrize("family", FAMILIES)


def logits(model: nn.Module) -> Tensor:
    return torch.as_tensor(predict_logits(model, tiny_batches(seed=2)))


def disturb(adapted: nn.Module, seed: int = 0) -> None:
    """Move every trained weight, as training would."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)


@families
def test_training_starts_from_the_given_function(family: Family):
    before = logits(tiny_model(family))
    torch.testing.assert_close(logits(attach_lora(tiny_model(family), LoraSettings(norms=True)).eval()), before)


@families
@pytest.mark.parametrize("norms", [True, False])
def test_merging_keeps_the_function_and_the_original_names(family: Family, norms: bool):
    model = tiny_model(family)
    names, kind = list(model.state_dict()), type(model)
    adapted = attach_lora(model, LoraSettings(rank=3, alpha=5, norms=norms)).eval()
    disturb(adapted)
    wanted = logits(adapted)
    assert (wanted - logits(tiny_model(family))).abs().max() > 0.1
    found = merge_lora(adapted)
    assert type(found) is kind and list(found.state_dict()) == names
    assert all(parameter.requires_grad for parameter in found.parameters())
    torch.testing.assert_close(logits(found), wanted, rtol=1e-4, atol=1e-4)


@families
def test_only_adapters_and_the_head_are_trained(family: Family):
    original = dict(tiny_model(family).named_parameters())
    adapted = attach_lora(tiny_model(family), LoraSettings(rank=2, targets="*.0.*"))
    disturb(adapted)
    found = dict(merge_lora(adapted).named_parameters())
    blocks = Architecture.of(tiny_model(family)).blocks
    for name, weight in found.items():
        inside = name.startswith(f"{blocks[0]}.") and weight.dim() == 2
        after = (
            not name.startswith(tuple(f"{block}." for block in blocks)) and "embed" not in name and ".wte" not in name
        )
        if inside:
            assert torch.linalg.matrix_rank((weight - original[name]).double(), atol=1e-5) == 2, name
        elif not after or "norm" in name or ".ln_f" in name or ".wpe" in name:
            assert torch.equal(weight, original[name]), name
        else:
            assert not torch.equal(weight, original[name]), name


def test_adapters_are_scaled_by_alpha_over_rank():
    adapted = attach_lora(tiny_model("bert"), LoraSettings(rank=4, alpha=12, targets="*.0.attention.self.query"))
    layer = adapted.get_submodule("base_model.model.bert.encoder.layer.0.attention.self.query")
    disturb(adapted)
    inputs = torch.randn(5, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        torch.testing.assert_close(layer(inputs), layer.base_layer(inputs) + 3 * inputs @ a.T @ b.T)


def test_factors_of_compressed_layers_get_adapters_too():
    model = Recipe((Svd(keep=0.5),)).apply(tiny_model("bert"), Resources())
    adapted = attach_lora(model, LoraSettings(rank=2, targets="*.query.[uv]")).eval()
    names = [name for name, one in adapted.named_parameters() if "lora_A" in name and one.requires_grad]
    assert len(names) == 4 and all(".query.u." in name or ".query.v." in name for name in names)
    disturb(adapted)
    wanted = logits(adapted)
    torch.testing.assert_close(logits(merge_lora(adapted)), wanted, rtol=0, atol=1e-5)


def test_gpt2_trains_as_many_parameters_as_the_published_exercise():
    """Rank 4 at four places of 12 blocks, 25 layer norms and a head for two classes: 0.63 M of 125.03 M."""
    with torch.device("meta"):
        model = GPT2ForSequenceClassification(GPT2Config(num_labels=2, pad_token_id=0))
        found = trainable_count(attach_lora(model, LoraSettings(rank=4, norms=True)))
    assert found.trained == 12 * 49_152 + 25 * 1_536 + 1_536 == 629_760
    assert found.whole == 124_439_808 + 1_536 + 12 * 49_152
    assert str(found) == "629,760 of 125,031,168 parameters are trained (0.50%)"


def test_without_adapters_all_parameters_are_trained():
    model = tiny_model("bert")
    count = sum(parameter.numel() for parameter in model.parameters())
    assert trainable_count(model) == (count, count)


def test_targets_that_match_nothing_are_refused():
    with pytest.raises(
        NothingToCompress, match=r"targets of LoRA must match a linear layer, but got targets='\*.quary'"
    ):
        attach_lora(tiny_model("bert"), LoraSettings(targets="*.quary"))


@pytest.mark.parametrize(("name", "value"), [("rank", 0), ("alpha", 0), ("dropout", 1), ("dropout", -0.1)])
def test_settings_out_of_range_are_refused(name: str, value: float):
    with pytest.raises(InvalidParameter, match=f"{name}.*must hold, but got {name}={value}"):
        LoraSettings(**{name: value})


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InvalidParameter, match=r"LoRA needs peft, but it is not installed; pip install 'whet\[lora\]'"):
        attach_lora(tiny_model("bert"), LoraSettings())
