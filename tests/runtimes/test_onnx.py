import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from whet.runtimes._onnx import quantize_embeddings

TABLE = (
    np.random.default_rng(0).normal(size=(50, 12)).astype(np.float32) * np.linspace(0, 9, 50, dtype=np.float32)[:, None]
)


def looked_up(*, axis: int = 0, more: list[onnx.NodeProto] | None = None) -> onnx.ModelProto:
    """Rows of a table that two nodes look up, and what else is done with it."""
    nodes = [helper.make_node("Gather", ["table", "ids"], [out], f"{out}_node", axis=axis) for out in ("one", "two")]
    nodes.append(helper.make_node("Add", ["one", "two"], ["out"], "sum"))
    graph = helper.make_graph(
        [*nodes, *(more or [])],
        "graph",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["rows", "tokens"])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["rows", "tokens", 12])],
        [numpy_helper.from_array(TABLE, "table")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: onnx.ModelProto, ids: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"ids": ids})[0]


def test_rows_are_within_half_a_step_of_what_they_were():
    model, ids = looked_up(), np.arange(50).reshape(5, 10)
    quantize_embeddings(model)
    error = np.abs(run(model, ids) / 2 - TABLE[ids])
    steps = np.abs(TABLE).max(axis=1) / 127
    assert error.max() > 0 and (error <= 0.501 * steps[ids][..., None]).all()
    assert (run(model, np.zeros((1, 1), np.int64)) == 0).all(), "a row of zeros stays one"


def test_a_table_is_stored_once_and_in_8_bits():
    model = looked_up()
    whole = model.ByteSize()
    quantize_embeddings(model)
    kinds = {one.name: (one.data_type, list(one.dims)) for one in model.graph.initializer}
    assert kinds == {"table_codes": (TensorProto.INT8, [50, 12]), "table_steps": (TensorProto.FLOAT, [50, 1])}
    assert model.ByteSize() < whole - 50 * (3 * 12 - 4) + 1000


@pytest.mark.parametrize(
    "other",
    [
        {"axis": 1},
        {"more": [helper.make_node("Transpose", ["table"], ["turned"], "turn")]},
        {"more": [helper.make_node("Gather", ["ids", "table"], ["odd"], "odd")]},
    ],
    ids=["columns", "read by others", "no table"],
)
def test_what_is_no_table_alone_stays_as_it_is(other):
    model = looked_up(**other)
    before = model.SerializeToString(deterministic=True)
    quantize_embeddings(model)
    assert model.SerializeToString(deterministic=True) == before
