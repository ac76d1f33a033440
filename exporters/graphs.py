"""From torch modules to ONNX graphs that take any batch and any history length.

The graphs depend on the models alone: names of dimensions are ours, and the exporter's traces (file paths,
source lines) are removed, so that the same run always gives the same bytes.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from exporters.errors import GraphError
from exporters.models import HookedRecommender, SparseCoder

OPSET = 20

# Protobuf's own limit for one message, and so for one ONNX file with its weights inside.
MAX_GRAPH_BYTES = 2**31 - 1

_INPUTS_AND_OUTPUTS = {
    "encoder": (("items", "mask"), ("z",)),
    "sae": (("z",), ("neurons", "activations")),
    "head": (("z",), ("q",)),
}


class Graphs(NamedTuple):
    """The models as serialised ONNX."""

    encoder: bytes
    sae: bytes
    head: bytes | None
    """None where the head is the identity."""


class _Encoder(nn.Module):
    def __init__(self, recommender: HookedRecommender) -> None:
        super().__init__()
        self.recommender = recommender

    def forward(self, items: Tensor, mask: Tensor) -> Tensor:
        return self.recommender.encode(items, mask)


class _Sae(nn.Module):
    def __init__(self, sae: SparseCoder) -> None:
        super().__init__()
        self.sae = sae

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        code = self.sae.encode_sparse(z)
        return code.neurons, code.activations


class _Head(nn.Module):
    def __init__(self, recommender: HookedRecommender) -> None:
        super().__init__()
        self.recommender = recommender

    def forward(self, z: Tensor) -> Tensor:
        return self.recommender.head(z)


def export_graphs(recommender: HookedRecommender, sae: SparseCoder, d: int) -> Graphs:
    """Exports the encoder, the SAE and, unless it is the identity, the head.

    Raises:
        GraphError: a model cannot be traced, or its graph fails for length 0, batch 1 or batch 64.
    """
    items = torch.zeros(2, 3, dtype=torch.int64)
    mask = torch.ones(2, 3)
    z = torch.linspace(-1.0, 1.0, 2 * d).reshape(2, d)
    history_axes = {0: "batch", 1: "length"}
    encoder = _export("encoder", _Encoder(recommender), (items, mask), [history_axes, history_axes])
    sae_graph = _export("sae", _Sae(sae), (z,), [{0: "batch"}])
    head = _export("head", _Head(recommender), (z,), [{0: "batch"}]) if recommender.has_head else None
    _check_shapes("encoder", encoder, [(1, 0), (1, 1), (64, 0), (64, 7)])
    _check_shapes("sae", sae_graph, [(1, d), (64, d)])
    if head is not None:
        _check_shapes("head", head, [(1, d), (64, d)])
    return Graphs(encoder, sae_graph, head)


def session(graph: bytes | str, threads: int = 0) -> onnxruntime.InferenceSession:
    """An onnxruntime session on the CPU, for a serialised graph or a file; 0 threads means one per core."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _export(name: str, module: nn.Module, args: tuple[Tensor, ...], axes: Sequence[dict[int, str]]) -> bytes:
    inputs, outputs = _INPUTS_AND_OUTPUTS[name]
    dynamic = tuple(dict.fromkeys(names, torch.export.Dim.DYNAMIC) for names in axes)
    try:
        with _silence(), torch.no_grad():
            program = torch.onnx.export(
                module.eval(),
                args,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=dynamic,
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
            if program is None:
                raise RuntimeError("no ONNX program came back")
            model = program.model_proto
    except Exception as error:
        raise GraphError(f"the {name} cannot be exported to ONNX: {_first_line(error)}") from error
    _make_reproducible(model, axes)
    if model.ByteSize() > MAX_GRAPH_BYTES:
        raise GraphError(
            f"the {name} takes {model.ByteSize():,} bytes as ONNX, at most {MAX_GRAPH_BYTES:,} fit"
        )
    return model.SerializeToString(deterministic=True)


def _make_reproducible(model: onnx.ModelProto, axes: Sequence[dict[int, str]]) -> None:
    graph = model.graph
    del model.metadata_props[:]
    del graph.metadata_props[:]
    # Shapes of intermediate values carry the tracer's symbol names; onnxruntime infers them itself.
    del graph.value_info[:]
    model.doc_string = graph.doc_string = ""
    parts: list[Any] = [*graph.node, *graph.input, *graph.output, *graph.initializer]
    for part in parts:
        part.doc_string = ""
        del part.metadata_props[:]
    for value, names in zip(graph.input, axes, strict=True):
        for axis, name in names.items():
            value.type.tensor_type.shape.dim[axis].dim_param = name
    for value in graph.output:
        value.type.tensor_type.shape.dim[0].dim_param = "batch"


def _check_shapes(name: str, graph: bytes, shapes: Sequence[tuple[int, int]]) -> None:
    inputs, outputs = _INPUTS_AND_OUTPUTS[name]
    runner = session(graph, threads=1)
    for shape in shapes:
        feed: dict[str, NDArray[np.generic]] = {"z": np.zeros(shape, np.float32)}
        if name == "encoder":
            feed = {"items": np.zeros(shape, np.int64), "mask": np.ones(shape, np.float32)}
        try:
            found = runner.run(list(outputs), {key: feed[key] for key in inputs})
        except Exception as error:  # onnxruntime's exceptions share no base class but Exception
            raise GraphError(
                f"the {name}'s graph fails for inputs {list(shape)}: {_first_line(error)}"
            ) from error
        if any(len(output) != shape[0] for output in found):
            raise GraphError(f"the {name}'s graph gives {len(found[0])} rows for inputs {list(shape)}")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keeps torch's exporter from warning about its own internals and packages that nobody asked for."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
