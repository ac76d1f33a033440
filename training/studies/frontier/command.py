"""The command trimtab-evaluate frontier: measures each run and joins the figures in one report."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rich.console import Console

from training.commandline import add_flags, read_flags
from training.evaluation.report import Report, plain
from training.run import Run
from training.studies.frontier.measure import FrontierOptions, measure
from training.studies.frontier.report import frontier_report


def add_frontier_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of FrontierOptions."""
    add_flags(parser, FrontierOptions, title="frontier")


def measure_frontier(runs: Sequence[Run], parsed: argparse.Namespace, command: str) -> Report:
    """Measures each run, with the current method and run on the console, and reports them."""
    options = read_flags(FrontierOptions, parsed)
    with Console(stderr=True).status("frontier") as status:
        figures = [plain(measure(run, options, status.update)) for run in runs]
    return frontier_report(figures, command)
