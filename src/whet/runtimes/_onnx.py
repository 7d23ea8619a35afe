"""A model as one ONNX file for any batch size and length, and how that file is made ready for runtimes.

`to_onnx` writes it. `nodes_below` tells which nodes came from which modules of the model, `flat_attention` rewrites
attention as ONNX Runtime runs it fastest, `round_tables` stores word embeddings in 8 bits.
"""

import ast
import contextlib
import io
import logging
import warnings
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from whet.errors import InvalidModel
from whet.models.inference import example_batch
from whet.models.layers.quantized import Int8

if TYPE_CHECKING:
    import onnx

__all__ = ["flat_attention", "nodes_below", "round_tables", "to_onnx"]

OPSET, WITHOUT_ROTARY = 23, 20
"""23 is the first with attention as one operator; its rotary positions run in ONNX Runtime for one example alone."""
EXAMPLE = (2, 6)
"""Examples and tokens of the inputs that the exporter follows through the model."""
SCOPES = "pkg.torch.onnx.name_scopes"
"""Under which torch's exporter keeps the modules around a node, outermost first."""
PREFIX = "model."
"""The exporter's module around the model."""


class _Logits(nn.Module):
    """Gives a tensor, as exporters want."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *inputs: Tensor) -> Tensor:
        logits: Tensor = self.model(**dict(zip(self.names, inputs, strict=True))).logits
        return logits


def to_onnx(model: nn.Module, names: Sequence[str], path: Path) -> None:
    """Write a model that gives `logits` of inputs of any batch size and length.

    Args:
        model: in eval mode, on the CPU.
        names: of its inputs, in the order of the model's arguments.
        path: the file.

    Raises:
        InvalidModel: something in it has no form in ONNX, or it multiplies 8-bit numbers in PyTorch.
    """
    if any(isinstance(module, Int8) for module in model.modules()):
        raise InvalidModel(
            "the model must multiply in float, but got one that is already quantized for PyTorch; export the model "
            "that it was made from, with --precision int8"
        )
    moving = torch.export.Dim.DYNAMIC
    example = example_batch(model, names, *EXAMPLE)
    rotary = any("rotary" in name.lower() for name, _ in model.named_modules())
    # once an export went through it, torch keeps a way to run an LSTM that fixes the length of the next one
    getattr(torch.ops.aten.lstm.input, "_dispatch_cache", {}).clear()
    try:
        # (the exporter reports on standard output and warns of what concerns nobody here; what layers do for their
        # gradients is no part of the model)
        with (
            torch.no_grad(),
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            _quiet("torch.onnx"),
        ):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _Logits(model, names),
                tuple(example.values()),
                path,
                input_names=list(names),
                output_names=["logits"],
                dynamic_shapes=(tuple({0: moving, 1: moving} for _ in names),),
                opset_version=WITHOUT_ROTARY if rotary else OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        root: BaseException = error
        while root.__cause__ is not None:
            root = root.__cause__
        reason = " ".join(str(root).split())[:300]
        raise InvalidModel(
            f"the model must have a form in ONNX, but torch says: {reason}; run it in PyTorch"
        ) from error


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


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


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
