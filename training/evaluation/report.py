"""Writes reports as Markdown, JSON and a plot, with the command, the machine and the duration."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.checkpoint import write_json
from training.machine import describe_machine


@dataclass(frozen=True)
class Estimate:
    """A mean and its standard error, None where a single run has none."""

    mean: float
    error: float | None

    @classmethod
    def of(cls, values: Sequence[float], error_of_one: float | None = None) -> Estimate:
        """Returns the mean of the runs' values; error_of_one is the error of a single one."""
        mean = float(np.mean(values))
        if len(values) > 1:
            return cls(mean, float(np.std(values, ddof=1) / math.sqrt(len(values))))
        return cls(mean, error_of_one)

    @classmethod
    def over_users(cls, values: NDArray[np.floating]) -> Estimate:
        """Returns the mean of the users' finite values, NaN without any."""
        known = values[np.isfinite(values)]
        if len(known) < 2:
            return cls(float(known[0]) if len(known) else math.nan, None)
        return cls(float(known.mean()), float(known.std(ddof=1) / math.sqrt(len(known))))

    @classmethod
    def joined(cls, runs: Sequence[Estimate]) -> Estimate:
        """Joins the runs' own estimates: the error is over the runs, or a single run's own."""
        return cls.of([run.mean for run in runs], runs[0].error)

    def __str__(self) -> str:
        return f"{self:.4f}"

    def __format__(self, form: str) -> str:
        """Formats mean and error, both in the given form."""
        form = form or ".4f"
        return f"{self.mean:{form}}" + ("" if self.error is None else f" ± {self.error:{form}}")


class Table(NamedTuple):
    """A table of a report; cells are texts, numbers or Estimates."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]

    def markdown(self) -> str:
        """Formats the table as Markdown, first column left, others right."""
        lines = [
            f"| {' | '.join(self.columns)} |",
            f"| --- |{' ---: |' * (len(self.columns) - 1)}",
            *(f"| {' | '.join(cell(value) for value in row)} |" for row in self.rows),
        ]
        return f"**{self.title}**\n\n" + "\n".join(lines)


class Curve(NamedTuple):
    """A curve of a plot: figures y over x, with error bars where they are known."""

    name: str
    x: Sequence[float | str]
    y: Sequence[Estimate]


class Plot(NamedTuple):
    """Curves over one axis; where x are texts, points without lines."""

    x_label: str
    y_label: str
    curves: Sequence[Curve]


class Picture(NamedTuple):
    """A further plot that draws itself: NAME-{name}.png."""

    name: str
    title: str
    draw: Callable[[Path], None]


@dataclass(frozen=True)
class Report:
    """Text around tables and a plot, and the same figures as plain values."""

    name: str
    title: str
    command: str
    paragraphs: Sequence[str]
    tables: Sequence[Table]
    plot: Plot | None
    figures: Any
    seconds: float = 0.0
    pictures: Sequence[Picture] = ()

    def lasting(self, seconds: float) -> Report:
        """Returns the report with the seconds that it took to make."""
        return dataclasses.replace(self, seconds=seconds)

    @property
    def plain_figures(self) -> Any:
        """Returns the figures as values that JSON can hold."""
        return plain(self.figures)

    def write(self, folder: Path) -> None:
        """Writes NAME.md, NAME.json and, if there is a plot, NAME.png; NAME-*.png for pictures."""
        folder.mkdir(parents=True, exist_ok=True)
        machine = describe_machine()
        parts = [f"# {self.title}", f"    {self.command}", *self.paragraphs]
        if self.plot is not None:
            draw(self.plot, folder / f"{self.name}.png")
            parts.append(f"![{self.title}]({self.name}.png)")
        parts += [table.markdown() for table in self.tables]
        for picture in self.pictures:
            file = f"{self.name}-{picture.name}.png"
            picture.draw(folder / file)
            parts.append(f"![{picture.title}]({file})")
        parts.append(f"Made in {self.seconds:.0f} s on {machine}.")
        (folder / f"{self.name}.md").write_text("\n\n".join(parts) + "\n")
        document = {
            "title": self.title,
            "command": self.command,
            "machine": machine,
            "seconds": round(self.seconds, 1),
            "figures": self.plain_figures,
        }
        write_json(folder / f"{self.name}.json", document)


def draw(plot: Plot, path: Path) -> None:
    """Draws the curves with error bars."""
    from matplotlib.figure import Figure  # half a second that --help need not wait for

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for curve in plot.curves:
        texts = any(isinstance(value, str) for value in curve.x)
        errors = [estimate.error or 0.0 for estimate in curve.y]
        means = [estimate.mean for estimate in curve.y]
        style = "o" if texts else "o-"
        axes.errorbar(list(curve.x), means, errors, fmt=style, capsize=3, label=curve.name)
        if texts:
            axes.tick_params(axis="x", rotation=30)
    axes.set(xlabel=plot.x_label, ylabel=plot.y_label)
    axes.grid(alpha=0.3)
    if len(plot.curves) > 1:
        axes.legend(
            fontsize="small", loc="upper right"
        )  # "best" warns where a busy machine takes long
    figure.savefig(path, dpi=100, metadata={"Software": None})


def cell(value: object) -> str:
    """Formats a table's cell."""
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def plain(value: Any) -> Any:
    """Returns plain values for JSON, with null for NaN and infinities."""
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(value._asdict())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
