"""Exports torch modules as ONNX graphs for any batch size and any history length.

The graphs depend on the models alone: dimensions get fixed names, and the file paths and source
lines that torch records are removed, so that the same run always gives the same bytes.
"""

import contextlib
import itertools
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from exporters.errors import GraphError
from training.recommenders import Recommender
from training.saes import SparseAutoencoder

OPSET = 20
"""Version of the ONNX operators."""

MAX_GRAPH_BYTES = 2**31 - 1
"""Protobuf's limit for one message, and so for an ONNX file with its weights inside."""

Feed = dict[str, NDArray[Any]]

_AXES = {name: {0: "batch", 1: "length"} for name in ("items", "mask")}

_BATCHES = (1, 64)
"""Batch sizes that every graph is run with before it is written."""
_LENGTHS = (0, 1, 7)
"""History lengths that the encoder is run with before it is written."""


class Graphs(NamedTuple):
    """The models' graphs, as serialised ONNX."""

    encoder: bytes
    sae: bytes
    head: bytes | None
    """None where the head is the identity."""


class RecommenderGraphs(NamedTuple):
    """The graphs of a recommender, which bundles with different SAEs can share."""

    encoder: bytes
    head: bytes | None


class _Encoder(nn.Module):
    def __init__(self, recommender: Recommender) -> None:
        super().__init__()
        self.recommender = recommender

    def forward(self, items: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        if not self.recommender.context_size:
            return (self.recommender.encode(items, mask),)
        state = self.recommender.activate(items, mask)
        return state.z, state.context


class _Sae(nn.Module):
    def __init__(self, sae: SparseAutoencoder) -> None:
        super().__init__()
        self.sae = sae

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        code = self.sae.encode_sparse(z)
        return code.neurons, code.activations


class _Head(nn.Module):
    def __init__(self, recommender: Recommender) -> None:
        super().__init__()
        self.recommender = recommender

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return self.recommender.head(z, z[:, :0] if context is None else context)


def export_graphs(
    recommender: Recommender, sae: SparseAutoencoder, d: int, ready: RecommenderGraphs | None = None
) -> Graphs:
    """Exports the encoder, the SAE and, unless it is the identity, the head.

    Args:
        recommender: a torch module in evaluation mode.
        sae: a torch module in evaluation mode.
        d: width of z.
        ready: the recommender's graphs, if they were exported before.

    Raises:
        GraphError: a model cannot be traced, or its graph fails for length 0, batch 1 or batch 64.
    """
    encoder, head = ready or export_recommender(recommender, d)
    return Graphs(encoder, _export_sae(sae, d), head)


def export_recommender(recommender: Recommender, d: int) -> RecommenderGraphs:
    """Exports the graphs that depend on the recommender alone; see export_graphs."""
    widths = {"context": recommender.context_size} if recommender.context_size else {}
    state = ("z", *widths)
    history = {"items": torch.zeros(2, 3, dtype=torch.int64), "mask": torch.ones(2, 3)}
    encoder = _export("encoder", _Encoder(recommender), history, state)
    shapes = itertools.product(_BATCHES, _LENGTHS)
    feeds: list[Feed] = [
        {"items": np.zeros(shape, np.int64), "mask": np.ones(shape, np.float32)} for shape in shapes
    ]
    _check("encoder", encoder, feeds, {"z": d, **widths})
    if not recommender.has_head:
        return RecommenderGraphs(encoder, None)
    example = {"z": torch.linspace(-1.0, 1.0, 2 * d).reshape(2, d)}
    if widths:
        with torch.no_grad():  # only the model knows what a context may hold
            example["context"] = recommender.activate(*history.values()).context
    head = _export("head", _Head(recommender), example, ("q",))
    rows = {name: part[:1].numpy() for name, part in example.items()}
    _check(
        "head", head, ({name: row.repeat(n, 0) for name, row in rows.items()} for n in _BATCHES), {}
    )
    return RecommenderGraphs(encoder, head)


def _export_sae(sae: SparseAutoencoder, d: int) -> bytes:
    """Exports the SAE and runs its graph."""
    example = {"z": torch.linspace(-1.0, 1.0, 2 * d).reshape(2, d)}
    graph = _export("sae", _Sae(sae), example, ("neurons", "activations"))
    _check("sae", graph, ({"z": np.zeros((batch, d), np.float32)} for batch in _BATCHES), {})
    return graph


def session(graph: bytes | str) -> onnxruntime.InferenceSession:
    """Opens a serialised graph, or the file of one, in onnxruntime, on one thread."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _export(
    name: str, module: nn.Module, example: Mapping[str, Tensor], outputs: Sequence[str]
) -> bytes:
    """Exports a module as a serialised graph whose bytes depend on the module alone.

    Raises:
        GraphError: torch cannot export it, or it is too large.
    """
    axes = [_AXES.get(argument, {0: "batch"}) for argument in example]
    dynamic = tuple(dict.fromkeys(names, torch.export.Dim.DYNAMIC) for names in axes)
    try:
        with _silence(), torch.no_grad():
            program = torch.onnx.export(
                module.eval(),
                tuple(example.values()),
                input_names=list(example),
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
            f"the {name} as ONNX: expected at most {MAX_GRAPH_BYTES:,} bytes, "
            f"found {model.ByteSize():,}"
        )
    return model.SerializeToString(deterministic=True)


def _make_reproducible(model: onnx.ModelProto, axes: Sequence[dict[int, str]]) -> None:
    """Removes recorded paths and names, and gives the dimensions fixed names."""
    graph = model.graph
    del model.metadata_props[:]
    del graph.metadata_props[:]
    # Shapes of intermediate values carry the tracer's symbol names; onnxruntime infers them itself.
    del graph.value_info[:]
    model.doc_string = ""
    graph.doc_string = ""
    parts: list[Any] = [*graph.node, *graph.input, *graph.output, *graph.initializer]
    for part in parts:
        part.doc_string = ""
        del part.metadata_props[:]
    for value, names in zip(graph.input, axes, strict=True):
        for axis, name in names.items():
            value.type.tensor_type.shape.dim[axis].dim_param = name
    for value in graph.output:
        value.type.tensor_type.shape.dim[0].dim_param = "batch"


def _check(name: str, graph: bytes, feeds: Iterable[Feed], widths: Mapping[str, int]) -> None:
    """Runs a graph and compares its outputs' shapes with the batch size and the given widths.

    Raises:
        GraphError: the graph fails, or an output has another shape.
    """
    runner = session(graph)
    outputs = [output.name for output in runner.get_outputs()]
    for feed in feeds:
        shape = list(next(iter(feed.values())).shape)
        try:
            results = dict(zip(outputs, runner.run(outputs, feed), strict=True))
        except Exception as error:  # onnxruntime's exceptions share no base class but Exception
            raise GraphError(
                f"the {name}'s graph fails for inputs {shape}: {_first_line(error)}"
            ) from error
        for output, values in results.items():
            expected = (shape[0], widths.get(output, values.shape[1]))
            if values.shape != expected:
                raise GraphError(
                    f"the {name}'s graph: expected {output} of shape {list(expected)} for inputs "
                    f"{shape}, found {list(values.shape)}"
                )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Silences the warnings of torch's exporter about its internals and missing packages."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
