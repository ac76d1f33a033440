"""Summarises a data set before training: figures, and a plot of the two long tails."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from training.arrays import Ints
from training.checkpoint import write_json
from training.histories import Histories
from training.interactions import Prepared, RawData

FILES = ("data.json", "data.png")
_HEAD_SHARE = 0.1
_YEAR_2286_S = 10_000_000_000


@dataclass(frozen=True)
class DataSummary:
    """Figures of one data set.

    positives are events that count as positive; duplicates were dropped before, without_metadata
    counts items of which nothing is known. history_lengths holds the quantiles 0, 0.25, 0.5, 0.75,
    0.95 and 1 of users' positive items; head_share the share of positives on the most popular tenth
    of the items; attributes the share of the items that have a title, and each attribute. span is
    the first and last time as dates, where times are seconds since 1970 or a thousandth, millionth
    or billionth of them.
    """

    name: str
    users: int
    items: int
    interactions: int
    positives: int
    density: float
    duplicates: int
    without_metadata: int
    history_lengths: tuple[int, ...]
    head_share: float
    attributes: dict[str, float]
    span: tuple[str, str] | None
    notes: tuple[str, ...]

    def rows(self) -> list[tuple[str, str]]:
        """Returns the figures as a person reads them."""
        least, quarter, half, three, most, longest = self.history_lengths
        rows = [
            ("users, items", f"{self.users:,}, {self.items:,}"),
            ("interactions, positive", f"{self.interactions:,}, {self.positives:,}"),
            ("density", f"{self.density:.3%}"),
            ("not positive", f"{self.interactions - self.positives:,}"),
            ("repeated pairs, dropped", f"{self.duplicates:,}"),
            ("items without metadata", f"{self.without_metadata:,}"),
            (
                "positives a user",
                f"{least} to {longest}; half {quarter} to {three}, median {half}, 95 % {most}",
            ),
            ("positives on the top tenth", f"{self.head_share:.0%}"),
        ]
        rows += [(f"items with {name}", f"{share:.0%}") for name, share in self.attributes.items()]
        if self.span:
            rows.append(("from, to", f"{self.span[0]}, {self.span[1]}"))
        return rows


def summarise(raw: RawData, prepared: Prepared, positives: Histories) -> DataSummary:
    """Computes the figures of a prepared data set and its users' positive items."""
    interactions = prepared.interactions
    lengths = positives.lengths
    items = prepared.catalogue.items
    return DataSummary(
        name=raw.name,
        users=len(interactions.user_ids),
        items=len(interactions.item_ids),
        interactions=len(interactions.users),
        positives=len(positives.items),
        density=interactions.density,
        duplicates=interactions.duplicate_count,
        without_metadata=items.join(raw.items, on="item_id", how="anti").height,
        history_lengths=tuple(int(q) for q in np.quantile(lengths, (0, 0.25, 0.5, 0.75, 0.95, 1))),
        head_share=_head_share(popularity(positives, len(interactions.item_ids))),
        attributes={
            name: _coverage(items[name]) for name in ("title", *prepared.catalogue.attributes)
        },
        span=_span(interactions.time),
        notes=prepared.notes,
    )


def popularity(positives: Histories, n_items: int) -> Ints:
    """Counts the positive events of each item, most first, int64 [n_items]."""
    return np.sort(np.bincount(positives.items, minlength=n_items))[::-1]


def write_summary(summary: DataSummary, positives: Histories, folder: Path) -> None:
    """Writes data.json and data.png."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / FILES[0], dataclasses.asdict(summary))
    _draw(summary, positives, folder / FILES[1])


def _draw(summary: DataSummary, positives: Histories, path: Path) -> None:
    from matplotlib.figure import Figure  # half a second that --help need not wait for

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    lengths = positives.lengths[positives.lengths > 0]
    if len(lengths):
        left.hist(lengths, bins=np.geomspace(1, max(2, lengths.max()) + 1, 30))
    left.set(xscale="log", xlabel="positive items of a user", ylabel="users", title=summary.name)
    counts = popularity(positives, summary.items)
    right.plot(np.arange(1, len(counts) + 1), np.maximum(counts, 0.5))
    right.set(xscale="log", yscale="log", xlabel="items by popularity", ylabel="positive events")
    right.set_title(f"{summary.head_share:.0%} on the top tenth")
    figure.savefig(path, dpi=100, metadata={"Software": None})


def _head_share(counts: Ints) -> float:
    head = max(1, round(_HEAD_SHARE * len(counts)))
    return float(counts[:head].sum() / max(1, counts.sum()))


def _coverage(column: pl.Series) -> float:
    present = column.is_not_null()
    if isinstance(column.dtype, pl.List):
        present &= column.list.len().fill_null(0) > 0
    return float(present.mean() or 0.0)  # type: ignore[arg-type]


def _span(time: Any) -> tuple[str, str] | None:
    known = time[time > 0]
    if not len(known) or known.max() < 1_000_000:  # positions in an order are no times
        return None
    seconds = known
    while seconds.max() > _YEAR_2286_S:  # milliseconds, microseconds, nanoseconds
        seconds = seconds // 1_000
    first, last = (
        datetime.fromtimestamp(int(when), UTC) for when in (seconds.min(), seconds.max())
    )
    return f"{first:%Y-%m-%d}", f"{last:%Y-%m-%d}"
