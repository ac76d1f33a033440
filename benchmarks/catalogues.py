"""Made-up catalogues of any size, with an index as the exporter chooses it, built in pieces.

Items lie in clusters of a thousand; users like three of them; steering moves a user as far as the base case's
edits do. DIR holds items.npy, items.parquet, items.faiss (where there is an index) and queries.npz.
"""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from exporters.index import IndexOptions, choose_index
from exporters.recall import best_scores

CLUSTER_SIZE = 1_000
QUERIES = 256
"""Of each kind: so many to choose the index by, and as many others to measure it with."""
_ITEMS_AT_ONCE = 250_000
_MOST_EDITS, _STRENGTH = 3, 2.0

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class CatalogueOptions:
    """How large it is."""

    items: int
    """Size of the catalogue."""
    d: int = 128
    """Width of embeddings."""
    kinds: tuple[str, ...] = ("flat", "pq4", "ivf-pq4", "ivf-sq8")
    """Kinds of index to choose from."""
    seed: int = 0
    """Of all that is drawn."""


def make_catalogue(options: CatalogueOptions, out: Path) -> dict[str, Any]:
    """What was chosen and how long it took; made if it is not there."""
    note = out / "catalogue.json"
    if note.is_file():
        made: dict[str, Any] = json.loads(note.read_text())
        return made
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(options.seed)
    centres = _unit_rows(rng.standard_normal((max(options.items // CLUSTER_SIZE, 1), options.d), np.float32))
    begin = time.monotonic()
    _write_items(options, centres, out, rng)
    plain, steered = _queries(centres, rng)
    drawn = time.monotonic()
    vectors = np.load(out / "items.npy", mmap_mode="r")[:, :-1]
    chosen = choose_index(
        vectors, plain[:QUERIES], steered[:QUERIES], IndexOptions(flat_limit=0, kinds=options.kinds)
    )
    if chosen.index is not None:
        faiss.write_index(chosen.index, str(out / "items.faiss"))
    indexed = time.monotonic()
    asked = np.vstack([plain[QUERIES:], steered[QUERIES:]])
    np.savez(out / "queries.npz", queries=asked, best=best_scores(vectors, asked))
    result = {
        "options": asdict(options),
        "trial": chosen.trial._asdict() | {"recalls": chosen.trial.recalls._asdict()},
        "draw_s": drawn - begin,
        "index_s": indexed - drawn,
        "threads": torch.get_num_threads(),
    }
    note.write_text(json.dumps(result))
    return result


def _write_items(options: CatalogueOptions, centres: Floats, out: Path, rng: np.random.Generator) -> None:
    """items.npy and items.parquet as a bundle has them, piece by piece."""
    shape = options.items, options.d + 1
    items = np.lib.format.open_memmap(out / "items.npy", "w+", np.float32, shape)
    writer = None
    for start in range(0, options.items, _ITEMS_AT_ONCE):
        rows = np.arange(start, min(start + _ITEMS_AT_ONCE, options.items))
        cluster = rng.integers(len(centres), size=len(rows))
        items[rows[0] : rows[-1] + 1, :-1] = _near(centres[cluster], rng)
        table = pa.table(
            {
                "item_id": [f"item-{row:08d}" for row in rows],
                "title": [f"Item {row} of cluster {one}" for row, one in zip(rows, cluster, strict=True)],
                "popularity": rng.zipf(1.5, len(rows)).clip(max=10**6),
                "genre": [f"genre {one % 12}" for one in cluster],
                "year": 1950.0 + rows % 75,
            }
        )
        writer = writer or pq.ParquetWriter(out / "items.parquet", table.schema, compression="zstd")
        writer.write_table(table)
    if writer:
        writer.close()
    items.flush()


def _queries(centres: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Twice QUERIES users [m, d], plain and steered."""
    plain, steered = (np.empty((2 * QUERIES, centres.shape[1]), np.float32) for _ in range(2))
    for row in range(2 * QUERIES):
        liked = rng.choice(len(centres), 3)
        plain[row] = _near(centres[rng.choice(liked, rng.integers(20, 101))], rng).sum(axis=0)
        edits = _near(centres[rng.integers(len(centres), size=rng.integers(1, _MOST_EDITS + 1))], rng)
        strengths = rng.uniform(-_STRENGTH, _STRENGTH, len(edits)).astype(np.float32)
        steered[row] = plain[row] + np.linalg.norm(plain[row]) * (strengths @ edits)
    return plain, steered


def _near(centres: Floats, rng: np.random.Generator) -> Floats:
    own = rng.standard_normal(centres.shape, np.float32) / np.float32(np.sqrt(centres.shape[1]))
    return _unit_rows(centres + own)


def _unit_rows(rows: Floats) -> Floats:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)
