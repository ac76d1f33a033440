"""Runs the command trimtab-train."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from training.errors import TrainingError
from training.flags import read_config
from training.machine import add_machine_flags, device_of, use_threads
from training.pipeline import summarise_data
from training.pipeline import train as run_training
from training.reporting import ProgressReporter, cost_line, run_tables


def train(argv: Sequence[str] | None = None) -> int:
    """Runs trimtab-train, from interactions to a run directory, and returns the exit status."""
    console = Console()
    errors = Console(stderr=True)
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        parsed, config = read_config(arguments, _parser(), _add_flags)
        use_threads(parsed.threads)
        device = device_of(parsed.device)
        began = time.monotonic()
        with ProgressReporter(console) as reporter:
            if parsed.summary_only:
                summarise_data(config, parsed.out, reporter)
                return 0
            run = run_training(config, parsed.out, reporter, parsed.checkpoint_every_s, device)
    except TrainingError as error:
        errors.print(f"trimtab-train: {error}", markup=False, highlight=False, soft_wrap=True)
        return 1
    except OSError as error:
        text = f"trimtab-train: cannot write {parsed.out}: {error}; "
        text += "the same command goes on where it stopped"
        errors.print(text, markup=False, highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        text = "trimtab-train: interrupted; the same command goes on from the last checkpoint"
        errors.print(text, markup=False, highlight=False, soft_wrap=True)
        return 130
    for shown in run_tables(run):
        console.print(shown)
    console.print(cost_line(run), markup=False, highlight=False)
    console.print(
        f"{parsed.out} after {time.monotonic() - began:.1f} s", markup=False, highlight=False
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog="trimtab-train",
        description="Trains a recommender and its sparse autoencoder and fits concepts. "
        "Interrupted, the same command goes on where it stopped. The data set, the recommender and "
        "the SAE have flags of their own, shown for those that are chosen.",
        allow_abbrev=False,
    )


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, required=True, metavar="RUN", help="Directory of the run."
    )
    text = "Least time between two checkpoints, in seconds (default: 5)."
    parser.add_argument("--checkpoint-every-s", type=float, default=5.0, metavar="S", help=text)
    text = "Write the summary of the data to RUN, data.json and data.png, and stop."
    parser.add_argument("--summary-only", action="store_true", help=text)
    add_machine_flags(parser)
