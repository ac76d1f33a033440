"""Measures the cost of an SAE's reconstruction: every recommender, every SAE, its settings.

    python -m benchmarks.models.fidelity --data FOLDER --out DIR [--tables bars ...] [--seeds 1 2 3]
    python -m benchmarks.models.fidelity --out DIR --report docs/results

FOLDER holds the data sets ml-1m and amazon-beauty (see docs/data.md). A recommender is trained once
for each data set and seed and kept under DIR/recommenders; each cell's figures are kept under
DIR/cells, so that the same command goes on where it was stopped. The report is made from all cells
that are there.
"""

from __future__ import annotations

import argparse
import copy
import shutil
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.models.fidelity_plan import BASE, VARIANTS, Cell, plan
from benchmarks.models.fidelity_report import report
from training.arrays import Ints
from training.checkpoint import Checkpoints, load_tensors, read_json, save_tensors, write_json
from training.datasets import load_data_set
from training.datasets.folder import FolderOptions
from training.interactions import prepare
from training.measures.fidelity import Fidelity, measure_fidelity
from training.measures.ranking import mean_ndcg
from training.measures.scorers import ModelScorer
from training.recommenders import RECOMMENDERS, FitContext, Recommender
from training.saes import SAES, SparseAutoencoder
from training.splits import Split, SplitConfig, hold_out

USERS = 4000
"""Held-out users that are looked at, at most: a random choice."""


class Source(NamedTuple):
    """A data set: its positive events, its split, and the longest history that is read."""

    folder: str
    where: str
    min_value: float | None
    split: SplitConfig
    max_length: int


SOURCES = {
    "ml-1m-rated": Source("ml-1m", "user_id <= 2999", 4.0, SplitConfig(), 200),
    "ml-1m": Source("ml-1m", "", None, SplitConfig(), 200),
    "amazon-beauty": Source(
        "amazon-beauty", "", None, SplitConfig("leave-one-out", min_positives=3), 50
    ),
}


class Prepared(NamedTuple):
    """A split and the held-out users that are looked at."""

    split: Split
    max_length: int
    validation: Ints
    test: Ints


@cache
def load(folder: Path, data: str, seed: int) -> Prepared:
    source = SOURCES[data]
    options = FolderOptions(where=source.where)
    interactions = prepare(load_data_set(str(folder / source.folder), options, seed)).interactions
    positives = interactions.positives(source.min_value)
    split = hold_out(
        positives, interactions.user_ids, len(interactions.item_ids), source.split, seed
    )
    validation, test = (
        np.sort(np.random.default_rng(seed).permutation(users)[:USERS])
        for users in (split.validation, split.test)
    )
    return Prepared(split, source.max_length, validation, test)


@cache
def trained(folder: Path, out: Path, data: str, name: str, seed: int) -> Recommender:
    """Trains the recommender, or reads it from DIR/recommenders."""
    kind_name, changed = VARIANTS.get(name, (name, {}))
    prepared = load(folder, data, seed)
    kind = RECOMMENDERS[kind_name]
    options = kind.options(**changed)
    torch.manual_seed(seed)
    model = kind.build(options, prepared.split.n_items, prepared.max_length)
    path = out / "recommenders" / f"{data}-{name}-{seed}.safetensors".replace(" ", "_")
    if path.is_file():
        model.load_state_dict(load_tensors(path))
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        work = out / "work" / path.stem
        kind.fit(model, options, context(prepared, seed, work))
        save_tensors(path, dict(model.state_dict()))
        shutil.rmtree(work, ignore_errors=True)
    return model.eval().requires_grad_(False)


def context(prepared: Prepared, seed: int, work: Path) -> FitContext:
    def validate(model: Recommender) -> float:
        return mean_ndcg(
            ModelScorer(model, prepared.max_length), prepared.split, prepared.validation
        )

    return FitContext(prepared.split, prepared.max_length, seed, Checkpoints(work, 60.0), validate)


def run(cell: Cell, folder: Path, out: Path) -> None:
    """Computes a cell's figures unless they are there."""
    path = out / "cells" / f"{cell.name}.json"
    if path.is_file():
        return
    prepared = load(folder, cell.data, cell.seed)
    model = trained(folder, out, cell.data, cell.recommender, cell.seed)
    kind = SAES[cell.sae]
    options = kind.options(**BASE | dict(cell.options))
    torch.manual_seed(cell.seed)
    sae = kind.build(options, model.d)
    began = time.process_time()
    work = out / "work" / cell.name
    kind.fit(sae, options, model, context(prepared, cell.seed, work))
    seconds = time.process_time() - began
    shutil.rmtree(work, ignore_errors=True)
    sae.eval().requires_grad_(False)
    versions = {"": sae}
    if options.normalise == "standard":
        versions |= {
            " in place": in_place(sae),
            " in place, lossless": in_place(sae, lossless=True),
        }
    figures = {}
    for version, one in versions.items():
        for users in ("validation", "test"):
            fidelity = measured(model, one, prepared, getattr(prepared, users))
            figures[users + version] = fidelity._asdict()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, figures | {"k": sae.k, "cpu_s": seconds})
    test = figures["test"]
    print(
        f"{cell.name}: {100 * test['ndcg_loss']:.2f} %, overlap {test['overlap']:.3f}, l0 "
        f"{test['l0']:.1f}, dead {test['dead_share']:.3f}, {seconds:.0f} CPU s",
        flush=True,
    )


def measured(
    model: Recommender, sae: SparseAutoencoder, prepared: Prepared, users: Ints
) -> Fidelity:
    return measure_fidelity(model, sae, prepared.split, users, prepared.max_length)


def in_place(sae: SparseAutoencoder, lossless: bool = False) -> SparseAutoencoder:
    """Copies an SAE as if z were standardised in place: it does not restore scale and shift.

    lossless takes its reconstruction for perfect, which leaves what the lost scale costs by itself.
    """
    other = copy.copy(sae)
    other.reconstruct = sae.normalised if lossless else lambda z: sae.decode(sae.encode(z))  # type: ignore[method-assign]
    return other


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    tables = list(dict.fromkeys(cell.table for cell in plan()))
    parser.add_argument(
        "--data", type=Path, help="Folder of the data sets; without it nothing is trained."
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="Where recommenders and cells are kept."
    )
    parser.add_argument("--tables", nargs="*", choices=tables, default=tables)
    parser.add_argument("--recommenders", nargs="*", default=[*VARIANTS, *RECOMMENDERS])
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3])
    parser.add_argument(
        "--report", type=Path, help="Folder to write fidelity.md, .json and .png to."
    )
    parser.add_argument("--threads", type=int, default=1)
    parsed = parser.parse_args()
    torch.set_num_threads(parsed.threads)
    wanted = [cell for cell in plan() if cell.table in parsed.tables]
    for cell in wanted if parsed.data else []:
        if cell.recommender in parsed.recommenders:
            for seed in parsed.seeds:
                run(replace(cell, seed=seed), parsed.data, parsed.out)
    if parsed.report is not None:
        found = {path.stem: read_json(path) for path in (parsed.out / "cells").glob("*.json")}
        report(list(plan()), found, parsed.seeds).write(parsed.report)


if __name__ == "__main__":
    main()
