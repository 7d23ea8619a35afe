from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from covering import covering
from exported import assert_exports
from helpers import FAMILIES, Family, block_weights, linears, tiny_batches, tiny_model
from whet.calibration.resources import Resources
from whet.errors import InvalidParameter, NothingToCompress, UnknownName
from whet.evaluation import records
from whet.evaluation.timing import RuntimeTimer
from whet.methods.lossless.first_token import FirstToken
from whet.methods.pruning import structure
from whet.methods.pruning._dissection import PartLocation, dissect, part_locations
from whet.methods.pruning._parts import DENSE, DROP, BlockPart, PartConfig
from whet.methods.pruning.heads import Heads
from whet.methods.pruning.neurons import Neurons
from whet.methods.pruning.structure import STRUCTURES, BlockStructure
from whet.methods.recipe import Recipe
from whet.models.architecture import Architecture
from whet.models.attention import SelfAttention
from whet.models.feed_forward import FeedForward
from whet.models.first_token import first_token_layers
from whet.models.layers.constant import Constant
from whet.models.layers.passing import PassThrough
from whet.models.layers.resized import Resized
from whet.models.surgery import copy_sharing_parameters, describe
from whet.numerics.allocation import LayerOptions, minimise_loss
from whet.tasks.data import Batches

CALIBRATION = Resources(calibration=tiny_batches())
ENCODERS: tuple[Family, ...] = ("bert", "distilbert", "roberta")
families = pytest.mark.parametrize("family", FAMILIES)
encoders = pytest.mark.parametrize("family", ENCODERS)


def shaped(model: nn.Module, **parameters: object) -> nn.Module:
    return Recipe((BlockStructure(**{"structures": STRUCTURES, **parameters}),)).apply(model, CALIBRATION)


def taken_apart(model: nn.Module, *, factored: bool = True) -> dict[str, BlockPart]:
    batches = tiny_batches()
    chosen = part_locations(model, batches, include="*", factored=factored)
    return dissect(model, batches, chosen, factored=factored, damping=1e-3, temperature=3.0, seed=CALIBRATION.seed)


def put(model: nn.Module, shapes: Mapping[str, PartConfig]) -> nn.Module:
    parts, copied = taken_apart(model), copy_sharing_parameters(model)
    for name, shape in shapes.items():
        parts[name].put(copied, shape)
    return copied


def logits(model: nn.Module, seed: int = 2) -> Tensor:
    with torch.inference_mode():
        return torch.cat([model(**batch).logits for batch in tiny_batches(seed=seed)])


@families
def test_every_part_is_found_with_all_of_its_layers(family: Family):
    model = tiny_model(family)
    parts = taken_apart(model)
    named = [name for part in parts.values() for name in part.layers]
    assert sorted(named) == sorted(Architecture.of(model).linears)
    assert len(named) == len(set(named))


@families
@pytest.mark.parametrize("keep", [0.3, 0.5, 0.8])
def test_the_budget_is_never_exceeded_and_nearly_spent(family: Family, keep: float):
    model = tiny_model(family)
    parts = taken_apart(model)
    whole = sum(part.parameters(DENSE) for part in parts.values())
    held = sum(p.numel() for p in shaped(model, keep=keep).parameters() if p.dim() == 2)
    others = sum(p.numel() for p in model.parameters() if p.dim() == 2) - whole
    assert keep * whole * 0.93 < held - others <= keep * whole


@encoders
def test_neurons_and_heads_are_those_of_the_methods_for_them(family: Family):
    model = tiny_model(family)
    place, attention = FeedForward.all_of(model, "*", tiny_batches())[1], SelfAttention.all_of(model, "*")[0]
    neurons = Recipe((Neurons(keep=0.5, include=place.output),)).apply(model, CALIBRATION)
    torch.testing.assert_close(logits(put(model, {place.output: PartConfig("neurons", (32,))})), logits(neurons))
    heads = Recipe((Heads(keep=0.5, include=attention.name),)).apply(model, CALIBRATION)
    count = heads.get_submodule(attention.name).heads
    shape = PartConfig("heads", (count, attention.width, attention.width))
    torch.testing.assert_close(logits(put(model, {attention.name: shape})), logits(heads))


@encoders
def test_a_dropped_part_returns_its_mean(family: Family):
    model = tiny_model(family)
    for part in taken_apart(model).values():
        output = list(part.layers)[-1]
        rows: list[Tensor] = []
        handle = model.get_submodule(output).register_forward_hook(lambda _m, _i, out, own=rows: own.append(out))
        with torch.inference_mode():
            for batch in tiny_batches():
                model(**batch)
        handle.remove()
        masks = [batch["attention_mask"].bool() for batch in tiny_batches()]
        mean = torch.cat([one[mask] for one, mask in zip(rows, masks, strict=True)]).mean(0)
        small = put(model, {part.name: DROP})
        [left] = [layer for layer in small.modules() if isinstance(layer, Constant)]
        torch.testing.assert_close(left.bias, mean, rtol=1e-4, atol=1e-5)
        assert block_weights(small) == block_weights(model) - part.parameters(DENSE)
        assert logits(small).isfinite().all()
        assert (logits(small) - logits(model)).norm() > 1e-3


@encoders
def test_more_structures_never_lose_more_by_the_proxy(family: Family):
    parts = taken_apart(tiny_model(family))

    def least(structures: tuple[str, ...]) -> float:
        options = {}
        for name, part in parts.items():
            losses = part.choices(structures)
            order = sorted(losses, key=lambda shape: (part.parameters(shape), losses[shape]))
            costs = np.array([part.parameters(shape) for shape in order])
            options[name] = LayerOptions(costs, np.array([losses[shape] for shape in order]))
        budget = 0.5 * sum(part.parameters(DENSE) for part in parts.values())
        return sum(float(options[name].losses[i]) for name, i in minimise_loss(options, budget).items())

    assert least(STRUCTURES) <= 1.02 * min(least(("neurons", "heads")), least(("ranks",)))


def test_sequential_parts_are_fitted_to_what_those_before_them_give(monkeypatch: pytest.MonkeyPatch):
    """The first is that of one shot; sizes are the same; statistics are taken once more for each part that changes."""
    seen: list[list[str]] = []

    def watched(
        model: nn.Module, batches: Batches, where: Mapping[str, PartLocation], **rest: Any
    ) -> dict[str, BlockPart]:
        seen.append(list(where))
        return dissect(model, batches, where, **rest)

    monkeypatch.setattr(structure, "dissect", watched)
    options = {"keep": 0.5, "structures": ("neurons", "heads")}
    once, anew = (shaped(tiny_model("bert"), calibration=how, **options) for how in ("one_shot", "sequential"))
    changed = [name for [name] in seen[2:]]
    assert seen[0] == seen[1] and changed == [name for name in seen[0] if name in changed] and len(changed) > 2
    assert describe(once) == describe(anew)
    weights = [dict(one.named_parameters()) for one in (once, anew)]
    same = {name: torch.equal(weight, weights[1][name]) for name, weight in weights[0].items()}
    assert all(own for name, own in same.items() if "layer.0.attention" in name) and not all(same.values())


@encoders
@pytest.mark.parametrize("speedup", [1.3, 2.0])
def test_a_model_reaches_the_wanted_speedup(family: Family, speedup: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(RuntimeTimer, "opened", lambda _, model: model)
    monkeypatch.setattr(RuntimeTimer, "time", lambda _, models: np.array([[linears(one) for one in models]]))
    model = tiny_model(family)
    reached = linears(model) / linears(shaped(model, speedup=speedup, structures=("neurons", "heads", "drop")))
    assert 0.98 * speedup <= reached <= 1.1 * speedup
    with pytest.raises(InvalidParameter, match="must hold on this machine, but got speedup=99"):
        shaped(model, speedup=99)


def test_models_are_timed_as_they_will_run(monkeypatch: pytest.MonkeyPatch):
    """Layers that are put in place would otherwise drop out what they compute, which takes time."""
    seen: list[nn.Module] = []
    opened: list[nn.Module] = []

    def times(_clock: RuntimeTimer, models: list[nn.Module]) -> np.ndarray:
        seen.extend(models)
        return np.array([[linears(one) for one in models]])

    monkeypatch.setattr(RuntimeTimer, "opened", lambda _, model: opened.append(model) or model)
    monkeypatch.setattr(RuntimeTimer, "time", times)
    shaped(tiny_model("bert"), speedup=1.5)
    assert len(seen) > 5
    assert opened.count(opened[0]) == 1 < seen.count(opened[0]), "another runtime would export the whole model again"
    assert not [module for model in seen for module in model.modules() if module.training]


def test_time_is_not_saved_where_the_first_token_alone_is_computed(monkeypatch: pytest.MonkeyPatch):
    """Its neurons cost next to nothing, so that none of them goes before all that do cost something."""
    model = tiny_model("bert")
    length = 9.0
    first = Recipe((FirstToken(),)).apply(model, Resources())
    parts = taken_apart(first)
    alone = first_token_layers(first)
    last, before = list(parts.values())[-1], list(parts.values())[-3]
    assert last.share(alone, length) == pytest.approx(1 / length)
    assert before.share(alone, length) == 1
    attention = list(parts.values())[-2]
    assert attention.share(alone, length) == pytest.approx((2 + 2 / length) / 4)


@encoders
def test_all_shapes_survive_save_and_load(family: Family, tmp_path, tokenizer):
    model = tiny_model(family)
    parts = list(taken_apart(model).values())
    width = SelfAttention.all_of(model, "*")[0].width
    small = put(
        model,
        {
            parts[0].name: PartConfig("heads", (1, width // 2, width)),
            parts[1].name: DROP,
            parts[2].name: DROP,
            parts[3].name: PartConfig("neurons", (16,)),
        },
    )
    records.save_model(small, tokenizer, tmp_path / "m", recipe=[], origin="tiny", seed=0)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "m").eval()
    assert torch.equal(logits(plain), logits(small))
    kinds = [type(module) for module in plain.modules()]
    assert kinds.count(Constant) == 2 and Resized in kinds and PassThrough in kinds


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # torch's exporter's own
@pytest.mark.parametrize(("family",), covering([("bert",), ("distilbert",)], lambda case: case == ("distilbert",)))
def test_a_dropped_block_exports_at_any_length(family: Family, tmp_path):
    model = tiny_model(family)
    parts = list(taken_apart(model))
    assert_exports(put(model, dict.fromkeys(parts[:2], DROP)), tmp_path / "model.onnx")


def test_a_dropped_block_may_compute_the_first_token_alone():
    first = Recipe((FirstToken(),)).apply(tiny_model("bert"), Resources())
    parts = list(taken_apart(first))
    assert logits(put(first, dict.fromkeys(parts[-2:], DROP))).isfinite().all()


def test_bad_input_is_refused():
    with pytest.raises(InvalidParameter, match="one of keep and speedup must be given"):
        BlockStructure()
    with pytest.raises(InvalidParameter, match="one of keep and speedup must be given"):
        BlockStructure(speedup=2, keep=0.5)
    with pytest.raises(InvalidParameter, match=r"structures must be some of neurons, .*, but got blocks"):
        BlockStructure(keep=0.5, structures="blocks")
    with pytest.raises(InvalidParameter, match=r"structures must be a list of text, but got structures=\(3, 'heads'\)"):
        BlockStructure(keep=0.5, structures=[3, "heads"])
    assert BlockStructure(keep=0.5, structures=["heads"]) == BlockStructure(keep=0.5, structures="heads")
    with pytest.raises(InvalidParameter, match=r"structures must be some of neurons, .*, but got none"):
        BlockStructure(keep=0.5, structures=())
    with pytest.raises(InvalidParameter, match=r"keep >= 0\.\d+ must hold, which is the least"):
        shaped(tiny_model("bert"), keep=0.01, structures=("neurons",))
    with pytest.raises(NothingToCompress, match="no part matches 'decoder"):
        shaped(tiny_model("bert"), keep=0.5, include="decoder*")
    with pytest.raises(UnknownName, match="runtime"):
        shaped(tiny_model("bert"), speedup=2, runtime="onnxrun")
    with pytest.raises(UnknownName, match="the precision must be a known name, but got 'int3'"):
        shaped(tiny_model("bert"), speedup=2, runtime="onnxruntime", precision="int3")
