"""What holds for every method; methods are found by themselves.

Every method is applied to every family once, and all that can be seen of the result is tested for all of them. Tests
that need more work (saving, padding, the mildest parameters) take one family for each method; the family changes from
method to method and from test to test. Among pairs of methods, methods that leave the same layers have one
representative, which meets every other method; each of the rest meets one later method. Where two methods of one stage
can stand in both orders, one order is tested. `make test-all` runs the whole product.
"""

import contextlib
import copy
import dataclasses
import functools
import itertools
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModel, AutoModelForSequenceClassification

from covering import covering, rotating
from helpers import FAMILIES, REFUSED, tiny_batches, tiny_model, word_tokenizer, words_of
from whet.calibration.resources import Resources
from whet.errors import InvalidArtifact, InvalidParameter, MissingResource
from whet.evaluation import records
from whet.methods.base import Method, Stage, all_methods, method_from
from whet.methods.factorization._base import Factorization
from whet.methods.pruning._base import Pruning
from whet.methods.recipe import Recipe
from whet.models import artifact
from whet.models.architecture import Architecture
from whet.models.layers.base import CompressedLayer, SavedLayer
from whet.models.surgery import describe
from whet.tasks.data import Batches, TrainingText
from whet.utils.hardware import supports_products

METHODS = sorted(all_methods().values(), key=lambda method: method.name())
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name())


def families(method: type[Method]) -> list[str]:
    return [family for family in FAMILIES if family not in REFUSED.get(method.name(), ())]


def name_of(value) -> str:
    return value if isinstance(value, str) else value.name()


every_method_and_family = pytest.mark.parametrize(
    ("method", "family"), [(method, family) for method in METHODS for family in families(method)], ids=name_of
)


def every_method_in_turn(shift: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("method", "family"), rotating(METHODS, families, shift=shift), ids=name_of)


def everything(family: str = "bert") -> Resources:
    """Return all resources; the teacher is another model: beside its equal, a student learns from rounding alone."""
    batches = tiny_batches()
    return Resources(
        calibration=batches,
        train=batches,
        validation=tiny_batches(seed=1),
        text=TrainingText(words_of(batches), word_tokenizer()),
        teacher=tiny_model(family, seed=4),
    )


def run(method: Method, family: str = "bert", resources: Resources | None = None) -> nn.Module:
    return Recipe((method,)).apply(tiny_model(family), resources or everything(family))


def logits(model: nn.Module, batches: Batches | None = None) -> torch.Tensor:
    """Of tokens that the model has: with fewer of them, the last stand for others."""
    words = model.config.vocab_size
    with torch.inference_mode():
        return torch.cat(
            [
                model(**{**batch, "input_ids": batch["input_ids"] % words}).logits
                for batch in batches or tiny_batches(seed=2)
            ]
        )


class Applied(NamedTuple):
    """A method's example, done to a model of a family; looked at by many tests and changed by none."""

    model: nn.Module
    state: dict[str, torch.Tensor]
    """What the model held before."""
    trained: dict[str, bool]
    """Which of its parameters were trainable before."""
    compressed: nn.Module


@functools.cache
def applied(method: type[Method], family: str = "bert") -> Applied:
    model = tiny_model(family)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    trained = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    compressed = Recipe((method(**method.example),)).apply(model, everything(family))
    return Applied(model, state, trained, compressed)


def go_together(first: type[Method], second: type[Method]) -> bool:
    """No step reads data after one that changes what they are encoded with."""
    reads = second(**second.example).reads
    return first.stage <= second.stage and not (first.stage is Stage.VOCABULARY and reads)


def stand_for_all(*methods: type[Method]) -> bool:
    """Beside others of its stage, one stands for all that leave the same layers with other numbers in them."""
    kin = [next((base for base in (Factorization, Pruning) if issubclass(one, base)), one) for one in methods]
    return all(one is next(m for m in METHODS if issubclass(m, base)) for one, base in zip(methods, kin, strict=True))


@every_method
def test_is_frozen_and_survives_its_file_form(method):
    step = method(**method.example)
    with pytest.raises(dataclasses.FrozenInstanceError):
        step.include = "x"
    assert step.to_dict().keys() == {"method", *(field.name for field in dataclasses.fields(step))}
    assert method_from(step.to_dict()) == step
    assert Recipe.from_list(Recipe((step,)).to_list()) == Recipe((step,))


@every_method_and_family
def test_leaves_the_input_model_unchanged(method, family):
    model, state, trained, _ = applied(method, family)
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert trained == {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    assert all(parameter.grad is None for parameter in model.parameters())


@every_method_and_family
def test_keeps_the_interface_and_changes_something(method, family):
    original, compressed = tiny_model(family), applied(method, family).compressed
    before, after = logits(original), logits(compressed)
    assert type(compressed) is type(original)
    assert not compressed.training
    assert all(parameter.requires_grad for parameter in compressed.parameters())
    assert {parameter.dtype for parameter in compressed.parameters()} == {torch.float32}
    assert after.shape == before.shape
    assert after.isfinite().all()
    if method.lossless:
        torch.testing.assert_close(after, before, rtol=0, atol=1e-5)
        assert describe(compressed)
    else:
        assert not torch.equal(after, before)


@every_method_and_family
def test_shares_no_weight_with_the_original(method, family):
    done = applied(method, family)
    own = {value.data_ptr() for value in done.compressed.parameters()}
    assert not own & {value.data_ptr() for value in done.model.parameters()}


@every_method
def test_a_model_in_training_mode_gives_the_same(method):
    model = tiny_model("bert").train()
    compressed = Recipe((method(**method.example),)).apply(model, everything())
    assert not any(module.training for module in compressed.modules())
    assert all(module.training for module in model.modules())
    assert torch.equal(logits(compressed), logits(applied(method).compressed))


@every_method_in_turn(0)
def test_mildest_is_within_five_percent(method, family):
    if method.name() == "quantization.dynamic_int8" and not supports_products("int8"):
        pytest.skip("without instructions for int8, PyTorch computes it in 7 bits")
    own = dataclasses.replace(everything(family), teacher=tiny_model(family))
    original, mild = logits(tiny_model(family)), logits(run(method(**method.mildest), family, own))
    assert (mild - original).norm() <= 0.05 * original.norm()


@every_method
def test_is_deterministic(method):
    assert torch.equal(logits(run(method(**method.example))), logits(applied(method).compressed))


@every_method_in_turn(1)
def test_same_logits_after_save_and_load(method, family, tmp_path, tokenizer):
    compressed = applied(method, family).compressed
    recipe = Recipe((method(**method.example),))
    records.save_model(compressed, tokenizer, tmp_path / "model", recipe=recipe.to_list(), origin="tiny", seed=0)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    assert torch.equal(logits(plain), logits(compressed))
    assert torch.equal(logits(artifact.load_verified(tmp_path / "model")), logits(compressed))
    # saved once more from the loaded model, it is still the same
    records.save_model(plain, tokenizer, tmp_path / "again", recipe=recipe.to_list(), origin="tiny", seed=0)
    assert torch.equal(logits(artifact.load_verified(tmp_path / "again")), logits(compressed))


@every_method_in_turn(1)
def test_transformers_saves_it_as_whet_does(method, family, tmp_path, tokenizer):
    """As Trainer.save_model and push_to_hub do: before a folder was loaded, and after."""
    compressed = applied(method, family).compressed
    before = compressed.config.to_dict()
    artifact.save_files(compressed, tokenizer, tmp_path / "0", about={}, files={})
    assert compressed.config.to_dict() == before
    for i in range(3):
        copy.deepcopy(compressed).save_pretrained(tmp_path / f"{i + 1}")
        compressed = AutoModelForSequenceClassification.from_pretrained(tmp_path / f"{i}")
        assert torch.equal(logits(compressed), logits(applied(method, family).compressed))
    assert len({(tmp_path / f"{i}" / "model.safetensors").read_bytes() for i in range(3)}) == 1
    # a training that goes on reads the stored weights into the running model
    for weight in (weights := compressed.state_dict()):
        weights[weight].zero_()
    assert not torch.equal(logits(compressed), logits(applied(method, family).compressed))
    compressed.load_state_dict(load_file(tmp_path / "1" / "model.safetensors"))
    assert torch.equal(logits(compressed), logits(applied(method, family).compressed))


@every_method_in_turn(1)
def test_runs_in_sixteen_bits(method, family, tmp_path):
    compressed = copy.deepcopy(applied(method, family).compressed)
    compressed.save_pretrained(tmp_path / "model")
    load = functools.partial(AutoModelForSequenceClassification.from_pretrained, tmp_path / "model")
    expected = logits(compressed)
    for half in (load(dtype=torch.float16), load(dtype=torch.bfloat16), load().bfloat16()):
        assert len({parameter.dtype for parameter in half.parameters()}) == 1
        assert (logits(half) - expected).norm() < 0.1 * expected.norm()
        half.save_pretrained(tmp_path / "again")
        again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "again")
        assert again.dtype == half.dtype
        assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in half.state_dict().items())
    assert (logits(load().half().float()) - expected).norm() < 0.1 * expected.norm()


@every_method_in_turn(1)
def test_without_its_head_it_gives_the_same_hidden_states(method, family, tmp_path):
    compressed = copy.deepcopy(applied(method, family).compressed)
    compressed.save_pretrained(tmp_path / "whole")
    if method.lossless:
        with pytest.raises(InvalidArtifact, match="whose last block computes only the first token must be loaded as "):
            AutoModel.from_pretrained(tmp_path / "whole")
        return
    batch = tiny_batches(seed=2).batches[0]
    batch["input_ids"] %= compressed.config.vocab_size
    with torch.inference_mode():
        expected = compressed.base_model(**batch)[0]
        headless = AutoModel.from_pretrained(tmp_path / "whole")
        assert torch.equal(headless(**batch)[0], expected)
        headless.save_pretrained(tmp_path / "loaded")
        compressed.base_model.save_pretrained(tmp_path / "inner")
        for name in ("loaded", "inner"):
            assert torch.equal(AutoModel.from_pretrained(tmp_path / name)(**batch)[0], expected)
            whole = AutoModelForSequenceClassification.from_pretrained(tmp_path / name)
            assert torch.equal(whole.base_model(**batch)[0], expected)


@every_method_in_turn(1)
def test_attentions_are_those_of_every_block_or_none_are_given(method, family, tmp_path):
    compressed = copy.deepcopy(applied(method, family).compressed)
    batch = tiny_batches(seed=2).batches[0]
    batch["input_ids"] %= compressed.config.vocab_size
    compressed.set_attn_implementation("eager")
    hidden = any(isinstance(layer, SavedLayer) and layer.hides_attentions for layer in compressed.modules())

    def given() -> contextlib.AbstractContextManager:
        message = "output_attentions must be off where attentions are compressed, but got output_attentions=True; ask"
        return pytest.raises(InvalidParameter, match=message) if hidden else contextlib.nullcontext()

    with given():
        found = compressed(**batch, output_attentions=True).attentions
        assert len(found) == len(Architecture.of(compressed).blocks)
    compressed.save_pretrained(tmp_path)
    with given():
        AutoModelForSequenceClassification.from_pretrained(
            tmp_path, output_attentions=True, attn_implementation="eager"
        )


@every_method_in_turn(2)
def test_is_blind_to_what_padding_holds(method, family):
    batches = tiny_batches()
    assert any(not batch["attention_mask"].all() for batch in batches)
    other = [
        {**batch, "input_ids": torch.where(batch["attention_mask"].bool(), batch["input_ids"], 7)}
        if family == "bert"
        else _wider(batch)
        for batch in batches
    ]
    moved = Batches(other, batches.labels)
    changed = dataclasses.replace(everything(family), calibration=moved, train=moved)
    step = method(**method.example)
    first, second = logits(applied(method, family).compressed), logits(run(step, family, changed))
    assert (first - second).abs().max() <= 1e-3 * first.abs().max()


def _wider(batch):
    """More padding at the end; decoders find the last token by the padding's id, so that it must stay."""
    return {key: nn.functional.pad(value, (0, 5)) for key, value in batch.items()}


@every_method
def test_works_with_exactly_what_it_declares(method):
    full = everything()
    step = method(**method.example)
    lean = Resources(**{need: getattr(full, need) for need in method.needs}, seed=full.seed)
    assert torch.equal(logits(run(step, resources=lean)), logits(applied(method).compressed))


@every_method
def test_asks_for_what_is_missing_before_any_work(method, monkeypatch):
    if not method.needs:
        pytest.skip("it needs nothing, so that nothing can be missing")
    monkeypatch.setattr("whet.methods.recipe.copy_sharing_parameters", lambda model: pytest.fail("work had begun"))
    with pytest.raises(MissingResource, match=rf"{method.name()} needs .*, but got none; give --task"):
        Recipe((method(**method.example),)).apply(tiny_model("bert"), Resources())


@every_method
def test_refuses_unknown_and_invalid_parameters(method):
    with pytest.raises(InvalidParameter, match="takes the parameters"):
        method_from({"method": method.name(), **method.example, "no_such": 1})


@every_method
def test_every_weight_it_leaves_is_found_again(method):
    """What a later stage works on: a compressed layer holds its weights in standard modules."""
    kept = [module for module in applied(method).compressed.modules() if isinstance(module, CompressedLayer)]
    for layer in kept:
        own = {name for name, value in layer.named_parameters(recurse=False) if value.numel()}
        assert not own, f"{layer} holds {own} outside standard modules"


def pairs() -> list[tuple[type[Method], type[Method]]]:
    """All that can follow each other."""
    return [
        (first, second)
        for first, second in itertools.product(METHODS, METHODS)
        if go_together(first, second) and (first.stage < second.stage or stand_for_all(first, second))
    ]


def is_in_the_covering_set(pair: tuple[type[Method], type[Method]]) -> bool:
    """A method, and one or each third of those that can follow it."""
    first, second = pair
    later = [other for one, other in pairs() if one is first]
    turns = 3 if stand_for_all(first) and len(later) > 3 else len(later)
    return later.index(second) % turns == METHODS.index(first) % turns


@pytest.mark.parametrize(("first", "second"), covering(pairs(), is_in_the_covering_set), ids=name_of)
def test_rising_stages_go_together_and_can_be_saved(first, second, tmp_path, tokenizer):
    steps = [first(**first.example), second(**second.example)]
    if first.stage == second.stage and all(hasattr(step, "include") for step in steps):
        # two methods of one stage share the layers out between them
        steps = [dataclasses.replace(steps[0], include="*.0.*"), dataclasses.replace(steps[1], include="*.1.*")]
    recipe = Recipe(tuple(steps))
    compressed = recipe.apply(tiny_model("bert"), everything())
    records.save_model(compressed, tokenizer, tmp_path / "model", recipe=recipe.to_list(), origin="tiny", seed=0)
    assert torch.equal(logits(artifact.load_verified(tmp_path / "model")), logits(compressed))
