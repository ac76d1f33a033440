"""The command trimtab-evaluate paper: trains what is missing, measures runs, writes the report."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from training.arrays import Ints
from training.errors import ConfigError, DataError
from training.evaluation.report import Report
from training.flags import RaisingParser, read_config
from training.pipeline import train
from training.progress import Reporter
from training.run import Run
from training.studies.papers.gender import GENDER
from training.studies.papers.inner_block import INNER_BLOCK
from training.studies.papers.knobs import KNOBS
from training.studies.papers.paper import Findings, Groups, Paper
from training.studies.papers.recsae import RECSAE

PAPERS: dict[str, Paper] = {"P1": KNOBS, "P2": INNER_BLOCK, "P3": GENDER, "P4": RECSAE}


def add_paper_flags(command: argparse.ArgumentParser) -> None:
    """Adds the flags for the paper and its data; all other flags are trimtab-train's."""
    papers = "; ".join(f"{name}: {paper.title}" for name, paper in PAPERS.items())
    command.add_argument("paper", metavar="PAPER", help=f"Which paper. {papers}.")
    text = "Data sets, as trimtab-train names them."
    command.add_argument("--data", required=True, nargs="+", metavar="DATA", help=text)
    text = "Seeds of the runs (default: 1 2 3)."
    command.add_argument(
        "--seeds", type=int, nargs="+", default=[1, 2, 3], metavar="SEED", help=text
    )
    text = "Test users of each run that are judged, a random choice (default: all)."
    command.add_argument("--users", type=int, metavar="N", help=text)
    text = "Where runs are kept, and taken from if they are there (default: paper-runs)."
    command.add_argument(
        "--runs", type=Path, default=Path("paper-runs"), metavar="FOLDER", help=text
    )


def paper_report(
    parsed: argparse.Namespace,
    others: Sequence[str],
    command: str,
    reporter: Reporter,
    device: torch.device,
) -> Report:
    """Reports every setting of the paper on every data set with every seed.

    others are flags of trimtab-train.

    Raises:
        ConfigError: an unknown paper, too few users, or flags that are not valid.
        DataError: a data set that lacks what the paper needs.
    """
    if parsed.paper not in PAPERS:
        raise ConfigError(f"paper: expected one of {', '.join(PAPERS)}, found {parsed.paper!r}")
    if parsed.users is not None and parsed.users < 2:
        raise ConfigError(f"--users: expected at least 2, found {parsed.users}")
    paper = PAPERS[parsed.paper]
    groups: dict[tuple[str, str], list[Findings]] = {}
    for data in parsed.data:
        for setting, flags in paper.settings.items():
            for seed in parsed.seeds:
                arguments = [*flags, *others, "--data", data, "--seed", str(seed)]
                config = read_config(arguments, RaisingParser(allow_abbrev=False))[1]
                name = "-".join([parsed.paper, Path(data).name, *setting.split(), f"seed{seed}"])
                run = train(config, parsed.runs / name, reporter, device=device)
                users = _users(run, parsed.users, paper, parsed.paper)
                reporter.note(f"{name}: {len(users)} test users")
                findings = Findings(
                    run.data_set, setting, seed, len(users), paper.measure(run, users)
                )
                groups.setdefault((run.data_set, setting), []).append(findings)
    return _report(parsed.paper, paper, groups, command)


def _users(run: Run, most: int | None, paper: Paper, name: str) -> Ints:
    """Returns test users in order, at most a given number of them, drawn by the run's seed."""
    test = run.split.test
    if most is None and len(test) < paper.least_users:
        raise DataError(
            f"{run.path}: expected at least {paper.least_users} test users for {name}, found "
            f"{len(test)}: hold out more (--split-test-share), or say with --users how many are "
            "enough"
        )
    if most is not None and len(test) < most:
        raise DataError(f"{run.path}: expected {most} test users (--users), found {len(test)}")
    return np.sort(np.random.default_rng([run.config.seed, 0xFA]).permutation(test)[:most])


def _report(name: str, paper: Paper, groups: Groups, command: str) -> Report:
    parts = paper.parts(groups)
    figures = [findings for group in groups.values() for findings in group]
    return Report(
        name=f"paper-{name.lower()}",
        title=f"{name}: {paper.title}",
        command=command,
        paragraphs=(
            f"The setting of {paper.source}, as far as the data allow. {_ERRORS}",
            "What differs from the paper:",
            paper.differs,
        ),
        tables=parts.tables,
        plot=parts.plot,
        figures=figures,
        pictures=parts.pictures,
    )


_ERRORS = (
    "± is the standard error: the larger of that over the seeds and that over their test users."
)
