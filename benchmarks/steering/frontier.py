"""Measures the steering frontier on each data set: trains, measures, writes the report.

    python -m benchmarks.steering.frontier --data FOLDER --out DIR [--sets ml-1m ...]
        [--seeds 1 2 3] [--rotations 0]
    python -m benchmarks.steering.frontier --out DIR --report docs/results

FOLDER holds the data sets (see docs/data.md). Runs are kept under DIR/runs and each one's figures
under DIR/cells, so that the same command goes on where it was stopped. The report is made from all
cells there.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path
from typing import Any

import polars as pl
import torch
from matplotlib.figure import Figure

from training.checkpoint import read_json, write_json
from training.config import TrainConfig
from training.evaluation.report import Report, plain
from training.pipeline import train
from training.splits import SplitConfig
from training.studies.frontier.measure import FrontierOptions, measure
from training.studies.frontier.report import PLOTTED, curves, frontier_report

TAGS = "ml-latest-small-tags"
USERS = 300
SETS = {
    "ml-1m": FrontierOptions(USERS),
    "anime-5k": FrontierOptions(USERS, max_concepts=15),
    TAGS: FrontierOptions(USERS, max_concepts=30),
    "amazon-beauty": FrontierOptions(USERS, max_concepts=12),
}
"""Options of each data set; TAGS is ml-latest-small with its users' tags as genres."""
COMMAND = "python -m benchmarks.steering.frontier --data FOLDER --out DIR --report docs/results"


def folder_of(name: str, data: Path, out: Path) -> Path:
    """Finds the data set's folder; makes that of the tags from the publisher's."""
    if name != TAGS:
        return data / name
    folder = out / "data" / name
    source = data / "ml-latest-small"
    if not (folder / "items.parquet").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / "interactions.parquet", folder)
        tags = pl.read_parquet(source / "tags.parquet")
        tags = (
            tags.select("item_id", tags=pl.col("tag").str.to_lowercase())
            .unique()
            .sort("item_id", "tags")
        )
        tags = tags.group_by("item_id", maintain_order=True).agg("tags")
        items = pl.read_parquet(source / "items.parquet").select("item_id", "title")
        items.join(tags, on="item_id", how="left", maintain_order="left").write_parquet(
            folder / "items.parquet"
        )
    return folder


def run(
    name: str, seed: int, rotation: int, data: Path, out: Path, options: FrontierOptions
) -> None:
    """Computes a run's figures unless they are there."""
    label = f"{name}-{seed}-{rotation}"
    path = out / "cells" / f"{label}.json"
    if path.is_file():
        return
    began = time.process_time()
    split = SplitConfig(test_share=0.2, rotation=rotation)
    config = TrainConfig(data=str(folder_of(name, data, out)), seed=seed, split=split)
    trained = train(config, out / "runs" / label)
    figures = measure(trained, options) | {"cpu_s": time.process_time() - began}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, plain(figures))
    print(f"{label}: {figures['cpu_s']:.0f} CPU s", flush=True)


def write(report: Report, cells: list[dict[str, Any]], folder: Path) -> None:
    """Writes the report, with one panel for each data set."""
    report.write(folder)
    names = list(dict.fromkeys(cell["data_set"] for cell in cells))
    figure = Figure(figsize=(5 * len(names), 4), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        for curve in curves([cell for cell in cells if cell["data_set"] == name], PLOTTED):
            means = [estimate.mean for estimate in curve.y]
            axes.plot(list(curve.x), means, "o-", label=curve.name, markersize=3)
        axes.set(title=name, xlabel="mean exposure share of the concept", ylabel="nDCG@20")
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize="x-small")
    figure.savefig(folder / "frontier.png", dpi=100, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, help="Folder of the data sets; without it nothing is measured."
    )
    parser.add_argument("--out", type=Path, required=True, help="Where runs and cells are kept.")
    parser.add_argument("--sets", nargs="*", choices=[*SETS], default=[*SETS])
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3])
    parser.add_argument(
        "--rotations", type=int, nargs="*", default=[0], help="0 to 4 test every user once."
    )
    parser.add_argument(
        "--users", type=int, help=f"Judged test users of a run, at most (default: {USERS})."
    )
    parser.add_argument(
        "--report", type=Path, help="Folder to write frontier.md, .json and .png to."
    )
    parser.add_argument("--threads", type=int, default=1)
    parsed = parser.parse_args()
    torch.set_num_threads(parsed.threads)
    for rotation in parsed.rotations if parsed.data else []:
        for seed in parsed.seeds:
            for name in parsed.sets:
                options = SETS[name]
                if parsed.users:
                    options = FrontierOptions(parsed.users, options.max_concepts)
                run(name, seed, rotation, parsed.data, parsed.out, options)
    if parsed.report is not None:
        paths = sorted((parsed.out / "cells").glob("*.json"))
        cells = [read_json(path) for path in paths]
        cells.sort(
            key=lambda cell: ([*SETS].index(cell["data_set"]), cell["seed"], cell["rotation"])
        )
        write(frontier_report(cells, COMMAND), cells, parsed.report)


if __name__ == "__main__":
    main()
