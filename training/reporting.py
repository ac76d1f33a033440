"""Shows progress bars while training, and tables afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from training.loop import EpochReport
from training.run import Run
from training.summary import DataSummary


class ProgressReporter:
    """One progress bar per stage on the console."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description:<12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[state]}"),
            console=console,
        )
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def note(self, text: str) -> None:
        """Prints a line above the bars."""
        self._console.print(text, markup=False, highlight=False)

    def epoch(self, report: EpochReport) -> None:
        """Moves the stage's bar."""
        best = "" if report.best is None else f"  best nDCG@20 {report.best:.4f}"
        self._move(report.task, report.epoch, report.epochs, f"loss {report.loss:.4f}{best}")

    def concept(self, done: int, total: int) -> None:
        """Moves the concepts' bar."""
        self._move("concepts", done, total, "")

    def data(self, summary: DataSummary) -> None:
        """Prints a table of the data."""
        shown = Table(title=summary.name, title_justify="left", show_header=False, box=None)
        for name, value in summary.rows():
            shown.add_row(name, value)
        self._console.print(shown)

    def _move(self, name: str, done: int, total: int, state: str) -> None:
        if name not in self._bars:
            for bar in self._bars.values():
                self._progress.stop_task(bar)
            self._bars[name] = self._progress.add_task(name, total=total, state=state)
        self._progress.update(self._bars[name], completed=done, state=state)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Makes a table whose first column is text and whose others are figures."""
    result = Table(title=title, title_justify="left")
    for index, name in enumerate(columns):
        result.add_column(name, justify="left" if index == 0 else "right")
    for row in rows:
        result.add_row(*(_cell(value) for value in row))
    return result


def run_tables(run: Run) -> list[Table]:
    """Makes the tables of a finished run: ranking and the SAE's cost, concepts."""
    metrics = run.metrics
    quality = table(
        f"{run.data_set}: {run.config.recommender} + {run.config.sae}, "
        f"{len(run.split.test)} test users",
        ("figure", "value"),
        [(name, metrics[name]) for name in sorted(metrics)],
    )
    largest = sorted(run.concepts, key=lambda concept: -concept.item_count)[:10]
    concepts = table(
        f"the {len(largest)} most frequent of {len(run.concepts)} concepts, "
        "top-20 share of validation users",
        ("concept", "items", "AUC", "unit", "unsteered", "at strength 1"),
        [
            (c.name, c.item_count, c.auc, c.unit, c.unsteered_share, c.steered_share)
            for c in largest
        ],
    )
    return [quality, concepts] if largest else [quality]


def cost_line(run: Run) -> str:
    """Tells the price of the SAE in one sentence."""
    before = run.metrics["ndcg@20"]
    after = run.metrics["reconstruct_ndcg@20"]
    loss = run.metrics["reconstruct_ndcg_loss@20"]
    verb = "costs" if loss >= 0 else "gains"
    return (
        f"the SAE's reconstruction {verb} {abs(loss):.1%} of nDCG@20 ({before:.4f} -> {after:.4f})"
    )


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
