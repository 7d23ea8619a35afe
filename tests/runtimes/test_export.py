"""Exports; of families and precisions that take a conversion each, some stand for all (see `covering`)."""

import functools
import itertools
import json
import shutil
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch

from covering import covering
from folders import classifier, save, tree, write_rows
from helpers import FAMILIES, Family, tiny_batches, tiny_model
from whet.api.exporting import export
from whet.calibration.resources import Resources
from whet.errors import (
    InvalidArtifact,
    InvalidModel,
    InvalidParameter,
    MissingResource,
    OutputExists,
    UnknownName,
)
from whet.evaluation import records
from whet.methods.clustering.kmeans import KMeans
from whet.methods.factorization.attention import NarrowAttention
from whet.methods.factorization.kfac import Kfac
from whet.methods.factorization.shared_qkv import SharedQkv
from whet.methods.factorization.svd import Svd
from whet.methods.pruning.magnitude import Magnitude
from whet.methods.recipe import Recipe
from whet.models import artifact
from whet.models.architecture import dense_layers_in_blocks
from whet.models.inference import input_names
from whet.models.layers.low_rank import LowRank
from whet.run.sessions import Session
from whet.runtimes._onnx import flat_attention, to_onnx
from whet.runtimes.base import SHAPES, Conversion, agreement_with, export_runtimes, runtime_named
from whet.tasks.own_data import task_from_files
from whet.training.students.base import student_from
from whet.utils.outputs import adding_to
from whet.utils.precision import FP32, INT8, STATIC_INT8

small = functools.partial(tiny_model, blocks=1)
"""torch takes seconds to export a block, and all blocks are alike."""
RUNTIMES = sorted(export_runtimes())


def saved(model, tokenizer, folder: Path) -> Path:
    records.save_model(model, tokenizer, folder, recipe=[], origin="tiny", seed=0)
    return folder


def logits(folder: Path, name: str, batch) -> np.ndarray:
    return runtime_named(name).open(folder, threads=1)(batch)["logits"]


every_family = pytest.mark.parametrize(
    "family", [name if name in ("bert", "llama") else pytest.param(name, marks=pytest.mark.full) for name in FAMILIES]
)
"""An encoder and a decoder stand for all."""


@every_family
def test_every_family_gives_its_own_answers(family: Family, tmp_path, tokenizer):
    model = small(family)
    folder = saved(model, tokenizer, tmp_path / "m")
    found = export(folder, RUNTIMES)
    assert list(found) == [(name, FP32) for name in RUNTIMES]
    for (name, precision), agreement in found.items():
        assert agreement.largest_difference < 1e-4 and agreement.equal_predictions == 1
        assert agreement.shapes == SHAPES and agreement.precision == "fp32"
        entry = artifact.exported(folder, name)
        assert entry.largest_difference == agreement.largest_difference and entry.precision == "fp32"
        assert set(entry.files) == set(export_runtimes()[name].precisions[precision])
        for batch in tiny_batches(seed=5, batch_size=3):
            with torch.no_grad():
                np.testing.assert_allclose(logits(folder, name, batch), model(**batch).logits, atol=1e-4)
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]


COMPRESSED = {
    "factored": Recipe((Svd(keep=0.5),)),
    "narrower heads": Recipe((NarrowAttention(keep=0.5),)),
    "pruned and clustered": Recipe((Magnitude(sparsity=0.5, include="*.0.*"), KMeans(n_clusters=16))),
    "shared and factored": Recipe((SharedQkv(keep=0.5), Kfac(keep=0.5))),
}


@pytest.mark.parametrize(
    "kind",
    [
        name if name in ("narrower heads", "shared and factored") else pytest.param(name, marks=pytest.mark.full)
        for name in COMPRESSED
    ],
)
def test_compressed_models_give_their_own_answers(kind: str, tmp_path, tokenizer):
    model = COMPRESSED[kind].apply(small("bert"), Resources(calibration=tiny_batches()))
    found = export(saved(model, tokenizer, tmp_path / "m"), RUNTIMES)
    assert all(agreement.largest_difference < 1e-4 for agreement in found.values())


def test_recurrent_students_give_their_own_answers_one_after_the_other(tmp_path, tokenizer):
    for i, text in enumerate(("bilstm:16", "lstm:16:mean")):
        model = student_from(f"recurrent:{text}").build(classifier(blocks=1), Resources()).model
        found = export(saved(model, tokenizer, tmp_path / str(i)), RUNTIMES)
        assert all(agreement.largest_difference < 1e-4 for agreement in found.values()), text


def test_an_elman_network_is_answered_and_nothing_is_written(tmp_path, tokenizer):
    """torch's exporter fixes its length."""
    model = student_from("recurrent:rnn:8").build(classifier(blocks=1), Resources()).model
    folder = saved(model, tokenizer, tmp_path / "m")
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(
        InvalidModel, match=r"ONNX must be able to express the model, but torch says: .*static shape of 6.*; run it in"
    ):
        export(folder, ["onnxruntime"])
    assert sorted(path.name for path in folder.iterdir()) == before


def test_the_file_runs_in_plain_onnxruntime(tmp_path, tokenizer):
    """The layout that Optimum reads: model.onnx beside config.json, inputs by the tokenizer's names, logits."""
    folder = saved(classifier(blocks=1), tokenizer, tmp_path / "m")
    assert export(folder, ["onnx"]).keys() == {("onnxruntime", FP32)}
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    assert {one.name for one in session.get_inputs()} <= set(tokenizer.model_input_names)
    assert [one.name for one in session.get_outputs()] == ["logits"]
    assert (folder / "config.json").is_file()


@pytest.fixture
def folder(tmp_path, tokenizer) -> Path:
    return saved(classifier(blocks=1), tokenizer, tmp_path / "m")


def test_the_model_is_the_same_after_an_export(folder):
    before = artifact.model_digest(folder)
    export(folder, ["onnxruntime"])
    assert artifact.model_digest(folder) == before
    artifact.verify(folder)
    again = export(folder, ["onnxruntime"])["onnxruntime", FP32]
    assert artifact.exported(folder, "onnxruntime").largest_difference == again.largest_difference


def test_there_is_one_export_at_a_time_and_it_removes_what_a_kill_left(folder):
    before = tree(folder)
    with ThreadPoolExecutor(1) as other, adding_to(folder):
        (folder / ".export.partial" / "onnxruntime").mkdir(parents=True)
        with pytest.raises(OutputExists, match=r"must have one writer, but process \d+ is writing .*m; wait for it"):
            other.submit(export, folder, ["onnxruntime"]).result()
    assert export(folder, ["onnxruntime"])
    assert tree(folder).keys() - before.keys() == {"model.onnx"} and not (folder / ".export.partial").exists()


def test_an_export_that_does_not_belong_to_the_weights_is_answered(folder, tmp_path, tokenizer):
    with pytest.raises(InvalidArtifact, match=r"must hold an export for onnxruntime in fp32, but it has none; whet ex"):
        artifact.exported(folder, "onnxruntime")
    export(folder, ["onnxruntime"])
    other = saved(small("bert", seed=3), tokenizer, tmp_path / "other")
    export(other, ["onnxruntime"])
    shutil.copy(other / "model.onnx", folder / "model.onnx")
    with pytest.raises(
        InvalidArtifact, match=r"belong to the weights beside it, but .* holds model.onnx that does not"
    ):
        artifact.exported(folder, "onnxruntime")
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["files"]["config.json"] = "0" * 64
    (other / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InvalidArtifact, match="holds another model that does not"):
        artifact.exported(other, "onnxruntime")


def test_a_runtime_that_is_named_twice_is_exported_for_once(folder):
    assert list(export(folder, ["onnx", "onnxruntime", "onnx"], precisions=[FP32, FP32])) == [("onnxruntime", FP32)]


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_two_exports_of_a_model_are_the_same_bytes(runtime: str, folder, task):
    files = []
    for _ in range(2):
        export(folder, [runtime], precisions=[FP32, INT8], task=task)
        entries = [artifact.exported(folder, runtime, precision) for precision in (FP32, INT8)]
        files.append({name: known for entry in entries for name, known in entry.files.items()})
    assert len(files[0]) >= 2 and files[0] == files[1]


def test_older_runtimes_read_an_older_opset(folder):
    for opset, least in ((None, ">=1.23"), (20, ">=1.18")):
        export(folder, ["onnxruntime"], opset=opset)
        entry = artifact.exported(folder, "onnxruntime").to_dict()
        assert (entry["opset"], entry["onnxruntime"]) == (opset or 23, least)
        assert onnx.load(folder / "model.onnx").opset_import[0].version == entry["opset"]
    for opset in (17, 24):
        with pytest.raises(
            InvalidParameter, match=rf"18 <= opset <= 23 must hold, but got opset={opset}; leave it out"
        ):
            export(folder, ["onnxruntime"], opset=opset)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_large_model_has_its_weights_in_a_second_file(runtime: str, tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr("whet.runtimes._onnx.LARGE", 100)
    monkeypatch.setattr("torch.onnx._internal.exporter._onnx_program._LARGE_MODEL_THRESHOLD", 100)
    folder = saved(small("bert", seed=11), tokenizer, tmp_path / "m")
    [found] = export(folder, [runtime]).values()
    assert found.largest_difference < 1e-4
    batch = tiny_batches().batches[0]
    np.testing.assert_allclose(
        logits(folder, runtime, batch), small("bert", seed=11)(**batch).logits.detach(), atol=1e-4
    )
    if runtime == "onnxruntime":
        assert artifact.exported(folder, runtime).files.keys() == {"model.onnx", "model.onnx_data"}
        assert (folder / "model.onnx_data").stat().st_mode == (folder / "config.json").stat().st_mode
        inside = onnx.load(folder / "model.onnx", load_external_data=False).graph.initializer
        assert max(len(table.raw_data) for table in inside) < 2000
        [other] = export(folder, [runtime], precisions=[INT8]).values()
        assert 0 < other.largest_difference < 1
        with (folder / "model.onnx_data").open("r+b") as file:
            file.write(b"x")
        with pytest.raises(InvalidArtifact, match=r"holds model.onnx_data that does not"):
            runtime_named(runtime).files(folder)


def with_export(folder: Path, content: bytes, others: dict[str, bytes]) -> Path:
    """An artifact whose manifest says that an export is right."""
    for name, data in {"model.onnx": content, **others}.items():
        (folder.parent / name).write_bytes(data)
    artifact.add_export(folder, "onnxruntime", FP32, [folder.parent / name for name in ("model.onnx", *others)], {})
    return folder


@pytest.mark.parametrize("place", ["../weights", "/tmp/weights", "beside", "model.onnx_data"])
def test_a_session_reads_only_files_of_its_export(place: str, folder):
    weight = onnx.TensorProto(name="w", data_type=1, dims=[2], data_location=onnx.TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=place)
    node = onnx.helper.make_node("Constant", [], ["logits"], value=weight)
    out = onnx.helper.make_tensor_value_info("logits", 1, [2])
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], [out]))
    (folder / "beside").write_bytes(bytes(8))
    listed = {place: bytes(8)} if place == "model.onnx_data" else {}
    with_export(folder, model.SerializeToString(), listed)
    if listed:
        assert len(runtime_named("onnxruntime").files(folder)) == 2
    else:
        with pytest.raises(InvalidArtifact, match=rf"must read only files of its own, but .* reads '{place}', which"):
            runtime_named("onnxruntime").files(folder)


@pytest.mark.parametrize("content", [b"", b"\x08\x07", b"not ONNX at all"])
def test_an_export_that_cannot_be_opened_is_refused(content: bytes, folder):
    """Its digest is right, so that somebody else made it."""
    with_export(folder, content, {})
    with pytest.raises(
        InvalidArtifact, match=r"onnxruntime must be able to open its export, but .* says: .*; whet exp"
    ):
        runtime_named("onnxruntime").load(torch.nn.Linear(1, 1), folder, threads=1)


def test_other_answers_are_an_error_and_nothing_is_written(folder, monkeypatch):
    before = sorted(path.name for path in folder.iterdir())
    monkeypatch.setattr("whet.runtimes.export.TOLERANCE", 0.0)
    with pytest.raises(
        InvalidModel, match=r"must give the model's own answers to 0, but at \d+ x \d+ they differ by .*; no"
    ):
        export(folder, ["onnxruntime"])
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_difference_is_told_with_its_shape():
    model = small("bert")
    honest = Scaled(model, [])
    assert agreement_with(model, honest, NAMES, runtime="x").largest_difference == 0
    with pytest.raises(InvalidModel, match=r"at 3 x 16 they differ by 0\.02; nothing was written"):
        agreement_with(model, Scaled(model, [0, 0, 2e-2]), NAMES, runtime="x")


NAMES = ["input_ids", "attention_mask"]


class Scaled(Session):
    """The model itself, off by so much at each call."""

    precision = "fp32"

    def __init__(self, model, off):
        self.model, self.off = model, list(off)

    def run(self, inputs):
        with torch.inference_mode():
            batch = {name: torch.from_numpy(values) for name, values in inputs.items()}
            return {"logits": self.model(**batch).logits.numpy() + (self.off.pop(0) if self.off else 0)}


def test_a_runtime_that_fails_at_a_shape_is_named(folder, monkeypatch):
    before = sorted(path.name for path in folder.iterdir())
    monkeypatch.setattr(export_runtimes()["onnxruntime"], "open", lambda *_, **__: Refusing())
    with pytest.raises(
        InvalidModel, match=r"onnxruntime must run .* but it fails at 1 x 3: no such shape; use another"
    ):
        export(folder, ["onnxruntime"])
    assert sorted(path.name for path in folder.iterdir()) == before


class Refusing(Session):
    precision = "fp32"

    def run(self, inputs):
        raise RuntimeError("no such shape")


def test_bad_input_is_answered(folder, tmp_path, monkeypatch):
    with pytest.raises(
        UnknownName, match=r"the runtime must be a known name, but got 'onnxrun'; did you mean onnxruntime"
    ):
        export(folder, ["onnxrun"])
    (tmp_path / "plain").mkdir()
    with pytest.raises(InvalidArtifact, match=r"without out, the folder must be one that whet wrote, but got"):
        export(tmp_path / "plain", ["onnxruntime"])
    monkeypatch.setattr(export_runtimes()["openvino"], "package", "no_such_package")
    with pytest.raises(InvalidParameter, match=r"not installed; pip install 'whet\[openvino\]'"):
        export(folder, ["openvino"])


def test_inputs_are_those_that_model_and_tokenizer_share():
    assert input_names(small("distilbert"), ["input_ids", "token_type_ids", "attention_mask"]) == [
        "input_ids",
        "attention_mask",
    ]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_folder_may_have_any_name(runtime: str, tmp_path, tokenizer):
    folder = saved(small("bert"), tokenizer, tmp_path / "half, then 8 bits: 100 % {as it was}")
    assert list(export(folder, [runtime])) == [(runtime, FP32)]


@pytest.fixture
def task(tmp_path):
    return task_from_files(write_rows(tmp_path / "train.csv", 120), text="text")


@every_family
def test_products_of_the_blocks_are_in_8_bits_and_no_others(family: Family, tmp_path, tokenizer):
    folder = saved(small(family), tokenizer, tmp_path / "m")
    found = export(folder, ["onnxruntime"], precisions=[INT8])["onnxruntime", INT8]
    assert found.precision == "int8" and found.kl is None and 0 < found.largest_difference < 1
    graph = onnx.load(folder / "model_quantized.onnx").graph
    kinds = Counter(node.op_type for node in graph.node)
    assert kinds["MatMulInteger"] == len(dense_layers_in_blocks(small(family)))
    assert kinds["MatMul"] + kinds["Gemm"] >= 1  # the head
    assert kinds["QAttention"] == 0
    assert artifact.exported(folder, "onnxruntime", INT8).precision == "int8"
    with pytest.raises(InvalidArtifact, match="for onnxruntime in fp32, but it has none"):
        artifact.exported(folder, "onnxruntime")


@pytest.mark.parametrize(
    ("family", "precision"),
    covering(
        [*((family, INT8) for family in FAMILIES), ("bert", STATIC_INT8)], lambda case: case[0] in ("bert", "llama")
    ),
)
def test_word_embeddings_are_in_8_bits(family: Family, precision: str, tmp_path, monkeypatch):
    """They are most of a small model, and runtimes would leave them in 32; no temporary folder may outlive a kill."""
    model = small(family)
    to_onnx(model, NAMES, tmp_path / "m.onnx")
    shape = list(model.get_input_embeddings().weight.shape)
    conversion = Conversion(tmp_path / "m.onnx", precision, tiny_batches().batches[:1], dense_layers_in_blocks(model))
    made, mkdtemp = [], tempfile.mkdtemp
    monkeypatch.setattr(
        tempfile, "mkdtemp", lambda *names, **more: made.append((names, more)) or mkdtemp(*names, **more)
    )
    runtime_named("onnxruntime").convert(conversion, tmp_path)
    assert not made
    graph = onnx.load(next(tmp_path.glob("*quantized.onnx"))).graph
    kinds = [one.data_type for one in graph.initializer if list(one.dims) == shape]
    assert kinds == [onnx.TensorProto.INT8]
    if precision == INT8:
        runtime_named("openvino").convert(conversion, tmp_path)
        operations = openvino.Core().read_model(tmp_path / "openvino_model_int8.xml").get_ops()
        held = [one.get_output_element_type(0).get_type_name() for one in operations if is_constant(one, shape)]
        assert held == ["i8"]


def is_constant(operation: openvino.Node, shape: list[int]) -> bool:
    return operation.get_type_name() == "Constant" and list(operation.get_output_shape(0)) == shape


def is_chosen(case: tuple[Family, int | None]) -> bool:
    """Two counts with BERT, and one with Llama."""
    return case in (("bert", None), ("bert", 3), ("llama", 3))


@pytest.mark.parametrize(("family", "count"), covering(itertools.product(FAMILIES, (None, 3, 0)), is_chosen))
def test_openvino_rounds_the_layers_that_are_chosen_and_nothing_else(family: Family, count: int | None, tmp_path):
    """Each has its weight in 8 bits, and attention and the head have none."""
    model = small(family)
    to_onnx(model, NAMES, tmp_path / "m.onnx")
    chosen = dense_layers_in_blocks(model)[:count]
    assert rounded_by_openvino(chosen, tmp_path) == Counter(MatMul=len(chosen))


def rounded_by_openvino(chosen: tuple[str, ...], folder: Path) -> Counter[str]:
    """Count the operations that read something rounded, by their kind."""
    runtime_named("openvino").convert(Conversion(folder / "m.onnx", INT8, tiny_batches().batches[:1], chosen), folder)
    return Counter(
        one.get_node().get_type_name()
        for operation in openvino.Core().read_model(folder / "openvino_model_int8.xml").get_ops()
        if operation.get_type_name() == "FakeQuantize"
        for one in operation.output(0).get_target_inputs()
    )


def test_what_a_precision_needs_is_asked_for_before_any_work(folder, task, monkeypatch):
    monkeypatch.setattr("whet.runtimes.export.artifact.load_with_tokenizer", lambda _: pytest.fail("work had begun"))
    monkeypatch.setattr(export_runtimes()["openvino"], "converters", {INT8: "no_such_package"})
    with pytest.raises(
        InvalidParameter, match=r"openvino needs the package no_such_package, .*install 'whet\[openvino"
    ):
        export(folder, ["openvino"], precisions=[INT8], task=task)


def test_recurrent_students_run_in_8_bits(tmp_path, tokenizer):
    model = student_from("recurrent:bilstm:16").build(classifier(blocks=1), Resources()).model
    found = export(saved(model, tokenizer, tmp_path / "m"), ["onnxruntime"], precisions=[INT8])
    kinds = {node.op_type for node in onnx.load(tmp_path / "m" / "model_quantized.onnx").graph.node}
    assert "DynamicQuantizeLSTM" in kinds and found["onnxruntime", INT8].largest_difference < 0.5


def test_factors_are_in_8_bits_too(tmp_path, tokenizer):
    model = Recipe((Svd(keep=0.5),)).apply(small("bert"), Resources())
    export(saved(model, tokenizer, tmp_path / "m"), ["onnxruntime"], precisions=[INT8])
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "m" / "model_quantized.onnx").graph.node)
    assert kinds["MatMulInteger"] == len(dense_layers_in_blocks(model)) > len(dense_layers_in_blocks(small("bert")))


@pytest.mark.parametrize(("runtime", "precision"), [("onnxruntime", STATIC_INT8), ("openvino", INT8)])
def test_ranges_come_from_calibration_data(runtime: str, precision: str, folder, task):
    with pytest.raises(
        MissingResource, match=rf"{runtime} needs calibration data for {precision}, but got none; give --task"
    ):
        export(folder, [runtime], precisions=[precision])
    found = export(folder, [runtime], precisions=[precision], task=task)[runtime, precision]
    assert found.precision == precision and found.equal_predictions > 0.7
    assert found.kl is not None and 0 < found.kl < 0.05
    assert artifact.exported(folder, runtime, precision).kl == found.kl


@pytest.mark.parametrize(("runtime", "precision"), [("onnxruntime", INT8), ("openvino", INT8)])
def test_factors_of_unequal_size_lose_no_more_than_equal_ones(runtime: str, precision: str, task, tmp_path, tokenizer):
    """Components that are large in one factor and small in the other would leave the small ones no bits."""
    model = Svd(keep=0.8).apply(classifier(blocks=1), Resources())
    kl = []
    for spread in (1, 1000):
        for layer in (one for one in model.modules() if isinstance(one, LowRank)):
            sizes = torch.logspace(-1, 1, layer.rank, base=spread)
            layer.u.weight.data *= sizes
            layer.v.weight.data /= sizes[:, None]
        folder = saved(model, tokenizer, tmp_path / str(spread))
        kl.append(export(folder, [runtime], precisions=[precision], task=task)[runtime, precision].kl)
    assert kl[1] < 1.5 * kl[0]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_empty_batch_is_refused(runtime: str, folder):
    export(folder, [runtime])
    with pytest.raises(InvalidParameter, match=r"must hold a token at least, but got input_ids, .* without any"):
        logits(folder, runtime, {name: torch.zeros(0, 5, dtype=torch.int64) for name in NAMES})


def test_layers_that_cost_too_much_stay_in_fp32(folder, task):
    free = export(folder, ["onnxruntime"], precisions=[INT8], task=task)["onnxruntime", INT8]
    assert free.in_fp32 == ()
    strict = export(folder, ["onnxruntime"], precisions=[INT8], task=task, max_kl=free.kl / 3)["onnxruntime", INT8]
    assert strict.kl <= free.kl / 3
    assert strict.in_fp32
    kinds = Counter(node.op_type for node in onnx.load(folder / "model_quantized.onnx").graph.node)
    assert kinds["MatMulInteger"] == len(dense_layers_in_blocks(small("bert"))) - len(strict.in_fp32)
    with pytest.raises(InvalidParameter, match=r"0 < max_kl <= 10000 must hold, but got max_kl=0"):
        export(folder, ["onnxruntime"], precisions=[INT8], task=task, max_kl=0)
    with pytest.raises(MissingResource, match=r"max_kl needs held-out training data, but got none; give --task"):
        export(folder, ["onnxruntime"], precisions=[INT8], max_kl=1)


def test_a_runtime_takes_the_precisions_that_it_knows(folder):
    with pytest.raises(
        InvalidParameter, match=r"onnxruntime must know the precision, but got bf16; it knows fp32, int8, static_int8"
    ):
        export(folder, ["onnxruntime"], precisions=["bf16"])
    with pytest.raises(UnknownName, match="did you mean static_int8"):
        export(folder, RUNTIMES, precisions=[FP32, "static"])
    found = export(folder, RUNTIMES)
    assert list(found) == [("onnxruntime", FP32), ("openvino", FP32)]


def test_bf16_is_refused_where_the_processor_has_none(folder, monkeypatch):
    monkeypatch.setattr("openvino.Core.get_property", lambda *_: ["FP32", "INT8"])
    monkeypatch.setattr("whet.runtimes.export.artifact.load_with_tokenizer", lambda _: pytest.fail("work had begun"))
    with pytest.raises(
        InvalidParameter, match=r"must have bf16 instructions, but this one has none, .*; leave bf16 out"
    ):
        export(folder, ["openvino"], precisions=["bf16"])
    assert not (folder / "openvino_model.xml").exists()


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "gpt2"])
def test_attention_is_read_without_splitting_heads(family: Family, tmp_path):
    model = small(family)
    to_onnx(model, NAMES, tmp_path / "m.onnx")
    flat = flat_attention(tmp_path / "m.onnx").graph
    own = [node for node in flat.node if node.op_type == "Attention"]
    assert len(own) == 1
    assert all({"q_num_heads", "kv_num_heads"} <= {one.name for one in node.attribute} for node in own)
    assert {table.name for table in flat.initializer} <= {name for node in flat.node for name in node.input}
    before = Counter(node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node)
    assert before["Transpose"] - sum(node.op_type == "Transpose" for node in flat.node) == 4


def test_a_folder_of_others_is_exported_into_a_copy(task, tmp_path, tokenizer):
    """The copy is an artifact with the model's answers; the original stays as it is, and a failure leaves nothing."""
    foreign = save(classifier(blocks=1), tokenizer, tmp_path / "foreign")
    before, out = tree(foreign), tmp_path / "config.json"  # which is also the name of a file in it
    found = export(foreign, ["onnxruntime"], precisions=[FP32, INT8], out=out)
    assert list(found) == [("onnxruntime", FP32), ("onnxruntime", INT8)]
    assert tree(foreign) == before
    artifact.verify(out)
    for precision in (FP32, INT8):
        assert runtime_named("onnxruntime").files(out, precision)
    assert "# config.json" in (out / "README.md").read_text().splitlines() and not list(out.glob(".*"))
    again = export(out, ["openvino"], out=tmp_path / "again")
    assert list(again) == [("openvino", FP32)] and not (tmp_path / "again" / "model.onnx").exists()
    assert artifact.model_digest(tmp_path / "again") == artifact.model_digest(out)
    with pytest.raises(OutputExists, match=r"must be new or empty, but .*again holds files"):
        export(foreign, ["onnxruntime"], out=tmp_path / "again")
    with pytest.raises(OutputExists, match=r"must be one of its own, but got .*foreign, which holds"):
        export(foreign, ["onnxruntime"], out=foreign, overwrite=True)
    assert tree(foreign) == before


def test_an_export_that_fails_leaves_no_copy(tmp_path, tokenizer, monkeypatch):
    foreign = save(classifier(blocks=1), tokenizer, tmp_path / "foreign")
    monkeypatch.setattr("whet.runtimes.export.TOLERANCE", 0.0)
    with pytest.raises(InvalidModel, match=r"must give the model's own answers to 0"):
        export(foreign, ["onnxruntime"], out=tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["foreign"]
