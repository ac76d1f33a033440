"""Packs stored users into bytes, and merges events into histories. Pure.

Seen items and histories begin with a header that holds a stamp. An embedding holds the stamp of the
history that it was computed from, and is valid only while the stamps are equal.
"""

import hashlib
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from service.arrays import AnyArray, Hashes
from service.bundle.precision import Precision
from service.steering.state import SparseCode, UserState
from service.users.state import EVENT, CachedEmbedding, RecordCount, RecordedEvent

MAX_SEEN = 20_000
"""Seen items kept for each user: more than any history, so that old items do not return."""


_HEADER = struct.Struct("<8s8s")  # magic with version, stamp


# Magic with version, ignored items, active neurons, bytes of a neuron index, context size, stamp.
_EMBEDDING = struct.Struct("<2sHIBI8s")


_SEEN_MAGIC = b"tt-seen1"

_HISTORY_MAGIC = b"tt-hist1"


_EMBEDDING_MAGICS = {Precision.FLOAT16: b"e2", Precision.INT8: b"i1"}


_WIDE_FROM = 2**16  # neuron indices from here on take four bytes instead of two


class BlobError(ValueError):
    """A stored value that this release cannot read."""


class Merged(NamedTuple):
    """A history with new events.

    Attributes:
        history: EVENT [m], in time order.
        seen: Hashes of the seen items in order of arrival, uint64 [s].
        recorded: How many events were new.
    """

    history: AnyArray
    seen: Hashes
    recorded: RecordCount


def event_hash(*parts: str) -> int:
    """Returns the 64-bit BLAKE2b hash of an event id, or of the parts that identify the event."""
    joined = "\0".join(parts).encode()
    return int.from_bytes(hashlib.blake2b(joined, digest_size=8).digest(), "little")


def merge(
    history: AnyArray, seen: Hashes, events: Sequence[RecordedEvent], max_history: int, now_ms: int
) -> Merged:
    """Adds events to a history and its seen items.

    An event whose hash is in the history counts as a duplicate. The newest max_history positive
    events are kept, and as many negative ones.

    Args:
        history: EVENT [m].
        seen: Hashes of the seen items, uint64 [s].
        events: The events to add.
        max_history: Limit of the positive, and of the negative, events.
        now_ms: The time of events without one, in milliseconds since 1970.
    """
    known = set(history["event"].tolist())
    fresh = []
    for event in events:
        if event.event not in known:
            known.add(event.event)
            fresh.append(event)
    if not fresh:
        return Merged(history, seen, RecordCount(0, len(events)))
    present = max(now_ms, int(history["time_ms"].max(initial=now_ms)))
    rows = [
        (
            event.item,
            present if event.time_ms is None else event.time_ms,
            event.event,
            event.positive,
        )
        for event in fresh
    ]
    merged = np.concatenate([history, np.array(rows, EVENT)])
    merged = merged[np.argsort(merged["time_ms"], kind="stable")]
    keep = np.zeros(len(merged), bool)
    for sign in (merged["positive"], ~merged["positive"]):
        keep[np.flatnonzero(sign)[-max_history:]] = True
    new_items = np.array([event.item for event in fresh], np.uint64)
    # In order of arrival, each once, the newest last, so that the oldest are cut off.
    all_seen = np.concatenate([seen, new_items])
    _, last_from_end = np.unique(all_seen[::-1], return_index=True)
    all_seen = all_seen[np.sort(len(all_seen) - 1 - last_from_end)][-MAX_SEEN:]
    return Merged(merged[keep], all_seen, RecordCount(len(fresh), len(events) - len(fresh)))


def pack_embedding(embedding: CachedEmbedding, stamp: bytes, precision: Precision) -> bytes:
    """Packs a cached embedding.

    With d = 512 and 32 active neurons it takes 1,173 bytes as float16, 641 as int8.
    """
    z, (neurons, activations), context = embedding.state
    width = 4 if len(neurons) and int(neurons.max()) >= _WIDE_FROM else 2
    ignored_count = min(embedding.ignored_count, 0xFFFF)
    magic = _EMBEDDING_MAGICS[precision]
    header = _EMBEDDING.pack(magic, ignored_count, len(neurons), width, len(context), stamp)
    vectors = b"".join(map(precision.pack, (z, context, activations)))
    return header + neurons.astype(f"<u{width}").tobytes() + vectors


def unpack_embedding(blob: bytes, stamp: bytes, precision: Precision) -> CachedEmbedding | None:
    """Unpacks a cached embedding; None if it has another stamp, format or precision."""
    if len(blob) < _EMBEDDING.size:
        return None
    magic, ignored_count, m, width, context_size, made_from = _EMBEDDING.unpack_from(blob)
    if magic != _EMBEDDING_MAGICS[precision] or made_from != stamp or width not in (2, 4):
        return None
    z_from = _EMBEDDING.size + m * width
    rest = precision.size(context_size) + precision.size(m)
    d = precision.length(len(blob) - z_from - rest)
    if d is None:
        return None
    context_from = z_from + precision.size(d)
    state = UserState(
        precision.unpack(blob, d, z_from),
        SparseCode(
            np.frombuffer(blob, f"<u{width}", m, _EMBEDDING.size).astype(np.int64),
            precision.unpack(blob, m, context_from + precision.size(context_size)),
        ),
        precision.unpack(blob, context_size, context_from),
    )
    return CachedEmbedding(state, ignored_count)


def pack_seen(seen: Hashes, stamp: bytes) -> bytes:
    """Packs the hashes of seen items, uint64 [m]."""
    return _HEADER.pack(_SEEN_MAGIC, stamp) + seen.tobytes()


def unpack_seen(blob: bytes) -> tuple[Hashes, bytes]:
    """Unpacks seen items, uint64 [m], and the stamp of the history.

    Raises:
        BlobError: another release wrote it.
    """
    return _unpack(blob, _SEEN_MAGIC, np.dtype("<u8"))


def pack_history(events: AnyArray, stamp: bytes) -> bytes:
    """Packs a history, EVENT [m]."""
    return _HEADER.pack(_HISTORY_MAGIC, stamp) + events.tobytes()


def unpack_history(blob: bytes) -> tuple[AnyArray, bytes]:
    """Unpacks a history, EVENT [m], and its stamp.

    Raises:
        BlobError: another release wrote it.
    """
    return _unpack(blob, _HISTORY_MAGIC, EVENT)


def _unpack(blob: bytes, expected: bytes, dtype: np.dtype[Any]) -> tuple[AnyArray, bytes]:
    if blob[:8] != expected:
        raise BlobError(f"expected a stored value of format {expected!r}, found {blob[:8]!r}")
    if (len(blob) - _HEADER.size) % dtype.itemsize or len(blob) < _HEADER.size:
        raise BlobError(f"expected whole records, found {len(blob)} bytes")
    _, stamp = _HEADER.unpack_from(blob)
    return np.frombuffer(blob, dtype, offset=_HEADER.size), stamp
