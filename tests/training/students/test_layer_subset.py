import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

from helpers import FAMILIES, Family, tiny_batches, tiny_model
from whet.calibration.resources import Resources
from whet.errors import InvalidModel, InvalidParameter, MissingResource, UnknownName
from whet.evaluation import records
from whet.models.architecture import Architecture
from whet.models.inference import predict_logits
from whet.models.surgery import keep_blocks
from whet.numerics.divergence import categorical_kl
from whet.training.students.base import student_from
from whet.training.students.layer_subset import LayerSubset, block_influences

CALIBRATION = Resources(calibration=tiny_batches())
families = pytest.mark.parametrize("family", FAMILIES)


def logits(model: nn.Module) -> Tensor:
    return torch.as_tensor(predict_logits(model, tiny_batches(seed=2)))


def kept(teacher: nn.Module, student: nn.Module) -> list[int]:
    """Which of the teacher's blocks the student has, by their weights."""
    blocks = [[model.get_submodule(name) for name in Architecture.of(model).blocks] for model in (teacher, student)]
    weights = [[torch.cat([one.flatten() for one in block.parameters()]) for block in side] for side in blocks]
    return [next(i for i, own in enumerate(weights[0]) if torch.equal(own, mine)) for mine in weights[1]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("odd", [0, 2, 4]),
        ("even", [1, 3, 5]),
        ("odd:3", [0, 2, 4]),
        ("top:2", [0, 1]),
        ("bottom:2", [4, 5]),
        ("evenly_spaced:3", [0, 2, 5]),
        ("evenly_spaced:1", [0]),
        ("0,2,3", [0, 2, 3]),
        ("5", [5]),
        ("4,1", [4, 1]),
    ],
)
def test_names_mean_what_publications_mean_by_them(text: str, expected: list[int]):
    """Odd are the first, third and fifth: numbers count from 0, names from 1."""
    teacher = tiny_model("bert", blocks=6, seed=1)
    built = student_from(f"layer_subset:{text}").build(teacher, Resources())
    assert kept(teacher, built.model) == expected
    assert built.plan.startswith(f"blocks {', '.join(map(str, expected))} of 0 to 5")


@families
def test_student_equals_the_teacher_without_the_other_blocks(family: Family, tmp_path, tokenizer):
    teacher = tiny_model(family, blocks=4)
    before = logits(teacher)
    student = LayerSubset(layers=(0, 2)).build(teacher, Resources()).model
    skipped = [teacher.get_submodule(Architecture.of(teacher).blocks[i]) for i in (1, 3)]
    handles = [
        block.register_forward_hook(lambda _m, given, out: (given[0], *out[1:]) if isinstance(out, tuple) else given[0])
        for block in skipped
    ]
    torch.testing.assert_close(logits(student), logits(teacher), rtol=0, atol=1e-6)
    for handle in handles:
        handle.remove()
    assert torch.equal(logits(teacher), before)
    records.save_model(student, tokenizer, tmp_path / "student", recipe=[], origin="tiny", seed=0)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student").eval()
    assert torch.equal(logits(plain), logits(student))
    assert len(Architecture.of(plain).blocks) == 2


def test_students_share_no_weights():
    teacher = tiny_model("bert", blocks=4)
    one, other = (LayerSubset(pattern="odd").build(teacher, Resources()).model for _ in range(2))
    places = [{parameter.data_ptr() for parameter in model.parameters()} for model in (teacher, one, other)]
    assert not places[0] & places[1] and not places[0] & places[2] and not places[1] & places[2]
    assert teacher.config.num_hidden_layers == 4 and one.config.num_hidden_layers == 2


@families
def test_decoders_renumber_their_blocks(family: Family):
    student = LayerSubset(layers=(1, 3)).build(tiny_model(family, blocks=4), Resources()).model
    places = [module.layer_idx for module in student.modules() if hasattr(module, "layer_idx")]
    assert sorted(set(places)) in ([], [0, 1])


def test_bert_base_loses_six_of_its_blocks():
    """The figures of the published exercise: 109,484,547 parameters with three classes, and 66,957,315."""
    with torch.device("meta"):
        teacher = BertForSequenceClassification(BertConfig(num_labels=3))
    assert sum(one.numel() for one in teacher.parameters()) == 109_484_547
    for pattern in ("odd", "even", "top:6", "bottom:6"):
        student = student_from(f"layer_subset:{pattern}").build(teacher, Resources()).model
        assert sum(one.numel() for one in student.parameters()) == 66_957_315


@families
def test_influence_is_how_far_a_block_turns_its_input(family: Family):
    model = tiny_model(family, blocks=3, seed=1)
    found = block_influences(model, tiny_batches())
    sums, count = np.zeros(3), 0
    with torch.inference_mode():
        for batch in tiny_batches():
            core = getattr(model, model.base_model_prefix)
            inner: list[tuple[Tensor, Tensor]] = []
            names = Architecture.of(model).blocks
            handles = [
                model.get_submodule(name).register_forward_hook(
                    lambda _m, given, out, inner=inner: inner.append(
                        (given[0], out if torch.is_tensor(out) else out[0])
                    )
                )
                for name in names
            ]
            core(**batch)
            for handle in handles:
                handle.remove()
            for i, (before, after) in enumerate(inner):
                for row, length in enumerate(batch["attention_mask"].sum(1)):
                    for t in range(int(length)):
                        a, b = before[row, t].double(), after[row, t].double()
                        sums[i] += 1 - float(a @ b / a.norm() / b.norm())
            count += int(batch["attention_mask"].sum())
    np.testing.assert_allclose(found, sums / count, atol=1e-5)


@pytest.mark.parametrize("pattern", ["influence", "kl"])
def test_blocks_that_do_nothing_are_removed_first(pattern: str):
    teacher = tiny_model("bert", blocks=4)
    wanted = logits(teacher)
    longer = tiny_model("bert", blocks=4)
    assert torch.equal(logits(longer), wanted)
    for block in (longer.bert.encoder.layer[1], longer.bert.encoder.layer[2]):
        # what is left of the block is its last LayerNorm, which the one before it has done already
        for layer in (block.attention.output, block.output):
            layer.dense.weight.data.zero_()
            layer.dense.bias.data.zero_()
            layer.LayerNorm.weight.data.fill_(1)
            layer.LayerNorm.bias.data.zero_()
    student = student_from(f"layer_subset:{pattern}:2").build(longer, CALIBRATION)
    assert kept(longer, student.model) == [0, 3]


def test_by_kl_the_block_of_least_cost_is_removed_each_time():
    teacher = tiny_model("bert", blocks=3, seed=1)
    batches, wanted = tiny_batches(), predict_logits(teacher, tiny_batches())
    costs = {}
    for pair in ((0, 1), (0, 2), (1, 2)):
        student = LayerSubset(layers=pair).build(teacher, Resources()).model
        costs[pair] = float(categorical_kl(wanted, predict_logits(student, batches)).mean())
    best = LayerSubset(pattern="kl", count=2).build(teacher, CALIBRATION).model
    assert tuple(kept(teacher, best)) == min(costs, key=lambda pair: costs[pair])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0,0", "layers must be different numbers from 0 to 3, but got 0, 0"),
        ("0,4", "layers must be different numbers from 0 to 3, but got 0, 4"),
        ("0,1,2,3,4", "layers must be different numbers from 0 to 3"),
        ("top", "1 <= count <= 4 must hold for this teacher, but got count=None; give one such as top:2"),
        ("top:5", "1 <= count <= 4 must hold for this teacher, but got count=5"),
        ("odd:3", "count must be 2 for the odd ones of 4 blocks, but got count=3; leave it out, or give"),
    ],
)
def test_sizes_that_do_not_fit_the_teacher_are_refused(text: str, message: str):
    with pytest.raises(InvalidParameter, match=message):
        student_from(f"layer_subset:{text}").build(tiny_model("bert", blocks=4), Resources())


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("layer_subset", InvalidParameter, "must be KIND:SIZES, but got 'layer_subset'"),
        ("layer_subset:", InvalidParameter, "must be KIND:SIZES"),
        ("layer_subset:some", InvalidParameter, "pattern must be one of top, .*but got pattern='some'"),
        ("layer_subset:top:x", InvalidParameter, "must be PATTERN, PATTERN:COUNT or numbers, but got 'top:x'"),
        ("layer_subset:0,x", InvalidParameter, "must be one of|must be PATTERN"),
        ("layer_subset:top:0", InvalidParameter, "1 <= count must hold|count"),
        ("layer_subsets:odd", UnknownName, "the student must be a known name, .* did you mean layer_subset"),
    ],
)
def test_unknown_students_are_refused(text: str, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        student_from(text)


def test_measured_patterns_need_text():
    assert LayerSubset(pattern="influence", count=1).reads == {"calibration"}
    assert LayerSubset(pattern="odd").reads == frozenset()
    with pytest.raises(MissingResource, match="influence needs training text"):
        LayerSubset(pattern="influence", count=1).build(tiny_model("bert"), Resources())


def test_a_configuration_that_does_not_count_blocks_is_refused():
    model = tiny_model("bert")
    model.config.num_hidden_layers = 7
    with pytest.raises(InvalidModel, match=r"must be one block, but BertFor\w+ has num_hidden_layers=7"):
        keep_blocks(model, [0])


@pytest.mark.parametrize(
    "given",
    [{}, {"count": 2}, {"pattern": "top", "count": 1, "layers": (0,)}, {"layers": (0,), "count": 1}],
    ids=["nothing", "a count alone", "both", "a list with a count"],
)
def test_exactly_one_of_pattern_and_layers_is_required(given):
    with pytest.raises(InvalidParameter, match="either pattern, with count, or layers must be given, but got pattern="):
        LayerSubset(**given)
