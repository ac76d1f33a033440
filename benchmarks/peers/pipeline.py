"""Recommends without Trimtab: numpy, faiss and a Redis reply, for any server to call.

A user's embedding z from Redis; two edits, added as q = z + |z| sum(strength x unit x direction);
the index; what the user has seen is dropped; the candidates' exact scores; the best 20. Nothing
else: no validation, no report, no metrics. It reads what prepare.py wrote, and Trimtab's own blobs
    in Redis.
"""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np

N = 20
MARGIN = 16
_EMBEDDING = struct.Struct(
    "<2sHIBI8s"
)  # as service/blobs.py packs it: the third and fourth fields say what
_SEEN_FROM = (
    16  # follows are so many neurons of so many bytes each; seen items begin after their header
)


class Asked(NamedTuple):
    """A request: user, and edits (target, strength); a target is a concept's name or "#neuron"."""

    user_id: str
    edits: Sequence[tuple[str, float]]


class Listed(NamedTuple):
    """The best items, best first, with their scores."""

    item_ids: list[str]
    scores: list[float]


class Pipeline:
    """The pipeline of one process; `folder` was made by prepare.py."""

    def __init__(self, folder: Path) -> None:
        faiss.omp_set_num_threads(1)
        with np.load(folder / "prepared.npz") as made:
            self._concepts = {name: row for row, name in enumerate(made["concepts"].tolist())}
            self._directions = made["directions"]
            self._units = made["units"]
            self._neuron_units = made["neuron_units"]
            self._item_ids = made["item_ids"].tolist()
            self._hashes = made["hashes"]
            self._by_hash = made["by_hash"]
            self._scale = float(made["scale"])
            self._model = str(made["model"])
            bundle = Path(str(made["bundle"]))
        self._decoder = np.asarray(np.load(bundle / "decoder.npy", mmap_mode="r"))
        self._items = np.asarray(np.load(bundle / "items.npy", mmap_mode="r"))
        self._index = faiss.read_index(str(bundle / "items.faiss"), faiss.IO_FLAG_MMAP_IFC)

    def keys(self, asked: Asked) -> tuple[str, str]:
        """Returns the Redis keys of a user's history and embedding."""
        return f"tt:{{{asked.user_id}}}:s", f"tt:{{{asked.user_id}}}:e:{self._model}"

    def recommend(self, many: Sequence[Asked], blobs: Sequence[Any]) -> list[Listed]:
        """Makes the lists of several requests; blobs are Redis' values of their keys, in order."""
        z = np.stack([self._z(blob) for blob in blobs[1::2]])
        seen = [self._rows(blob) for blob in blobs[::2]]
        deltas = np.stack([self._delta(asked.edits) for asked in many])
        q = z + self._scale * np.linalg.norm(z, axis=1, keepdims=True) * deltas
        fetch = N + MARGIN + max(map(len, seen))
        _, found = self._index.search(q, fetch)
        return [self._best(*each) for each in zip(q, found, seen, strict=True)]

    def _z(self, blob: bytes) -> Any:
        _, _, m, width, _, _ = _EMBEDDING.unpack_from(blob)
        d = self._decoder.shape[1]
        return np.frombuffer(blob, "<f2", d, _EMBEDDING.size + m * width).astype(np.float32)

    def _rows(self, blob: bytes) -> Any:
        return self._by_hash[
            np.searchsorted(self._hashes, np.frombuffer(blob, "<u8", offset=_SEEN_FROM))
        ]

    def _delta(self, edits: Sequence[tuple[str, float]]) -> Any:
        delta = np.zeros(self._decoder.shape[1], np.float32)
        for target, strength in edits:
            if target.startswith("#"):
                neuron = int(target[1:])
                delta += strength * self._neuron_units[neuron] * self._decoder[neuron]
            else:
                row = self._concepts[target]
                delta += strength * self._units[row] * self._directions[row]
        return delta

    def _best(self, q: Any, found: Any, seen: Any) -> Listed:
        candidates = found[(found >= 0) & ~np.isin(found, seen)]
        rows = self._items[candidates]
        scores = rows[:, :-1] @ q + rows[:, -1]
        order = np.argsort(-scores)[:N]
        return Listed([self._item_ids[item] for item in candidates[order]], scores[order].tolist())
