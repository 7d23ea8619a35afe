"""ONNX: write a model for any batch size and length, and rewrite the graph for runtimes.

`to_onnx` writes the file. `nodes_of` finds the nodes of some modules, `flat_attention` rewrites attention to the form
that ONNX Runtime runs fastest, and `quantize_embeddings` stores word embeddings in 8 bits. A file holds 2 GiB at most:
the weights of a larger model lie in a second file beside it, as external data.
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

from whet.errors import InvalidArtifact, InvalidModel, InvalidParameter
from whet.models.inference import example_batch, exported_outputs, kind_of_model
from whet.models.layers.quantized import Int8
from whet.utils.inputs import one_line

if TYPE_CHECKING:
    import onnx

__all__ = [
    "external_files",
    "flat_attention",
    "has_branches",
    "is_large",
    "nodes_of",
    "opset_of",
    "quantize_embeddings",
    "save_graph",
    "separate_weights",
    "to_onnx",
]

OPSET, WITHOUT_ROTARY = 23, 20
"""23 is the first with an attention operator; with rotary positions ONNX Runtime runs that for one example only."""
LARGE = 2**31 - 2**20
"""Bytes of weights that fit into one file."""
EXAMPLE = (2, 6)
"""Batch size and length of the inputs that the exporter traces."""
SCOPES = "pkg.torch.onnx.name_scopes"
"""The key of the metadata in which torch's exporter lists the modules around a node, outermost first."""
PREFIX = "model."
"""The name of the model within `_Outputs`."""


class _Outputs(nn.Module):
    """Returns tensors, as exporters need, instead of a transformers output."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(exported_outputs(self.model, dict(zip(self.names, inputs, strict=True))).values())


def to_onnx(model: nn.Module, names: Sequence[str], path: Path, *, opset: int | None = None) -> None:
    """Write a model as ONNX, from inputs of any batch size and length to the outputs of its kind.

    Args:
        model: in eval mode, on the CPU.
        names: the model's inputs, in the order of its arguments; each is (batch, length) int64.
        path: the file; the weights of a large model lie beside it.
        opset: the version of ONNX's operators; the newest that the model runs well in, if None.

    Raises:
        InvalidModel: ONNX cannot express the model, or the model has 8-bit products of PyTorch.
        InvalidParameter: the model needs an older opset.
    """
    if any(isinstance(module, Int8) for module in model.modules()):
        raise InvalidModel(
            "the model must compute in float, but got one with 8-bit products of PyTorch; export the model that it was "
            "made from, with --precision int8"
        )
    if reason := getattr(model, "not_exported", ""):
        raise InvalidModel(
            f"ONNX must be able to express the model, but {type(model).__name__} has {reason}; run it in PyTorch"
        )
    dynamic = torch.export.Dim.DYNAMIC
    example = example_batch(model, names, *EXAMPLE)
    rotary = any("rotary" in name.lower() for name, _ in model.named_modules())
    newest = WITHOUT_ROTARY if rotary else OPSET
    if opset is not None and opset > newest:
        raise InvalidParameter(
            f"opset <= {newest} must hold for a model with rotary positions, but got opset={opset}; leave it out"
        )
    # torch caches how it dispatches an LSTM; after one export the cache fixes the length of the next
    getattr(torch.ops.aten.lstm.input, "_dispatch_cache", {}).clear()
    try:
        # the exporter prints progress and warnings that users can do nothing about; without gradients, what layers do
        # for their gradients stays out of the graph
        with (
            torch.no_grad(),
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            _quiet("torch.onnx"),
        ):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _Outputs(model, names),
                tuple(example.values()),
                path,
                input_names=list(names),
                output_names=list(kind_of_model(model).outputs),
                dynamic_shapes=(tuple({0: dynamic, 1: dynamic} for _ in names),),
                opset_version=opset or newest,
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
            f"ONNX must be able to express the model, but torch says: {reason}; run it in PyTorch"
        ) from error
    _drop_notes(path)


def _drop_notes(path: Path) -> None:
    """Drop what torch's exporter notes of each node but its scopes: source lines with paths of this machine, mostly."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    for node in model.graph.node:
        notes = node.metadata_props
        for i in reversed(range(len(notes))):
            if notes[i].key != SCOPES:
                del notes[i]
    path.write_bytes(model.SerializeToString())


def nodes_of(model: "onnx.ModelProto", modules: Collection[str]) -> list[str]:
    """Return the names of the nodes that were exported from these modules or their submodules.

    Within a branch, as a cascade has, torch names no modules. There, products of three dimensions with a weight count,
    which are those of blocks: heads read one row of each example, and become another operator.
    """
    names = _products_in_branches(model.graph)
    for node in model.graph.node:
        scopes = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "[]")
        if any(scope.removeprefix(PREFIX) in modules for scope in ast.literal_eval(scopes)):
            names.append(node.name)
    return names


def has_branches(model: "onnx.ModelProto") -> bool:
    """Return whether parts of a graph run only if a condition holds."""
    return bool(_branches(model.graph))


def _products_in_branches(graph: Any) -> list[str]:
    weights = {table.name for table in graph.initializer}
    return [
        node.name
        for branch in _branches(graph)
        for node in branch.node
        if node.op_type == "MatMul" and node.input[1] in weights | {table.name for table in branch.initializer}
    ]


def separate_weights(model: "onnx.ModelProto") -> None:
    """Give products in branches weights of their own, in place, where equal ones were merged with others'.

    ONNX Runtime transposes the weight of each `Gemm` when it quantizes, which must not happen twice to one of them.
    """
    weights = {table.name: table for table in model.graph.initializer}
    for branch in _branches(model.graph):
        for node in branch.node:
            if node.op_type == "Gemm" and node.input[1] in weights:
                own = model.graph.initializer.add()
                own.CopyFrom(weights[node.input[1]])
                own.name = node.input[1] = f"{node.input[1]}_{node.name}"
    _drop_unread(model.graph)


def _branches(graph: Any) -> list[Any]:
    """The graphs of which a condition chooses one."""
    return [attribute.g for node in graph.node if node.op_type == "If" for attribute in node.attribute]


def flat_attention(path: Path) -> "onnx.ModelProto":
    """Return the model with attention on (batch, length, width) tensors instead of tensors split into heads.

    torch splits queries, keys and values into heads by a reshape and a transpose each, and joins the heads likewise.
    The attention operator can do both by itself, several times as fast. Other forms of attention stay as they are.
    """
    import onnx

    model = onnx.load(path)
    graph = model.graph
    producers = {name: node for node in graph.node for name in node.output}
    readers = _readers(graph)
    shapes = {info.name: [size.dim_value for size in info.type.tensor_type.shape.dim] for info in graph.value_info}
    for node in graph.node:
        if node.op_type != "Attention" or len(shapes.get(node.input[0], ())) != 4:
            continue
        before = [_chain(producers, name, ("Transpose", "Reshape")) for name in node.input[:3]]
        after = readers[node.output[0]]
        heads = [shapes.get(name, [0, 0])[1] for name in node.input[:2]]
        splits_heads = all(chain and len(shapes.get(chain[-1].input[0], ())) == 3 for chain in before) and all(heads)
        if not splits_heads or [reader.op_type for reader in after] != ["Transpose"]:
            continue
        for i, chain in enumerate(before):
            node.input[i] = chain[-1].input[0]
        node.output[0] = after[0].output[0]  # the reshape that follows changes nothing any more
        for kind, count in zip(("q", "kv"), heads, strict=True):
            node.attribute.append(onnx.helper.make_attribute(f"{kind}_num_heads", count))
        graph.node.remove(after[0])
    _drop_unread(graph)
    del graph.value_info[:]  # the shapes between nodes no longer hold
    return model


def quantize_embeddings(model: "onnx.ModelProto") -> None:
    """Store embedding tables in 8 bits with a scale for each row, in place.

    Rows become float32 again when they are looked up, each value within half a step of what it was. Runtimes quantize
    matrix products only, and would leave embeddings, half of a small model's file, in 32 bits.
    """
    import onnx
    from onnx import numpy_helper

    graph = model.graph
    readers: Mapping[str, list[tuple[Any, Any]]] = defaultdict(list)
    for part in (graph, *_branches(graph)):
        for read, nodes in _readers(part).items():
            readers[read] += [(part, node) for node in nodes]
    for table in list(graph.initializer):
        name = table.name
        is_matrix = len(table.dims) == 2 and table.data_type == onnx.TensorProto.FLOAT
        if not is_matrix or not readers[name] or not all(_looks_up(node, name) for _, node in readers[name]):
            continue
        values = numpy_helper.to_array(table)
        steps = np.abs(values).max(axis=1, keepdims=True) / 127
        codes = np.rint(values / np.where(steps == 0, 1, steps)).astype(np.int8)
        parts = {f"{name}_codes": codes, f"{name}_steps": steps.astype(np.float32)}
        graph.initializer.remove(table)
        graph.initializer.extend(numpy_helper.from_array(array, part) for part, array in parts.items())
        for part, node in readers[name]:
            _look_up_codes(part, node, list(parts))


def is_large(model: "onnx.ModelProto") -> bool:
    """Return whether a model is too large for one file."""
    return sum(len(table.raw_data) for table in model.graph.initializer) > LARGE


def save_graph(model: "onnx.ModelProto", path: Path) -> None:
    """Write a model; the weights of a large one go to a second file beside it, under the name that Optimum gives it."""
    import onnx

    if not is_large(model):
        onnx.save(model, path)
        return
    weights = path.with_name(f"{path.name}_data")
    weights.unlink(missing_ok=True)  # onnx would add to it
    onnx.save(model, path, save_as_external_data=True, location=weights.name, convert_attribute=True)


def opset_of(path: Path) -> int:
    """Return the version of ONNX's operators that a file needs."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    return max(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def external_files(path: Path) -> set[str]:
    """Return where the tensors lie that a file does not hold itself, as it says: names beside it, if it is honest.

    Raises:
        InvalidArtifact: it is no ONNX file.
    """
    import onnx
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf has its own
        raise InvalidArtifact(f"{path} must be an ONNX file, but {one_line(error)}; export the model again") from error
    return {ExternalDataInfo(tensor).location for tensor in _tensors(model) if uses_external_data(tensor)}


def _tensors(message: Any) -> Iterator[Any]:
    """Every tensor of a model: of the graph, of its nodes, of graphs inside them, of functions."""
    from onnx import TensorProto

    if isinstance(message, TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from _tensors(part)


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
    """The nodes that read each value, by its name."""
    readers: Mapping[str, list[Any]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    return readers


def _looks_up(node: Any, table: str) -> bool:
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
    return node.op_type == "Gather" and node.input[0] == table and axis == 0


def _look_up_codes(graph: Any, node: Any, parts: Sequence[str]) -> None:
    """Replace a look-up by look-ups of codes and steps, and their product."""
    from onnx import TensorProto, helper

    ids, out = node.input[1], node.output[0]
    codes, steps = (f"{out}_{part}" for part in ("codes", "steps"))
    replacements = [
        helper.make_node("Gather", [parts[0], ids], [codes], f"{node.name}_codes"),
        helper.make_node("Gather", [parts[1], ids], [steps], f"{node.name}_steps"),
        helper.make_node("Cast", [codes], [f"{codes}_cast"], f"{node.name}_cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{codes}_cast", steps], [out], node.name),
    ]
    position = list(graph.node).index(node)
    graph.node.remove(node)
    for replacement in reversed(replacements):
        graph.node.insert(position, replacement)


def _chain(producers: Mapping[str, Any], name: str, kinds: Sequence[str]) -> list[Any]:
    """The nodes of these kinds that produce a value, last first; none if others do."""
    nodes = []
    for kind in kinds:
        node = producers.get(name)
        if node is None or node.op_type != kind:
            return []
        nodes.append(node)
        name = node.input[0]
    return nodes


def _drop_unread(graph: Any) -> None:
    """Remove nodes and weights that no output depends on; ONNX Runtime warns of such weights at every session."""
    needed = {output.name for output in graph.output}
    for node in reversed(list(graph.node)):
        if needed.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            needed.update(_read_by(node))
    for i in reversed(range(len(graph.initializer))):
        if graph.initializer[i].name not in needed:
            del graph.initializer[i]


def _read_by(node: Any) -> Iterator[str]:
    """The names that a node reads, and the graphs inside it."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _read_by(inner)
