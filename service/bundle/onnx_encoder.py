"""Runs a bundle's graphs in onnxruntime: history to embedding and code, and the head."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from service.arrays import Floats, Ints
from service.bundle.encoder import Activation, Codes
from service.bundle.precision import Precision
from service.steering.state import SparseCode, UserState


class OnnxEncoder:
    """Runs encoder.onnx, sae.onnx and, if the model has a head, head.onnx; see Encoder.

    Sessions have no state, and several threads may use them. Each runs on one thread: many requests
    in parallel fill the cores better than one request on several.

    Args:
        directory: The bundle's.
        has_head: True to run head.onnx.
        context_size: Width of the context.
        precision: The precision that user states are rounded to.

    Raises:
        ValueError: a graph has a context where the manifest has none, or the reverse.
    """

    def __init__(
        self,
        directory: Path,
        has_head: bool,
        context_size: int = 0,
        precision: Precision = Precision.FLOAT16,
    ) -> None:
        self.has_head = has_head
        self.context_size = context_size
        self._encoder = _session(directory / "encoder.onnx")
        self._sae = _session(directory / "sae.onnx")
        self._head = _session(directory / "head.onnx") if has_head else None
        self._rounded = precision.rounded
        self._state = ["z", "context"] if context_size else ["z"]
        _check_names("the outputs of encoder.onnx", self._encoder.get_outputs(), self._state)
        if self._head is not None:
            _check_names("the inputs of head.onnx", self._head.get_inputs(), self._state)

    def encode(self, histories: Sequence[Ints]) -> list[UserState]:
        """Computes the user states of histories; see Encoder."""
        z, context = self.embed(*pad(histories))
        return self.states(z, context)

    def states(self, z: Floats, context: Floats) -> list[UserState]:
        """Computes the user states of z and context, rounded; see Encoder."""
        z = self._rounded(z)
        neurons, activations = self.code(z)
        rows = zip(z, neurons, self._rounded(activations), self._rounded(context), strict=True)
        return [
            UserState(z, _active(neurons, values), context) for z, neurons, values, context in rows
        ]

    def embed(self, items: Ints, mask: Floats) -> Activation:
        """Computes z and context of padded histories; see Encoder."""
        outputs = self._encoder.run(self._state, {"items": items, "mask": mask})
        if self.context_size:
            return Activation(*outputs)
        return Activation(outputs[0], np.empty((len(items), 0), np.float32))

    def code(self, z: Floats) -> Codes:
        """Computes the codes of z; see Encoder."""
        return Codes(*self._sae.run(["neurons", "activations"], {"z": z}))

    def head(self, z: Floats, context: Floats) -> Floats:
        """Computes the queries of z; see Encoder."""
        if self._head is None:
            return z
        contexts = np.ascontiguousarray(np.broadcast_to(context, (len(z), self.context_size)))
        inputs = dict(zip(self._state, (z, contexts), strict=False))
        queries: Floats = self._head.run(["q"], inputs)[0]
        return queries


def pad(histories: Sequence[Ints]) -> tuple[Ints, Floats]:
    """Pads histories at their ends to one length: items int64 and mask float32, [batch, length]."""
    length = max((len(history) for history in histories), default=0)
    items = np.zeros((len(histories), length), np.int64)
    mask = np.zeros((len(histories), length), np.float32)
    for row, history in enumerate(histories):
        items[row, : len(history)] = history
        mask[row, : len(history)] = 1.0
    return items, mask


def _active(neurons: Ints, activations: Floats) -> SparseCode:
    """Keeps the active neurons of a row of the SAE's rounded outputs."""
    active = activations != 0.0
    return SparseCode(neurons[active], activations[active])


def _check_names(what: str, nodes: Sequence[ort.NodeArg], expected: Sequence[str]) -> None:
    names = [node.name for node in nodes]
    if names != list(expected):
        raise ValueError(f"{what}: expected {', '.join(expected)}, found {', '.join(names)}")


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
