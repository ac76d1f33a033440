"""Measures on several runs how well requests control lists, and writes the report.

    python -m benchmarks.steering.control --out DIR --runs RUN ... [--users 600] [--report FOLDER]

RUN are finished runs, those of frontier.py for instance. Each one's figures are kept
under DIR, so that the same command goes on where it was stopped; the report is made from all that
are there. For a few runs `trimtab-evaluate steering` does the same at once.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from training.checkpoint import read_json, write_json
from training.evaluation.report import plain
from training.run import load_run
from training.studies.control.measure import ControlOptions, measure
from training.studies.control.report import control_report

COMMAND = "python -m benchmarks.steering.control --out DIR --runs RUN ... --report docs/results"
SETS = ("ml-1m", "anime-5k", "ml-latest-small-tags", "amazon-beauty")
"""In the report's order; others come after them."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="Where each run's figures are kept."
    )
    parser.add_argument(
        "--runs", type=Path, nargs="*", default=[], metavar="RUN", help="Runs to measure."
    )
    parser.add_argument(
        "--users", type=int, default=600, help="Judged test users of a run, at most."
    )
    parser.add_argument(
        "--report", type=Path, help="Folder to write steering.md, .json and .png to."
    )
    parser.add_argument("--threads", type=int, default=1)
    parsed = parser.parse_args()
    torch.set_num_threads(parsed.threads)
    parsed.out.mkdir(parents=True, exist_ok=True)
    for path in parsed.runs:
        cell = parsed.out / f"{path.name}.json"
        if not cell.is_file():
            began = time.process_time()
            figures = measure(load_run(path), ControlOptions(max_users=parsed.users))
            figures |= {"cpu_s": time.process_time() - began}
            write_json(cell, plain(figures))
            print(f"{path.name}: {figures['cpu_s']:.0f} CPU s", flush=True)
    if parsed.report is not None:
        cells = [read_json(path) for path in sorted(parsed.out.glob("*.json"))]
        cells.sort(key=lambda cell: (_place(cell["data_set"]), cell["seed"]))
        report = control_report(cells, COMMAND)
        report.lasting(sum(cell["cpu_s"] for cell in cells)).write(parsed.report)


def _place(name: str) -> int:
    return SETS.index(name) if name in SETS else len(SETS)


if __name__ == "__main__":
    main()
