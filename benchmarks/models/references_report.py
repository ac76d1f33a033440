"""Builds the report of references.py: our models, the libraries', and the search."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from training.evaluation.report import Estimate, Report, Table

COMMAND = (
    "python -m benchmarks.models.references --data ML-1M --out DIR --libraries PYTHON; "
    "the same with --report FOLDER"
)
COLUMNS = (
    "method",
    "seeds",
    "nDCG@20",
    "recall@20",
    "ours against it",
    "CPU s a training",
    "chosen on validation users, first seed",
)


PARAGRAPHS = [
    "A new user is known by the whole history part alone (80 % of a held-out user's positives; "
    "the lists are judged on the rest). The seed decides the split, too. ± is the standard error "
    "over the seeds. Items without a training event are never listed. In a library's row, 'ours "
    "against it' says how much more nDCG@20 ours has, seed by seed, on the same users.",
    "Same fold-in for ours and theirs: ALS by its own equations; BPR, logistic factorisation and "
    "LightGCN by Factorisation's step on the trained item vectors, its two settings chosen on "
    "the validation users for each. What a library learned of its training users is not used. "
    "Our epochs are stopped on validation users; RecBole's are chosen among the saved ones the "
    "same way. implicit 0.7.3 and RecBole 1.2.1, unpatched, with torch 2.13.0, numpy 1.26.4 and "
    "scipy 1.11.4. Seconds are CPU time on one thread of a machine with other work; the sum at "
    "the end is that of all trainings, the search included.",
]


class Cell(NamedTuple):
    """The figures of one training; chosen: settings picked on the validation users."""

    setting: str
    method: str
    seed: int
    options: dict[str, Any]
    chosen: dict[str, Any]
    validation: float
    ndcg: float
    recall: float
    cpu_seconds: float


def report(
    kept: Mapping[str, Mapping[str, Sequence[Cell]]],
    titles: Mapping[str, str],
    references: Mapping[str, str],
    first_seed: int,
) -> Report:
    """Builds the tables of the measured cells.

    Args:
        kept: cells by setting and method, those of the best choice first.
        titles: of the settings.
        references: which of our methods each is a reference of, "" for none.
        first_seed: the seed of the search.
    """
    tables: list[Table] = []
    best: list[Cell] = []
    measured: list[Cell] = []
    missing: list[str] = []
    for setting, methods in kept.items():
        title = titles[setting]
        if absent := [name for name, cells in methods.items() if not cells]:
            missing.append(f"{title}: {', '.join(absent)}")
        chosen = {name: _best(cells) for name, cells in methods.items() if cells}
        rows = [
            (name, *_row(chosen, name, references[name]), _choice(cells[0]))
            for name, cells in chosen.items()
        ]
        if rows:
            tables.append(Table(title, COLUMNS, rows))
        best += itertools.chain(*chosen.values())
        measured += itertools.chain(*methods.values())
    tried = [
        (cell.setting, cell.method, _choice(cell), cell.validation)
        for cell in measured
        if cell.seed == first_seed
    ]
    title = "The search: nDCG@20 of the validation users, first seed"
    tables.append(Table(title, ("setting", "method", "choice", "nDCG@20"), tried))
    return Report(
        name="references",
        title="Beside the libraries",
        command=COMMAND,
        paragraphs=[
            *PARAGRAPHS,
            *([f"Not measured yet. {'; '.join(missing)}."] if missing else []),
        ],
        tables=tables,
        plot=None,
        figures=[cell._asdict() for cell in best],
        seconds=sum(cell.cpu_seconds for cell in measured),
    )


def _best(cells: Sequence[Cell]) -> list[Cell]:
    """Selects the cells of the best choice, which is the first one's."""
    return [cell for cell in cells if cell.options == cells[0].options]


def _row(cells: Mapping[str, Sequence[Cell]], name: str, reference_of: str) -> tuple[object, ...]:
    """Figures over the seeds, and for a reference how far ours is from it, seed by seed."""
    own = cells[name]
    against: object = None
    theirs = {cell.seed: cell.ndcg for cell in own}
    ours = {cell.seed: cell.ndcg for cell in cells.get(reference_of, [])}
    if ratios := [100 * (ours[seed] / theirs[seed] - 1) for seed in ours.keys() & theirs.keys()]:
        estimate = Estimate.of(ratios)
        error = "" if estimate.error is None else f" ± {estimate.error:.1f}"
        against = f"{reference_of} {estimate.mean:+.1f}{error} %"
    return (
        len(own),
        Estimate.of([cell.ndcg for cell in own]),
        Estimate.of([cell.recall for cell in own]),
        against,
        f"{np.mean([cell.cpu_seconds for cell in own]):.0f}",
    )


def _choice(cell: Cell) -> str:
    """Options and what was chosen beside them, as text."""
    values = (cell.options | cell.chosen).items()
    return ", ".join(
        f"{name} {value if isinstance(value, str) else format(value, 'g')}"
        for name, value in values
    )
