"""Measures the memory of a cached user embedding in Redis, and the cost of its rounding.

Fills an embedded Valkey through the service's own store, and divides the growth of used_memory,
which holds keys, expiry and the server's own tables, by the number of users. Of bundles, the lists
of users whose states are rounded are compared with those of unrounded ones, unsteered and steered.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import redis.asyncio as redis

from benchmarks.page import page, table
from service.arrays import Floats, Ints
from service.bundle.bundle import Bundle
from service.bundle.open import open_bundle
from service.bundle.precision import Precision
from service.ranking.measures import overlap
from service.retrieval.exact_index import ExactIndex
from service.steering.edits import Operation, RawEdit, apply_edits
from service.steering.state import SparseCode, UserState
from service.storage.embedded_valkey import embedded_valkey
from service.users.redis_store import UserStore
from service.users.state import CachedEmbedding, RecordedEvent

MODEL = "0123456789ab"
N_NEURONS = 4_096
AT_ONCE = 200
N = 20
MOST_BYTES = 1_500
LEAST_OVERLAP = 0.98
"""A user at float16, which makes 1.5 GB of a million; and what int8 must leave of a list of 20."""


SIZES = ("kept as", "bytes written", "one key, by MEMORY USAGE", "growth a user", "a million users")
OVERLAPS = """\
Mean overlap of lists of 20 of rounded states with those of unrounded ones. Users are those of the
bundle's references; steered means a typical ADD and a SET of two concepts drawn for each."""


class Footprint(NamedTuple):
    """Bytes for one user."""

    blob: int
    """Bytes that the service writes."""
    key: int
    """One key by MEMORY USAGE."""
    grown: float
    """The growth of used_memory."""


async def footprint(users: int, d: int, k: int, precision: Precision) -> Footprint:
    """Measures users with random states."""
    draw = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        async with embedded_valkey(Path(folder)) as url, redis.Redis.from_url(url) as client:
            store = UserStore(
                url,
                max_history=100,
                history_ttl_s=0,
                embedding_ttl_s=604_800,
                timeout_s=10,
                precision=precision,
            )

            async def cache(name: str) -> None:
                neurons = np.sort(draw.choice(N_NEURONS, k, replace=False))
                code = SparseCode(neurons, precision.rounded(draw.random(k).astype(np.float32)))
                state = UserState(precision.rounded(draw.normal(size=d).astype(np.float32)), code)
                stamp = (await store.read(name, None)).stamp
                await store.remember(name, MODEL, stamp, CachedEmbedding(state, 0))

            names = [f"user-{user:08d}" for user in range(users)]
            parts = [names[start : start + AT_ONCE] for start in range(0, users, AT_ONCE)]
            for part in parts:
                await store.record({name: [RecordedEvent(1, 1, 1, True)] for name in part})
            before = (await client.info("memory"))["used_memory"]
            for part in parts:
                await asyncio.gather(*map(cache, part))
            after = (await client.info("memory"))["used_memory"]
            key = f"tt:{{{names[0]}}}:e:{MODEL}"
            size = await client.strlen(key)
            whole = await client.memory_usage(key) or 0
            await store.close()
    return Footprint(size, whole, (after - before) / users)


def overlaps(bundle: Bundle, folder: Path, precision: Precision) -> tuple[float, float]:
    """Computes the mean overlap@20 with lists of unrounded states, unsteered and steered.

    Those are all that the index was measured with where the head is the identity, else those of the
    replay.
    """
    with np.load(folder / "reference.npz") as reference:
        z = reference["z"][1:] if bundle.encoder.has_head else reference["queries"]
        context = (
            reference["context"][1:]
            if "context" in reference
            else np.empty((len(z), 0), np.float32)
        )
    exact = _lists(bundle, z, context, lambda values: values)
    rounded = _lists(bundle, z, context, precision.rounded)
    plain, steered = (
        float(np.mean([overlap(one, other) for one, other in zip(*pair, strict=True)]))
        for pair in zip(exact, rounded, strict=True)
    )
    return plain, steered


def _lists(
    bundle: Bundle, z: Floats, context: Floats, rounded: Callable[[Floats], Floats]
) -> tuple[Ints, Ints]:
    """Finds the best items of users, plain and under one typical ADD and one SET."""
    draw = np.random.default_rng(0)
    targets = [concept.target for concept in bundle.labels.concepts]
    z = rounded(z)
    neurons, activations = bundle.encoder.code(z)
    moved = z.copy()
    for row, values in enumerate(rounded(activations)):
        code = SparseCode(neurons[row][values != 0.0], values[values != 0.0])
        pair = zip(
            (Operation.ADD, Operation.SET), draw.choice(len(targets), 2, replace=False), strict=True
        )
        edits = [
            RawEdit(targets[place], operation, targets[place].unit) for operation, place in pair
        ]
        changes = apply_edits(code, edits, bundle.labels.decoder).changes
        moved[row] += np.float32(bundle.scale(z[row])) * changes.sum(axis=0)
    items = ExactIndex(bundle.items)
    plain, steered = (
        np.concatenate(
            [
                items.search(bundle.encoder.head(one[None], rest), N)
                for one, rest in zip(states, rounded(context), strict=True)
            ]
        )
        for states in (z, moved)
    )
    return plain, steered


def report(users: int, d: int, k: int, folders: Iterable[Path]) -> str:
    """Measures, and makes the page."""
    sizes = []
    for precision in Precision:
        size = asyncio.run(footprint(users, d, k, precision))
        sizes.append(
            (
                precision.value,
                f"{size.blob:,}",
                f"{size.key:,}",
                f"{size.grown:,.0f}",
                f"{size.grown / 1_000:.2f} GB",
            )
        )
    rows = []
    for folder in folders:
        bundle = open_bundle(folder)
        dims = bundle.manifest.dimensions
        origin = bundle.manifest.provenance
        name = f"{origin.data_set}, {origin.recommender} and {origin.sae}"
        for precision in Precision:
            plain, steered = overlaps(bundle, folder, precision)
            figures = (f"{plain:.4f}", f"{steered:.4f}")
            rows.append((name, precision.value, dims.d, f"{dims.n_items:,}", *figures))
    return page(
        "User states in Redis",
        f"python -m benchmarks.serving.memory --users {users} --bundles BUNDLE...",
        f"Embeddings of {users:,} users, d = {d}, k = {k}, each a key of its own in a real Valkey. "
        "The\ngrowth is that of used_memory: it includes keys, expiry and the server's own tables.",
        table(SIZES, sizes),
        f"The bar: {MOST_BYTES / 1_000:.1f} GB at float16, and int8 about half.",
        OVERLAPS,
        table(("bundle", "kept as", "d", "items", "unsteered", "steered"), rows, texts=2),
        f"The bar for int8: {LEAST_OVERLAP:g}.",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--d", type=int, default=512)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument(
        "--bundles", type=Path, nargs="*", default=[], help="whose lists are compared"
    )
    arguments = parser.parse_args()
    print(report(arguments.users, arguments.d, arguments.k, arguments.bundles), end="")


if __name__ == "__main__":
    main()
