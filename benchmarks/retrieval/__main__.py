"""Measures speed and recall of finding items.

    python -m benchmarks.retrieval --out DIR [--parts ...]


Kinds of index at 40,000 items of width 512, without and with filters, and catalogues of 100,000 to
10,000,000 items of width 128. What is asked is what a request asks: candidates, scored again, in
order; one query at a time, in CPU time on one thread, sides in turn. Queries are others than those
that the indexes were chosen by. Catalogues stay in DIR; the report is DIR/retrieval.md. 10,000,000
items take 6 GB of disk, and an hour.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from benchmarks.retrieval.catalogues import CatalogueOptions, Queries, make_catalogue, make_index
from benchmarks.retrieval.report import write_report
from exporters.index_kinds import KINDS
from service.arrays import Bools, Floats
from service.batching.joint_calls import run_alone
from service.bundle.catalogue import Catalogue
from service.ranking.order import rank, score
from service.retrieval.exact_index import ExactIndex
from service.retrieval.faiss_index import FaissIndex
from service.retrieval.filter import Condition, Filter
from service.retrieval.protocol import Index
from service.retrieval.strategy import find_candidates

BASE = CatalogueOptions(40_000, d=512, cluster_size=200)
SIZES = (100_000, 1_000_000, 10_000_000)
LARGE_KINDS = ("ivf-pq4",)
SMALL_KINDS = ("flat", "pq4", "ivf-pq4", "ivf-sq8")
DEPTHS = (20, 100)
ROUNDS = 2
"""The first warms up and is not counted."""
GENRES = 12
OVER_FETCHES = (1, 2, 4, 8, 16)

Figures = dict[str, Any]
_NOTHING = np.empty(0, np.int64)


@dataclass(frozen=True)
class Side:
    """One way to answer queries."""

    index: Index
    matrix: Floats
    queries: Floats
    best: NDArray[np.float32]
    """The exact best scores: [m, 100 or as many as there are]."""
    n: int = 100
    allowed: Bools | None = None


def measure(sides: Mapping[str, Side], rounds: int = ROUNDS) -> dict[str, Figures]:
    """Measures every side in turn, query by query: median microseconds, and recall."""
    times = {name: np.empty((rounds, len(side.queries))) for name, side in sides.items()}
    recall = {name: np.empty(len(side.queries)) for name, side in sides.items()}
    for turn in range(rounds):
        for row in range(max(len(side.queries) for side in sides.values())):
            for name, side in sides.items():
                begin = time.thread_time_ns()
                found = run_alone(
                    find_candidates(
                        side.index,
                        side.matrix,
                        side.queries[row][None],
                        side.n,
                        side.allowed,
                        _NOTHING,
                    )
                )
                scores = score(side.matrix, found.items, side.queries[row])
                listed = rank(found.items, scores, side.n)
                times[name][turn, row] = (time.thread_time_ns() - begin) / 1e3
                best = side.best[row, : side.n]
                hits = listed.scores >= best[-1] - 1e-5 * np.abs(best[-1])
                recall[name][row] = min(hits.sum() / len(best), 1.0)
    return {
        name: {
            "p50_us": float(np.median(times[name][1:])),
            "plain_us": float(np.median(times[name][1:, : len(side.queries) // 2])),
            "steered_us": float(np.median(times[name][1:, len(side.queries) // 2 :])),
            "plain": float(recall[name][: len(side.queries) // 2].mean()),
            "steered": float(recall[name][len(side.queries) // 2 :].mean()),
        }
        for name, side in sides.items()
    }


def open_matrix(folder: Path) -> Floats:
    return np.asarray(np.load(folder / "items.npy", mmap_mode="r"))


def open_index(folder: Path, name: str, matrix: Floats) -> Index:
    figures = json.loads((folder / f"{name}.json").read_text())
    if figures["kind"] == "flat":
        return ExactIndex(matrix)
    return FaissIndex.read(folder / f"{name}.faiss", figures["over_fetch"])


def kinds(out: Path) -> Figures:
    """Measures every kind with enough recall, without a filter and with each."""
    folder = out / "base"
    queries = _some(make_catalogue(BASE, folder))
    matrix = open_matrix(folder)
    found: Figures = {}
    for kind in ("flat", *KINDS):
        figures = make_index(folder, (kind,))
        if figures["kind"] != kind:
            found[kind] = {"figures": figures}
            continue
        index = open_index(folder, kind, matrix)
        sides = {
            f"{name} @{n}": Side(index, matrix, queries.asked, best, n, allowed)
            for name, (allowed, best) in _filters(folder, matrix, queries).items()
            for n in DEPTHS
        }
        found[kind] = {"figures": figures, "sides": measure(sides)}
    return found


def _some(queries: Queries) -> Queries:
    """Takes every fourth query, to save time."""
    return queries._replace(asked=queries.asked[::4], best=queries.best[::4])


def _filters(
    folder: Path, matrix: Floats, queries: Queries
) -> dict[str, tuple[Bools | None, NDArray[np.float32]]]:
    """Filters at random, and by genres, which lie together; each with the exact best scores."""
    catalogue = Catalogue.read(folder / "items.parquet", ["genre"])
    rng = np.random.default_rng(1)
    masks: dict[str, Bools | None] = {"none": None}
    for percent in (50, 5, 0.5, 0.05):
        masks[f"{percent:g} %"] = rng.random(len(catalogue)) < percent / 100
    half = tuple(f"genre {genre}" for genre in range(0, GENRES, 2))
    masks["6 genres"] = catalogue.allowed(Filter(all_of=(Condition("genre", half),)))
    masks["1 genre"] = catalogue.allowed(Filter(all_of=(Condition("genre", half[:1]),)))
    scores = queries.asked @ matrix[:, :-1].T
    return {
        name: (
            allowed,
            -np.sort(-(scores if allowed is None else scores[:, allowed]), axis=1)[:, :100],
        )
        for name, allowed in masks.items()
    }


def curves(out: Path) -> Figures:
    """Measures recall against time, of each kind with every setting."""
    folder = out / "base"
    queries = _some(make_catalogue(BASE, folder))
    matrix = open_matrix(folder)
    points = {}
    for kind, options in KINDS.items():
        figures = make_index(folder, (kind,))
        if figures["kind"] != kind:
            continue
        index = faiss.read_index(str(folder / f"{kind}.faiss"))
        sides = {}
        for effort in options.efforts:
            path = folder / f"{kind}-{effort:g}.faiss"
            if isinstance(index, faiss.IndexIVF):
                index.nprobe = max(int(effort * index.nlist), 1)
            elif isinstance(index, faiss.IndexHNSW):
                index.hnsw.efSearch = int(effort)
            faiss.write_index(index, str(path))
            for over_fetch in OVER_FETCHES if "pq4" in kind else (1,):
                opened = FaissIndex.read(path, over_fetch)
                sides[f"{effort:g} {over_fetch}"] = Side(
                    opened, matrix, queries.asked, queries.best
                )
            path.unlink()  # it stays mapped
        points[kind] = list(measure(sides).values())
    exact = {"flat": Side(ExactIndex(matrix), matrix, queries.asked, queries.best)}
    return points | {"flat": list(measure(exact).values())}


def scale(out: Path) -> Figures:
    """Measures catalogues of growing size; memory and loading in processes of their own."""
    sides: dict[str, Side] = {}
    sizes: dict[int, Figures] = {}
    for items in SIZES:
        folder = out / str(items)
        names = LARGE_KINDS if items > 10**6 else SMALL_KINDS
        queries = make_catalogue(CatalogueOptions(items), folder)
        figures = make_index(folder, names)
        probe = [sys.executable, "-m", "benchmarks.retrieval"]
        probe += ["--out", str(folder), "--probe", "+".join(names)]
        probed = subprocess.run(probe, check=True, capture_output=True, text=True)
        sizes[items] = {"figures": figures, "probe": json.loads(probed.stdout)}
        matrix = open_matrix(folder)
        index = open_index(folder, "+".join(names), matrix)
        for n in DEPTHS:
            sides[f"{items} @{n}"] = Side(index, matrix, queries.asked, queries.best, n)
    measured = measure(sides)
    for items, found in sizes.items():
        found["sides"] = {n: measured[f"{items} @{n}"] for n in DEPTHS}
    return {str(items): found for items, found in sizes.items()}


def probe(folder: Path, name: str) -> Figures:
    """Measures memory and loading of a catalogue in this process, which loaded nothing before."""
    before = _memory()
    begin = time.monotonic()
    catalogue = Catalogue.read(folder / "items.parquet", ["genre", "year"])
    read = time.monotonic()
    with_catalogue = _memory()
    matrix = open_matrix(folder)
    index = open_index(folder, name, matrix)
    opened = time.monotonic()
    with np.load(folder / "queries.npz") as file:
        side = Side(index, matrix, file["asked"], file["best"])
    measure({"all": side})
    draw = np.random.default_rng(0).integers(len(catalogue), size=20_000).tolist()
    looked = time.thread_time_ns()
    for item in draw:
        catalogue.item_ids[item]
    return {
        "catalogue_s": read - begin,
        "index_s": opened - read,
        "text_us": (time.thread_time_ns() - looked) / 1e3 / len(draw),
        "catalogue_bytes": with_catalogue["RssAnon"] - before["RssAnon"],
        "before": before,
        "after": _memory(),
        "mapped": {file: _mapped(folder / file) for file in ("items.npy", f"{name}.faiss")},
    }


def _memory() -> dict[str, int]:
    """Reads the resident bytes of this process: its own, and those of mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    pairs = (line.split() for line in lines if line.startswith("Rss"))
    return {name.rstrip(":"): int(kilobytes) * 1024 for name, kilobytes, _ in pairs}


def _mapped(path: Path) -> int:
    """Reads the resident bytes of a file that is mapped into this process."""
    total = 0
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0]:
            inside = line.endswith(str(path))
        elif inside and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


PARTS: dict[str, Callable[[Path], Figures]] = {"kinds": kinds, "curves": curves, "scale": scale}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--probe", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        parser.error("expected OMP_NUM_THREADS=1 in the environment: times are those of one thread")
    faiss.omp_set_num_threads(1)
    if arguments.probe:
        print(json.dumps(probe(arguments.out, arguments.probe)))
        return
    cells = arguments.out / "cells"
    cells.mkdir(parents=True, exist_ok=True)
    for part in arguments.parts:
        (cells / f"{part}.json").write_text(json.dumps(PARTS[part](arguments.out)))
    write_report(arguments.out)


if __name__ == "__main__":
    main()
