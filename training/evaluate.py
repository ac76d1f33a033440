"""Runs the command trimtab-evaluate: reports on finished runs, sweeps and studies."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from training.checkpoint import write_json
from training.errors import ConfigError, TrainingError
from training.evaluation.ablation import ablation_report, add_ablation_flags
from training.evaluation.dictionary import add_dictionary_flags, dictionary_report
from training.evaluation.interpretability_report import (
    add_concept_count,
    interpretability_report,
)
from training.evaluation.plan import read_plan
from training.evaluation.report import Report
from training.evaluation.run_reports import (
    add_list_length,
    fidelity_report,
    neurons_report,
    ranking_report,
)
from training.evaluation.sweep import run_sweep
from training.evaluation.sweep_report import sweep_report
from training.machine import add_machine_flags, device_of, use_threads
from training.reporting import ProgressReporter, table
from training.run import Run, load_run
from training.summary import DataSummary

_DESCRIPTION = (
    "Reports on finished runs, measured on their test users, and sweeps over settings. With "
    "--out, a report is written: Markdown, JSON and a plot."
)
_RUNS = (
    "Directories that trimtab-train wrote; the figures of several are means with standard errors."
)
_SWEEP = (
    "Trains and measures every cell of a grid of trimtab-train's flags; resumes where it stopped."
)
_PAPER = "Reproduces a paper's setting as far as the data allow; its figures and ours side by side."
_PAPER_FLAGS = "All other flags are trimtab-train's and hold for every run."


class Measure(NamedTuple):
    """The flags and the report of a subcommand that measures finished runs."""

    add_flags: Callable[[argparse.ArgumentParser], None]
    report: Callable[[Sequence[Run], argparse.Namespace, str], Report]


class Subcommand(NamedTuple):
    """A subcommand that measures finished runs: its help text, and a function that imports it."""

    text: str
    load: Callable[[], Measure]


def _frontier() -> Measure:
    from training.studies.frontier.command import add_frontier_flags, measure_frontier

    return Measure(add_frontier_flags, measure_frontier)


def _steering() -> Measure:
    from training.studies.control.command import add_control_flags, measure_control

    return Measure(add_control_flags, measure_control)


MEASURES: dict[str, Subcommand] = {
    "ranking": Subcommand(
        "Compares the recommender with EASE, PureSVD (both tuned on the validation users) and "
        "popularity.",
        lambda: Measure(add_list_length, ranking_report),
    ),
    "fidelity": Subcommand(
        "Measures what the SAE's reconstruction costs.",
        lambda: Measure(add_list_length, fidelity_report),
    ),
    "neurons": Subcommand(
        "Finds the neuron that best tells each concept's items apart, and measures steering it "
        "alone.",
        lambda: Measure(lambda _: None, neurons_report),
    ),
    "interpretability": Subcommand(
        "Measures what neurons mean, compared with raw dimensions and an untrained SAE; for "
        "several runs, how stable that is.",
        lambda: Measure(add_concept_count, interpretability_report),
    ),
    "dictionary": Subcommand(
        "Describes each neuron in words, and tests the words on items they were not made from.",
        lambda: Measure(add_dictionary_flags, dictionary_report),
    ),
    "frontier": Subcommand(
        "Measures the steering frontier: the relevance that each method keeps at an equal share "
        "of a concept.",
        _frontier,
    ),
    "ablation": Subcommand(
        "Measures what silencing a concept's neurons does to lists, compared with random neurons.",
        lambda: Measure(add_ablation_flags, ablation_report),
    ),
    "steering": Subcommand(
        "Measures how well requests control lists: operations, halved shares, two concepts at "
        "once, side effects.",
        _steering,
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs trimtab-evaluate and returns its exit status."""
    console = Console()
    errors = Console(stderr=True)
    arguments = list(sys.argv[1:] if argv is None else argv)
    parsed = _parse(arguments)
    began = time.monotonic()
    command = shlex.join(["trimtab-evaluate", *arguments])
    try:
        use_threads(parsed.threads)
        report = parsed.make(parsed, command, console)
        report = report.lasting(time.monotonic() - began)
        for shown in report.tables:
            console.print(table(shown.title, shown.columns, shown.rows))
        if parsed.json is not None:
            write_json(parsed.json, report.plain_figures)
        if parsed.out is not None:
            report.write(parsed.out)
            console.print(f"{parsed.out / report.name}.md", markup=False, highlight=False)
    except TrainingError as error:
        errors.print(f"trimtab-evaluate: {error}", markup=False, highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        errors.print("trimtab-evaluate: interrupted", markup=False, highlight=False)
        return 130
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parses the arguments; for a paper, others holds the flags that trimtab-train reads later."""
    asked = arguments[0] if arguments else ""
    parser = _parser(asked)
    if asked != "paper":
        return parser.parse_args(arguments)
    parsed, others = parser.parse_known_args(arguments)
    parsed.others = others
    return parsed


def _parser(asked: str) -> argparse.ArgumentParser:
    """Builds the parser; only the subcommand that was asked for is imported and gets its flags."""
    parser = argparse.ArgumentParser(prog="trimtab-evaluate", description=_DESCRIPTION)
    commands = parser.add_subparsers(dest="what", required=True)
    for name, subcommand in MEASURES.items():
        command = commands.add_parser(name, help=subcommand.text, description=subcommand.text)
        if name == asked:
            _add_measure(command, subcommand.load())
    command = commands.add_parser("sweep", help=_SWEEP, description=_SWEEP)
    if asked == "sweep":
        _add_sweep(command)
    command = commands.add_parser(
        "paper", help=_PAPER, description=f"{_PAPER} {_PAPER_FLAGS}", allow_abbrev=False
    )
    if asked == "paper":
        _add_paper(command)
    return parser


def _add_measure(command: argparse.ArgumentParser, measure: Measure) -> None:
    command.add_argument("--run", type=Path, required=True, nargs="+", help=_RUNS)
    _add_outputs(command)
    measure.add_flags(command)

    def make(parsed: argparse.Namespace, line: str, _console: Console) -> Report:
        return measure.report([load_run(run) for run in parsed.run], parsed, line)

    command.set_defaults(make=make)


def _add_sweep(command: argparse.ArgumentParser) -> None:
    text = "TOML file; see docs/evaluation.md."
    command.add_argument("plan", type=Path, metavar="PLAN", help=text)
    _add_outputs(command)
    command.set_defaults(make=_sweep)


def _add_paper(command: argparse.ArgumentParser) -> None:
    from training.studies.papers.command import add_paper_flags, paper_report

    add_paper_flags(command)
    _add_outputs(command)

    def make(parsed: argparse.Namespace, line: str, console: Console) -> Report:
        with _SweepReporter(console) as reporter:
            return paper_report(parsed, parsed.others, line, reporter, device_of(parsed.device))

    command.set_defaults(make=make)


def _add_outputs(command: argparse.ArgumentParser) -> None:
    text = "Write the report there, as NAME.md, NAME.json and NAME.png."
    command.add_argument("--out", type=Path, metavar="FOLDER", help=text)
    text = "Write the figures alone there, as JSON."
    command.add_argument("--json", type=Path, metavar="FILE", help=text)
    add_machine_flags(command)


def _sweep(parsed: argparse.Namespace, command: str, console: Console) -> Report:
    if parsed.out is None:
        raise ConfigError(
            "--out: expected a folder for finished cells and the report of a sweep, found none"
        )
    plan = read_plan(parsed.plan)
    with _SweepReporter(console) as reporter:
        cells = run_sweep(plan, parsed.out, reporter, device_of(parsed.device))
    return sweep_report(plan, cells, parsed.plan.stem, command)


class _SweepReporter(ProgressReporter):
    """Omits the table of each data set: a sweep reads the same few again and again."""

    def data(self, summary: DataSummary) -> None:
        """Prints nothing."""
