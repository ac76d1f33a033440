"""Converts columns of unknown tables to ids, numbers, times and attributes."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from training.errors import DataError

STARS_POSITIVE = 4.0
"""Least number of 5 stars that counts as positive (the protocol of arXiv 2601.11182)."""

_STARS_MAXIMUM = 5.0
_RESERVED = ("item_id", "title", "popularity")


def ids(column: pl.Series) -> pl.Series:
    """Returns ids as text; whole numbers that a gap made floats become whole numbers again."""
    if column.dtype.is_float() and (column.drop_nulls() == column.drop_nulls().round()).all():
        column = column.cast(pl.Int64)
    return column.cast(pl.String)


def numbers(table: pl.DataFrame, column: str, path: Path) -> pl.Series:
    """Returns a column as Float64, null where it is null, empty or NaN.

    Raises:
        DataError: naming the first row (from 1) that holds something else.
    """
    given = table[column]
    if given.dtype == pl.String:
        given = given.str.strip_chars().replace("", None)
    values = given.cast(pl.Float64, strict=False)
    _refuse_first(given, values, column, path, "a number")
    return values.fill_nan(None)


def times(table: pl.DataFrame, column: str, path: Path) -> pl.Series:
    """Returns a column as Int64: numbers as they are, dates as microseconds since 1970.

    Raises:
        DataError: naming the first row (from 1) that holds something else.
    """
    given = table[column]
    if given.dtype == pl.String:
        given = given.str.strip_chars().replace("", None)
        values = given.cast(pl.Float64, strict=False)
        if values.null_count() > given.null_count() and values.null_count() == len(values):
            values = _dates(given)
        _refuse_first(
            given, values, column, path, "a number, or a date such as 2024-05-31 12:00:00"
        )
        given = values
    if given.dtype.is_temporal():
        given = given.cast(pl.Datetime("us")).dt.epoch("us")
    return given.cast(pl.Float64).fill_nan(None).cast(pl.Int64)


def _dates(text: pl.Series) -> pl.Series:
    try:
        return text.str.to_datetime(time_unit="us", strict=False).dt.replace_time_zone(None)
    except pl.exceptions.ComputeError:  # not even the first value looks like a date
        return pl.Series(text.name, [None] * len(text), dtype=pl.Datetime("us"))


def _refuse_first(
    given: pl.Series, values: pl.Series, column: str, path: Path, expected: str
) -> None:
    wrong = values.is_null() & given.is_not_null()
    if wrong.any():
        row = wrong.arg_true()[0]
        raise DataError(
            f"{path}: {column} in row {row + 1}: expected {expected}, found {given[row]!r}"
        )


def rating_rule(value: pl.Series, column: str) -> tuple[float | None, tuple[str, ...]]:
    """Returns the threshold of a positive event that the values suggest, and notes for the person.

    Ratings that are all known and go up to 4 or 5 are stars: positive from 4 on. Everything else
    has no threshold of its own: gaps (an event without a rating is not a bad one), other scales,
    counts.
    """
    if value.null_count() == len(value):
        return None, ()
    rest = "every interaction counts as positive unless --min-value is given"
    if value.null_count():
        return None, (
            f"{column} is null for {value.null_count()} of {len(value)} interactions: {rest}",
        )
    largest = float(value.max())  # type: ignore[arg-type]
    if STARS_POSITIVE <= largest <= _STARS_MAXIMUM:
        return STARS_POSITIVE, ()
    return None, (f"{column} goes up to {largest:g}: {rest}",)


def attributes(
    table: pl.DataFrame, item: str, title: str | None
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Converts items to RawData's form by column type, and returns notes on what it left out."""
    columns = [ids(table[item]).alias("item_id")]
    columns.append(
        table[title].cast(pl.String).alias("title")
        if title is not None
        else pl.Series("title", [None] * table.height, dtype=pl.String)
    )
    notes = []
    for name, dtype in table.schema.items():
        if name in (item, title):
            continue
        column = table[name].alias(f"given_{name}" if name in _RESERVED else name)
        if isinstance(dtype, pl.List) and not dtype.inner.is_nested():
            columns.append(column.cast(pl.List(pl.String)))
        elif dtype.is_nested():
            notes.append(f"the items' column {name} holds {dtype}: left out")
        elif dtype.is_numeric() or dtype == pl.Boolean:
            columns.append(column.cast(pl.Float64).fill_nan(None))
        else:
            columns.append(column.cast(pl.String))
    return pl.DataFrame(columns), tuple(notes)


def no_items() -> pl.DataFrame:
    """Returns an empty table of items."""
    return pl.DataFrame(schema={"item_id": pl.String, "title": pl.String})
