"""The bundle's graphs in onnxruntime: history to user embedding and code, and the head after the edit."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime as ort

from service.arrays import Floats, Ints
from service.steering import SparseCode

LARGEST = float(np.finfo(np.float16).max)


class UserState(NamedTuple):
    """A user embedding z, float32 [d], and its code; both hold only values that float16 can hold.

    Rounding happens here, on the cold path too, so that a cached and a fresh answer are the same.
    """

    z: Floats
    code: SparseCode

    @classmethod
    def from_model(cls, z: Floats, neurons: Ints, activations: Floats) -> "UserState":
        """From one row of the graphs' outputs; z is rounded already."""
        rounded = activations.astype(np.float16).astype(np.float32)
        active = rounded != 0.0
        return cls(z, SparseCode(neurons[active], rounded[active]))


class Encoder:
    """encoder.onnx, sae.onnx and, where the model has a nonlinear part after the hook, head.onnx.

    Sessions have no state and may be used by several threads. One thread each: many requests in parallel
    fill the cores better than one request on several.
    """

    def __init__(self, directory: Path, has_head: bool) -> None:
        self._encoder = _session(directory / "encoder.onnx")
        self._sae = _session(directory / "sae.onnx")
        self._head = _session(directory / "head.onnx") if has_head else None
        self.has_head = has_head

    def encode(self, histories: Sequence[Ints]) -> list[UserState]:
        """User states for histories of item indices, oldest first."""
        z = np.clip(self.embed(*pad(histories)), -LARGEST, LARGEST).astype(np.float16).astype(np.float32)
        return [UserState.from_model(*row) for row in zip(z, *self.code(z), strict=True)]

    def embed(self, items: Ints, mask: Floats) -> Floats:
        """[batch, length] item indices and mask -> z [batch, d], not yet rounded."""
        z: Floats = self._encoder.run(["z"], {"items": items, "mask": mask})[0]
        return z

    def code(self, z: Floats) -> tuple[Ints, Floats]:
        """[batch, d] -> neurons [batch, k] and activations [batch, k]."""
        neurons, activations = self._sae.run(["neurons", "activations"], {"z": z})
        return neurons, activations

    def head(self, z: Floats) -> Floats:
        """What is left of the model after the hook: [batch, d] -> [batch, p]."""
        if self._head is None:
            return z
        q: Floats = self._head.run(["q"], {"z": z})[0]
        return q


def pad(histories: Sequence[Ints]) -> tuple[Ints, Floats]:
    """Histories as one rectangle, padded at the end: items int64 and mask float32, [batch, length]."""
    length = max((len(history) for history in histories), default=0)
    items = np.zeros((len(histories), length), np.int64)
    mask = np.zeros((len(histories), length), np.float32)
    for row, history in enumerate(histories):
        items[row, : len(history)] = history
        mask[row, : len(history)] = 1.0
    return items, mask


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
