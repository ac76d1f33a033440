"""The command trimtab-evaluate steering: measures each run and joins the figures in one report."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rich.console import Console

from training.commandline import add_flags, read_flags
from training.evaluation.report import Report
from training.run import Run
from training.studies.control.measure import ControlOptions, measure
from training.studies.control.report import control_report


def add_control_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ControlOptions."""
    add_flags(parser, ControlOptions, title="steering")


def measure_control(runs: Sequence[Run], parsed: argparse.Namespace, command: str) -> Report:
    """Measures each run, with the current part and run on the console, and reports them."""
    options = read_flags(ControlOptions, parsed)
    with Console(stderr=True).status("steering") as status:
        return control_report([measure(run, options, status.update) for run in runs], command)
