"""Makes catalogues of any size, with an index as the exporter chooses it, in pieces.

Items lie in clusters; users like three of them; steering moves a user as far as edits move those of
world.py. A catalogue's folder holds items.npy and items.parquet as a bundle has them, queries.npz,
and indexes.
"""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from exporters.choose_index import IndexOptions, choose_index
from service.bundle.replay import RECALL_DEPTH
from service.ranking.order import score
from service.retrieval.exact_index import ExactIndex

QUERIES = 128
"""Number of queries that the index is chosen by, and of others that measure it."""
_ITEMS_AT_ONCE = 250_000
_MOST_EDITS = 3
_STRENGTH = 2.0

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class CatalogueOptions:
    """Sizes of a catalogue."""

    items: int
    """Size of the catalogue."""
    d: int = 128
    """Width of embeddings."""
    cluster_size: int = 1_000
    """Items that lie near each other, on average."""
    seed: int = 0
    """Seed of all draws."""


class Queries(NamedTuple):
    """Queries, the first half plain and the second steered: float32 [2 QUERIES, d]."""

    chosen_by: Floats
    """To choose an index by."""
    asked: Floats
    """To measure it with."""
    best: Floats
    """The exact best 100 scores of the ones asked: [2 QUERIES, 100]."""


def make_catalogue(options: CatalogueOptions, out: Path) -> Queries:
    """Draws it; what is there already stays."""
    note = out / "catalogue.json"
    wanted = asdict(options)
    if not note.is_file() or json.loads(note.read_text()) != wanted:
        out.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(options.seed)
        clusters = max(options.items // options.cluster_size, 1)
        centres = _unit_rows(rng.standard_normal((clusters, options.d), np.float32))
        _write_items(options, centres, out, rng)
        plain, steered = _queries(centres, rng)
        asked = np.vstack([plain[QUERIES:], steered[QUERIES:]])
        np.savez(
            out / "queries.npz",
            chosen_by=np.vstack([plain[:QUERIES], steered[:QUERIES]]),
            asked=asked,
            best=_best_scores(np.load(out / "items.npy", mmap_mode="r"), asked),
        )
        note.write_text(json.dumps(wanted))
    with np.load(out / "queries.npz") as file:
        return Queries(**file)


def make_index(out: Path, kinds: tuple[str, ...]) -> dict[str, Any]:
    """Makes the fastest of the kinds as out/KINDS.faiss, unless it exists; returns its figures."""
    name = "+".join(kinds)
    note = out / f"{name}.json"
    if not note.is_file():
        with np.load(out / "queries.npz") as file:
            plain, steered = np.split(file["chosen_by"], 2)
        begin = time.monotonic()
        items = np.load(out / "items.npy", mmap_mode="r")
        chosen = choose_index(items, plain, steered, IndexOptions(flat_limit=0, kinds=kinds))
        if chosen.index is not None:
            faiss.write_index(chosen.index, str(out / f"{name}.faiss"))
        figures = chosen.trial._asdict() | {"recalls": chosen.trial.recalls._asdict()}
        figures |= {"index_s": time.monotonic() - begin, "threads": faiss.omp_get_max_threads()}
        note.write_text(json.dumps(figures))
    made: dict[str, Any] = json.loads(note.read_text())
    return made


def _best_scores(items: Floats, queries: Floats) -> Floats:
    """Computes the best 100 scores of each query [m, p], largest first: [m, 100]."""
    best = ExactIndex(items).search(queries, RECALL_DEPTH)
    pairs = zip(best, queries, strict=True)
    return np.stack([score(items, rows, query) for rows, query in pairs])


def _write_items(
    options: CatalogueOptions, centres: Floats, out: Path, rng: np.random.Generator
) -> None:
    """Writes items.npy and items.parquet like a bundle's, piece by piece."""
    shape = options.items, options.d + 1
    items = np.lib.format.open_memmap(out / "items.npy", "w+", np.float32, shape)
    writer = None
    for start in range(0, options.items, _ITEMS_AT_ONCE):
        rows = np.arange(start, min(start + _ITEMS_AT_ONCE, options.items))
        cluster = rng.integers(len(centres), size=len(rows))
        items[rows[0] : rows[-1] + 1, :-1] = _near(centres[cluster], rng)
        pairs = list(zip(rows.tolist(), cluster.tolist(), strict=True))
        table = pa.table(
            {
                "item_id": [f"item-{row:08d}" for row, _ in pairs],
                "title": [f"Item {row} of cluster {one}" for row, one in pairs],
                "popularity": rng.integers(1, 1_000_000, len(rows)),
                "genre": [f"genre {one % 12}" for _, one in pairs],
                "year": 1950.0 + rows % 75,
            }
        )
        writer = writer or pq.ParquetWriter(out / "items.parquet", table.schema, compression="zstd")
        writer.write_table(table)
    if writer:
        writer.close()
    items.flush()


def _queries(centres: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Makes twice QUERIES users [m, d], plain and steered."""
    plain, steered = (np.empty((2 * QUERIES, centres.shape[1]), np.float32) for _ in range(2))
    for row in range(2 * QUERIES):
        liked = rng.choice(len(centres), 3)
        plain[row] = _near(centres[rng.choice(liked, rng.integers(20, 101))], rng).sum(axis=0)
        edits = _near(
            centres[rng.integers(len(centres), size=rng.integers(1, _MOST_EDITS + 1))], rng
        )
        strengths = rng.uniform(-_STRENGTH, _STRENGTH, len(edits)).astype(np.float32)
        steered[row] = plain[row] + np.linalg.norm(plain[row]) * (strengths @ edits)
    return plain, steered


def _near(centres: Floats, rng: np.random.Generator) -> Floats:
    own = rng.standard_normal(centres.shape, np.float32) / np.float32(np.sqrt(centres.shape[1]))
    return _unit_rows(centres + own)


def _unit_rows(rows: Floats) -> Floats:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)
