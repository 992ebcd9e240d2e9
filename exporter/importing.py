"""Read a model that was trained elsewhere, and make it fit to be a part of ours.

What comes in is a file from a stranger: it is bounded, parsed, and refused unless it is standard ONNX that says all it
needs inside one file. What goes out computes the same with the opsets of our graphs (18 and ai.onnx.ml 5), pruned to
the one output that is asked for::

    foreign = read_foreign(OnnxSpec(Path("model.onnx"), output="score"))
    foreign.model                # from input "X" to output "score", ready to graft

Nothing outside the file is ever opened: tensors in other files are refused, not loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto
from onnx.checker import ValidationError
from onnx.inliner import inline_local_functions

from edge_runtime.contract.archive import DEFAULT_LIMITS
from exporter.errors import ConversionError, SpecError, did_you_mean
from exporter.graph.adaptation import adapt, opset_of
from exporter.graph.nodes import ML_DOMAIN, OPSET, every_node
from exporter.spec import OnnxSpec

# A device unpacks no larger bundle.
MOST_BYTES = DEFAULT_LIMITS.bundle_bytes
_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE)


@dataclass(frozen=True, slots=True, eq=False)
class ForeignModel:
    """A model from elsewhere.

    Attributes:
        name: Name of its file.
        digest: SHA-256 of the file in hex.
        content: The file.
        input: Name of its input.
        output: Name of the output that scores.
        shape: What the input takes without the batch: ``(F,)`` or ``(W, S)``.
        element: Type of the input's elements: FLOAT or DOUBLE of ``onnx.TensorProto``.
        batch: The batch that the file fixes, or None where it is free.
        model: The same from ``X`` to ``score``, for opset 18 and ai.onnx.ml 5, of any batch.
        notes: What was changed, in sentences for the report.
    """

    name: str
    digest: str
    content: bytes
    input: str
    output: str
    shape: tuple[int, ...]
    element: int
    batch: int | None
    model: onnx.ModelProto
    notes: tuple[str, ...]


def read_foreign(spec: OnnxSpec) -> ForeignModel:
    """Read, check and adapt a file.

    Args:
        spec: Path, input and output.

    Returns:
        The model.

    Raises:
        SpecError: The file cannot be read, is too large or no ONNX, or has no such input or output.
        ConversionError: It is ONNX, but cannot be a part of a graph of ours.
    """
    content = _read(spec.path)
    model = _parse(content, spec.path)
    _check_tensors(model, spec.path)
    _check_valid(model, spec.path)
    model = inline_local_functions(model)
    _check_operators(model, spec.path)
    entry = _input(model, spec)
    batch, shape = _sizes(entry, spec.path)
    output = _output(model, spec)
    notes = []
    version = opset_of(model)
    if version != OPSET:
        notes.append(f"{spec.path.name} was written for opset {version} and converted to {OPSET}.")
    if batch is not None:
        notes.append(f"{spec.path.name} was written for a batch of {batch}; the shipped graph takes any.")
    return ForeignModel(
        name=spec.path.name,
        digest=hashlib.sha256(content).hexdigest(),
        content=content,
        input=entry.name,
        output=output,
        shape=shape,
        element=entry.type.tensor_type.elem_type,
        batch=batch,
        model=adapt(model, entry=entry.name, output=output, shape=shape),
        notes=tuple(notes),
    )


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise SpecError(
            f"Cannot read the model {path}: {error.strerror}.", advice="Check its name.", path=str(path)
        ) from error
    if len(content) > MOST_BYTES:
        raise SpecError(
            f"{path} is larger than {MOST_BYTES >> 20} MiB, which no device takes.",
            advice="Export a smaller model.",
            path=str(path),
        )
    return content


def _parse(content: bytes, path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise _no_onnx(path) from error
    if not model.graph.node or not model.opset_import:  # other protobuf files parse as well, to next to nothing
        raise _no_onnx(path)
    return model


def _no_onnx(path: Path) -> SpecError:
    return SpecError(f"{path} is no ONNX model.", advice="Export one from the training library.", path=str(path))


def _refuse(path: Path, what: str, advice: str) -> ConversionError:
    return ConversionError(f"{path.name} {what}.", advice=advice, path=str(path))


def _check_tensors(model: onnx.ModelProto, path: Path) -> None:
    """Refuse tensors that lie in other files."""
    for tensor in _tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise _refuse(
                path,
                f"keeps its weights in another file ({tensor.name})",
                "Save it in one file: onnx.save_model(model, path, save_as_external_data=False).",
            )


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor: constants of graphs, and those in attributes."""
    nodes = [*every_node(model.graph.node), *(node for function in model.functions for node in function.node)]
    bodies = [
        body for node in nodes for one in node.attribute for body in ([one.g] if one.HasField("g") else one.graphs)
    ]
    for graph in (model.graph, *bodies):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in nodes:
        for attribute in node.attribute:
            yield from ([attribute.t] if attribute.HasField("t") else attribute.tensors)


def _check_operators(model: onnx.ModelProto, path: Path) -> None:
    foreign = sorted(
        {f"{node.domain}.{node.op_type}" for node in every_node(model.graph.node) if not _standard(node.domain)}
    )
    if foreign:
        raise _refuse(
            path,
            f"uses operators that are not standard ONNX ({', '.join(foreign[:5])})",
            "Devices run the standard operators and ai.onnx.ml; export the model without optimisations for a runtime.",
        )
    if model.graph.sparse_initializer:
        raise _refuse(path, "has sparse weights", "Export it with dense ones.")


def _standard(domain: str) -> bool:
    return domain in ("", "ai.onnx", ML_DOMAIN)


def _check_valid(model: onnx.ModelProto, path: Path) -> None:
    try:
        onnx.checker.check_model(model)
    except (ValidationError, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0]
        raise _refuse(path, f"breaks a rule of ONNX: {reason}", "Export it again.") from error


def _input(model: onnx.ModelProto, spec: OnnxSpec) -> onnx.ValueInfoProto:
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = {entry.name: entry for entry in model.graph.input if entry.name not in constants}
    if spec.input is not None and spec.input not in inputs:
        raise SpecError(f"{spec.path.name} has no input {spec.input!r}.", advice=did_you_mean(spec.input, inputs))
    if len(inputs) != 1:
        raise _refuse(
            spec.path,
            f"has {len(inputs)} inputs ({', '.join(inputs)}) where one is needed",
            "Export a model of one tensor [batch, features] or [batch, slots, signals].",
        )
    entry: onnx.ValueInfoProto = next(iter(inputs.values()))
    if not entry.type.HasField("tensor_type") or entry.type.tensor_type.elem_type not in _FLOATS:
        raise _refuse(
            spec.path, f"takes no float32 or float64 tensor as {entry.name}", "Export it with a float32 input."
        )
    return entry


def _sizes(entry: onnx.ValueInfoProto, path: Path) -> tuple[int | None, tuple[int, ...]]:
    """Return the batch (None when free) and the sizes of the rest."""
    tensor = entry.type.tensor_type
    sizes = [size.dim_value if size.HasField("dim_value") else None for size in tensor.shape.dim]
    if not tensor.HasField("shape") or len(sizes) not in (2, 3):
        raise _refuse(
            path,
            f"takes an input of {len(sizes)} dimensions",
            "Export it with [batch, features] or [batch, slots, signals].",
        )
    if None in sizes[1:]:
        raise _refuse(
            path,
            f"leaves open how many values {entry.name} has beside the batch",
            "Export it with a fixed number of features; only the batch is free.",
        )
    if sizes[0] not in (None, 1):
        raise _refuse(
            path,
            f"takes batches of exactly {sizes[0]}",
            "Export it with a free first dimension (dynamic_axes, or dynamic_shapes, of torch.onnx.export).",
        )
    return sizes[0], tuple(size for size in sizes[1:] if size is not None)


def _output(model: onnx.ModelProto, spec: OnnxSpec) -> str:
    outputs = {entry.name: entry for entry in model.graph.output}
    if spec.output is not None and spec.output not in outputs:
        raise SpecError(f"{spec.path.name} has no output {spec.output!r}.", advice=did_you_mean(spec.output, outputs))
    if spec.output is None and len(outputs) != 1:
        raise SpecError(
            f"{spec.path.name} has {len(outputs)} outputs.",
            advice=f"Name the one that scores with --output: {', '.join(outputs)}.",
        )
    entry = outputs[spec.output or next(iter(outputs))]
    if not entry.type.HasField("tensor_type"):
        raise _refuse(
            spec.path,
            f"gives {entry.name} as a sequence or map, and a score is a tensor",
            "Export it without ZipMap: zipmap=False of skl2onnx (options) and onnxmltools.",
        )
    if entry.type.tensor_type.elem_type not in _FLOATS:
        raise _refuse(
            spec.path,
            f"gives whole numbers or labels as {entry.name}",
            "Name an output of float scores or probabilities with --output.",
        )
    return str(entry.name)
