"""The bundle's graphs in onnxruntime: history to user embedding and code, and the head after the edit."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import onnxruntime as ort

from service.arrays import Floats, Ints, rows_of
from service.bundle.precision import Precision
from service.steering.state import SparseCode, UserState


class Activation(NamedTuple):
    """What the encoder gives: z [batch, d] and, for the head alone, context [batch, context]."""

    z: Floats
    context: Floats


class Encoder:
    """encoder.onnx, sae.onnx and, where the model has a nonlinear part after the hook, head.onnx.

    Sessions have no state and may be used by several threads. One thread each: many requests in
    parallel fill the cores better than one request on several.

    Raises:
        ValueError: the graphs give or read a context, and should not; or the other way round.
    """

    def __init__(
        self,
        directory: Path,
        has_head: bool,
        context_size: int = 0,
        precision: Precision = Precision.FLOAT16,
    ) -> None:
        self._encoder = _session(directory / "encoder.onnx")
        self._sae = _session(directory / "sae.onnx")
        self._head = _session(directory / "head.onnx") if has_head else None
        self.has_head, self.context_size = has_head, context_size
        self._rounded = precision.rounded
        self._state = ["z", "context"] if context_size else ["z"]
        _expect("encoder.onnx gives", self._encoder.get_outputs(), self._state)
        if self._head is not None:
            _expect("head.onnx reads", self._head.get_inputs(), self._state)

    def encode(self, histories: Sequence[Ints]) -> list[UserState]:
        """User states for histories of item indices, oldest first."""
        z, context = self.embed(*pad(histories))
        return self.states(z, context)

    def states(self, z: Floats, context: Floats) -> list[UserState]:
        """User states for z [batch, d] and its context [batch, context]."""
        z = self._rounded(z)
        neurons, activations = self.code(z)
        rows = zip(z, neurons, self._rounded(activations), self._rounded(context), strict=True)
        return [
            UserState(z, _active(neurons, values), context) for z, neurons, values, context in rows
        ]

    def embed(self, items: Ints, mask: Floats) -> Activation:
        """[batch, length] item indices and mask -> z and its context, not yet rounded."""
        found = self._encoder.run(self._state, {"items": items, "mask": mask})
        return Activation(
            found[0], found[1] if self.context_size else np.empty((len(items), 0), np.float32)
        )

    def code(self, z: Floats) -> tuple[Ints, Floats]:
        """[batch, d] -> neurons [batch, k] and activations [batch, k]."""
        neurons, activations = self._sae.run(["neurons", "activations"], {"z": z})
        return neurons, activations

    def head(self, z: Floats, context: Floats) -> Floats:
        """What is left of the model after the hook: z [batch, d] -> [batch, p].

        The context is each row's, [batch, context], or that of them all, [context].
        """
        if self._head is None:
            return z
        each = np.ascontiguousarray(np.broadcast_to(context, (len(z), self.context_size)))
        q: Floats = self._head.run(["q"], dict(zip(self._state, (z, each), strict=False)))[0]
        return q


@dataclass(frozen=True, slots=True)
class Encode:
    """A SharedCall for the user state of a history of item indices, oldest first."""

    encoder: Encoder
    history: Ints

    stage: ClassVar[int] = 0

    @property
    def group(self) -> Hashable:
        """One run of the graphs."""
        return Encode, id(self.encoder)

    def run_all(self, calls: Sequence["Encode"]) -> Sequence[UserState]:
        """Runs the calls of a group as one; see SharedCall."""
        return self.encoder.encode([call.history for call in calls])


@dataclass(frozen=True, slots=True)
class Head:
    """A SharedCall for the queries of user embeddings z, float32 [m, d], in one context: float32 [m, p]."""

    encoder: Encoder
    z: Floats
    context: Floats

    stage: ClassVar[int] = 1

    @property
    def group(self) -> Hashable:
        """One run of the graph."""
        return Head, id(self.encoder)

    def run_all(self, calls: Sequence["Head"]) -> Sequence[Floats]:
        """Runs the calls of a group as one; see SharedCall."""
        parts = [call.z for call in calls]
        contexts = np.repeat(
            [call.context for call in calls], [len(part) for part in parts], axis=0
        )
        return rows_of(self.encoder.head(np.concatenate(parts), contexts), parts)


def pad(histories: Sequence[Ints]) -> tuple[Ints, Floats]:
    """Histories as one rectangle, padded at the end: items int64 and mask float32, [batch, length]."""
    length = max((len(history) for history in histories), default=0)
    items = np.zeros((len(histories), length), np.int64)
    mask = np.zeros((len(histories), length), np.float32)
    for row, history in enumerate(histories):
        items[row, : len(history)] = history
        mask[row, : len(history)] = 1.0
    return items, mask


def _active(neurons: Ints, activations: Floats) -> SparseCode:
    """A row of the SAE's outputs, rounded, without the entries that mean "none"."""
    active = activations != 0.0
    return SparseCode(neurons[active], activations[active])


def _expect(what: str, found: Sequence[ort.NodeArg], expected: Sequence[str]) -> None:
    names = [one.name for one in found]
    if names != list(expected):
        raise ValueError(f"{what} {', '.join(names)}; {', '.join(expected)} expected")


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
