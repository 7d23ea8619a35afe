"""What an ONNX file says of the modules that it came from, attention as ONNX Runtime runs it fastest, small tables."""

import ast
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

__all__ = ["flat_attention", "nodes_below", "round_tables"]

SCOPES = "pkg.torch.onnx.name_scopes"
"""Under which torch's exporter keeps the modules around a node, outermost first."""
PREFIX = "model."
"""The exporter's module around the model."""


def nodes_below(model: "onnx.ModelProto", modules: Collection[str]) -> list[str]:
    """Return the names of the nodes that came from these modules."""
    found = []
    for node in model.graph.node:
        scopes = next((one.value for one in node.metadata_props if one.key == SCOPES), "[]")
        if any(scope.removeprefix(PREFIX) in modules for scope in ast.literal_eval(scopes)):
            found.append(node.name)
    return found


def flat_attention(path: Path) -> "onnx.ModelProto":
    """Return the model with attention that reads and writes (batch, length, width), not split into heads.

    torch splits queries, keys and values into heads by a reshape and a transpose each, and joins heads in the same way;
    the operator does both by itself, several times as fast. What does not look like that stays as it is.
    """
    import onnx

    model = onnx.load(path)
    graph = model.graph
    maker = {name: node for node in graph.node for name in node.output}
    readers = _readers(graph)
    shapes = {one.name: [size.dim_value for size in one.type.tensor_type.shape.dim] for one in graph.value_info}
    for node in graph.node:
        if node.op_type != "Attention" or len(shapes.get(node.input[0], ())) != 4:
            continue
        before = [_chain(maker, name, ("Transpose", "Reshape")) for name in node.input[:3]]
        joined = readers[node.output[0]]
        heads = [shapes.get(name, [0, 0])[1] for name in node.input[:2]]
        alike = all(chain and len(shapes.get(chain[-1].input[0], ())) == 3 for chain in before) and all(heads)
        if not alike or [one.op_type for one in joined] != ["Transpose"]:
            continue
        for i, chain in enumerate(before):
            node.input[i] = chain[-1].input[0]
        node.output[0] = joined[0].output[0]  # a reshape follows, which takes it as it is
        for kind, count in zip(("q", "kv"), heads, strict=True):
            node.attribute.append(onnx.helper.make_attribute(f"{kind}_num_heads", count))
        graph.node.remove(joined[0])
    _drop_unread(graph)
    del graph.value_info[:]  # shapes between nodes, which no longer hold
    return model


def round_tables(model: "onnx.ModelProto") -> None:
    """Store tables that rows are looked up in, such as word embeddings, in 8 bits with a scale for each row, in place.

    The rows that are read become float32 again, each value within half a step of what it was. Runtimes round products
    alone, and leave in 32 bits what is half of a small model's file.
    """
    import onnx
    from onnx import numpy_helper

    graph = model.graph
    readers = _readers(graph)
    for table in list(graph.initializer):
        name = table.name
        matrix = len(table.dims) == 2 and table.data_type == onnx.TensorProto.FLOAT
        if not matrix or not readers[name] or not all(_looks_up(node, name) for node in readers[name]):
            continue
        values = numpy_helper.to_array(table)
        steps = np.abs(values).max(axis=1, keepdims=True) / 127
        codes = np.rint(values / np.where(steps == 0, 1, steps)).astype(np.int8)
        parts = {f"{name}_codes": codes, f"{name}_steps": steps.astype(np.float32)}
        graph.initializer.remove(table)
        graph.initializer.extend(numpy_helper.from_array(own, part) for part, own in parts.items())
        for node in readers[name]:
            _look_up_codes(graph, node, list(parts))


def _readers(graph: Any) -> Mapping[str, list[Any]]:
    found: Mapping[str, list[Any]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            found[name].append(node)
    return found


def _looks_up(node: Any, table: str) -> bool:
    axis = next((one.i for one in node.attribute if one.name == "axis"), 0)
    return node.op_type == "Gather" and node.input[0] == table and axis == 0


def _look_up_codes(graph: Any, node: Any, parts: Sequence[str]) -> None:
    """Let a node look up codes and steps instead, and multiply them."""
    from onnx import TensorProto, helper

    ids, out = node.input[1], node.output[0]
    codes, steps = (f"{out}_{part}" for part in ("codes", "steps"))
    new = [
        helper.make_node("Gather", [parts[0], ids], [codes], f"{node.name}_codes"),
        helper.make_node("Gather", [parts[1], ids], [steps], f"{node.name}_steps"),
        helper.make_node("Cast", [codes], [f"{codes}_cast"], f"{node.name}_cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{codes}_cast", steps], [out], node.name),
    ]
    place = list(graph.node).index(node)
    graph.node.remove(node)
    for one in reversed(new):
        graph.node.insert(place, one)


def _chain(maker: Mapping[str, Any], name: str, kinds: Sequence[str]) -> list[Any]:
    """The nodes of these kinds that a value went through, last first; none if it did not."""
    found = []
    for kind in kinds:
        node = maker.get(name)
        if node is None or node.op_type != kind:
            return []
        found.append(node)
        name = node.input[0]
    return found


def _drop_unread(graph: Any) -> None:
    wanted = {one.name for one in graph.output}
    for node in reversed(list(graph.node)):
        if wanted.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            wanted.update(node.input)
