"""The command trimtab-evaluate: figures of finished runs on their test users, and sweeps over settings."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from training.checkpoint import write_json
from training.errors import ConfigError, TrainingError
from training.evaluation.measures import MEASURES
from training.evaluation.papers.command import add_paper_flags, paper_report
from training.evaluation.plan import read_plan
from training.evaluation.report import Report
from training.evaluation.sweep import run_sweep
from training.evaluation.sweep_report import sweep_report
from training.machine import add_machine_flags, device_of, use_threads
from training.reporting import ProgressReporter, table
from training.run import load_run
from training.summary import DataSummary


def main(argv: Sequence[str] | None = None) -> int:
    """trimtab-evaluate. Returns the exit status."""
    console, errors = Console(), Console(stderr=True)
    arguments = list(sys.argv[1:] if argv is None else argv)
    parsed = _parse(arguments)
    began = time.monotonic()
    command = shlex.join(["trimtab-evaluate", *arguments])
    try:
        use_threads(parsed.threads)
        report = _MAKERS.get(parsed.what, _measure)(parsed, command, console)
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


def _measure(parsed: argparse.Namespace, command: str, console: Console) -> Report:
    return MEASURES[parsed.what].measure([load_run(run) for run in parsed.run], parsed, command)


def _sweep(parsed: argparse.Namespace, command: str, console: Console) -> Report:
    if parsed.out is None:
        raise ConfigError(
            "a sweep needs --out: finished cells are kept there, and the report is written there"
        )
    plan = read_plan(parsed.plan)
    with _SweepReporter(console) as reporter:
        cells = run_sweep(plan, parsed.out, reporter, device_of(parsed.device))
    return sweep_report(plan, cells, parsed.plan.stem, command)


def _paper(parsed: argparse.Namespace, command: str, console: Console) -> Report:
    with _SweepReporter(console) as reporter:
        return paper_report(parsed, parsed.others, command, reporter, device_of(parsed.device))


class _SweepReporter(ProgressReporter):
    """Without the table of each data set: a sweep reads the same few again and again."""

    def data(self, summary: DataSummary) -> None:
        """Nothing."""


_MAKERS: dict[str, Callable[[argparse.Namespace, str, Console], Report]] = {
    "sweep": _sweep,
    "paper": _paper,
}


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """A paper's other flags are trimtab-train's, and read as such later."""
    parser = _parser()
    if arguments[:1] != ["paper"]:
        return parser.parse_args(arguments)
    parsed, others = parser.parse_known_args(arguments)
    parsed.others = others
    return parsed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trimtab-evaluate",
        description="Figures of finished runs on their test users, and sweeps over settings. With --out, a "
        "report is written: Markdown, JSON and a plot.",
    )
    commands = parser.add_subparsers(dest="what", required=True)
    for name, measure in MEASURES.items():
        command = commands.add_parser(name, help=measure.text, description=measure.text)
        text = "Directories that trimtab-train wrote; figures of several are means with standard errors."
        command.add_argument("--run", type=Path, required=True, nargs="+", help=text)
        _add_outputs(command)
        measure.add_flags(command)
    text = "Trains and measures every cell of a grid of trimtab-train's flags; goes on where it stopped."
    command = commands.add_parser("sweep", help=text, description=text)
    command.add_argument(
        "plan", type=Path, metavar="PLAN", help="TOML file; see docs/evaluation.md."
    )
    _add_outputs(command)
    text = "A paper's setting as far as the data allow, its figures and ours side by side."
    more = f"{text} All other flags are trimtab-train's and hold for every run."
    command = commands.add_parser("paper", help=text, description=more, allow_abbrev=False)
    add_paper_flags(command)
    _add_outputs(command)
    return parser


def _add_outputs(command: argparse.ArgumentParser) -> None:
    text = "Write the report there, as NAME.md, NAME.json and NAME.png."
    command.add_argument("--out", type=Path, metavar="FOLDER", help=text)
    command.add_argument(
        "--json", type=Path, metavar="FILE", help="Write the figures alone there, as JSON."
    )
    add_machine_flags(command)
