"""Reads any folder with interactions.parquet and items.parquet.

interactions.parquet: user_id and item_id (any scalar type), optionally rating (or the column that
--data-rating-column names), and timestamp or position for the order; nulls
allowed in all but the ids.
items.parquet: item_id, optionally title, and attributes: lists are tags, others are
texts or numbers.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from training.datasets.columns import attributes, ids, rating_rule
from training.datasets.files import require_columns
from training.errors import DataError
from training.interactions import RawData
from training.options import options

_ORDER_COLUMNS = ("timestamp", "position")


@options
class FolderOptions:
    """Configures how the folder's columns are read."""

    rating_column: str = "rating"
    """Column of interactions.parquet that holds the value of an event, if there is one."""
    where: str = ""
    """Keep the interactions for which this SQL condition on their columns holds, such as user_id <=
    2999."""


def load_folder(source: str, options: FolderOptions, _seed: int) -> RawData:
    """Reads the folder; ratings that go up to 5 stars and have no nulls count as positive from 4.

    Raises:
        DataError: if a file or column is missing or empty, or holds what it cannot.
    """
    folder = Path(source)
    events_path = folder / "interactions.parquet"
    raw = _where(_read(events_path, ("user_id", "item_id")), options.where, events_path)
    order = next((name for name in _ORDER_COLUMNS if name in raw.columns), None)
    events = raw.select(
        user_id=ids(raw["user_id"]),
        item_id=ids(raw["item_id"]),
        value=_numbers(raw, options.rating_column, events_path, pl.Float64),
        time=_numbers(raw, order, events_path, pl.Int64),
    )
    metadata = _read(folder / "items.parquet", ("item_id",))
    title = "title" if "title" in metadata.columns else None
    items, item_notes = attributes(metadata, "item_id", title)
    min_value, notes = rating_rule(events["value"], options.rating_column)
    return RawData(folder.resolve().name, events, items, min_value, notes + item_notes)


def _read(path: Path, columns: tuple[str, ...]) -> pl.DataFrame:
    if not path.is_file():
        raise DataError(f"{path}: expected a Parquet file, found none")
    try:
        table = pl.read_parquet(path)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path} is not a Parquet file: {error}") from error
    require_columns(path, table.columns, columns)
    if table.is_empty():
        raise DataError(f"{path}: expected rows, found none")
    return table


def _where(events: pl.DataFrame, condition: str, path: Path) -> pl.DataFrame:
    if not condition:
        return events
    try:
        kept = events.filter(pl.sql_expr(condition))
    except pl.exceptions.PolarsError as error:
        columns = ", ".join(events.columns)
        raise DataError(
            f"{path}: no condition on its columns ({columns}): {condition!r}: {error}"
        ) from error
    if kept.is_empty():
        raise DataError(f"{path}: none of {events.height} interactions has {condition}")
    return kept


def _numbers(
    table: pl.DataFrame, column: str | None, path: Path, dtype: type[pl.Float64] | type[pl.Int64]
) -> pl.Expr:
    if column is None or column not in table.columns:
        return pl.lit(None, dtype)
    numbers = table[column].cast(pl.Float64, strict=False)
    wrong = numbers.is_null() & table[column].is_not_null()
    if wrong.any():
        row = wrong.arg_true()[0]
        raise DataError(
            f"{path}: {column} in row {row}: expected a number, found {table[column][row]!r}"
        )
    return pl.lit(numbers.fill_nan(None).cast(dtype))
