"""Reads any table of interactions: a CSV, Parquet or JSON lines file with columns of any name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from training.datasets.columns import attributes, ids, no_items, numbers, rating_rule, times
from training.datasets.files import (
    open_bytes,
    read_json_lines,
    read_parquet,
    read_separated,
    wrong_utf8,
)
from training.errors import ConfigError, DataError
from training.interactions import RawData
from training.options import options

SUFFIXES = (
    ".csv",
    ".csv.gz",
    ".tsv",
    ".tsv.gz",
    ".parquet",
    ".jsonl",
    ".jsonl.gz",
    ".ndjson",
    ".ndjson.gz",
)
"""Suffixes of the files that are read as tables."""

_USUAL = {"user": "user_id", "item": "item_id", "time": "timestamp", "rating": "rating"}
_USUAL_ITEM = {"item": "item_id", "title": "title"}


@options
class TableOptions:
    """Configures the columns' roles, and the table of the items."""

    columns: str | None = None
    """Columns of the interactions, as user=uid,item=sku,time=ts,rating=stars; time and rating may
    be absent (default: user_id, item_id and, where they are there, timestamp and rating)."""
    items: Path | None = None
    """Table of the items, in any of the same formats; its other columns become attributes."""
    item_columns: str | None = None
    """Columns of the items' table, as item=sku,title=name (default: item_id and, if there,
    title)."""
    list_separator: str | None = None
    """Text columns of the items' table that contain it are lists, such as "|" for Drama|Comedy."""
    encoding: str = "utf-8"
    """Encoding of CSV files, such as latin-1."""

    def __post_init__(self) -> None:
        for flag, text, roles in (
            ("--columns", self.columns, _USUAL),
            ("--item-columns", self.item_columns, _USUAL_ITEM),
        ):
            if text is not None:
                parse_mapping(flag, text, tuple(roles))
        if self.item_columns is not None and self.items is None:
            raise ConfigError("--item-columns names columns of a table that --items must name")
        if self.list_separator == "":
            raise ConfigError("--list-separator: expected at least one character, found none")
        try:
            "".encode(self.encoding)
        except LookupError as error:
            raise ConfigError(
                f"--encoding: expected one such as latin-1, found {self.encoding!r}"
            ) from error


def load_table(source: str, options: TableOptions, _seed: int) -> RawData:
    """Reads the table, and the items' one where it is given; ratings follow the rule of folders.

    Raises:
        DataError: if a file is absent, empty or of another kind, or a column is not what was said.
    """
    path = Path(source)
    table = read_table(path, options.encoding)
    column = _columns(path, table.columns, "--columns", options.columns, _USUAL, ("user", "item"))
    rating = column.get("rating")
    time = column.get("time")
    events = pl.DataFrame(
        {
            "user_id": ids(table[column["user"]]),
            "item_id": ids(table[column["item"]]),
            "value": numbers(table, rating, path) if rating else _nothing(table, pl.Float64),
            "time": times(table, time, path) if time else _nothing(table, pl.Int64),
        }
    )
    min_value, notes = rating_rule(events["value"], rating or "")
    items, item_notes = _items(options)
    return RawData(path.name.split(".")[0], events, items, min_value, notes + item_notes)


def read_table(path: Path, encoding: str = "utf-8") -> pl.DataFrame:
    """Reads a file by the end of its name; columns of CSV are text.

    Raises:
        DataError: if it is absent, empty, or not what its name says.
    """
    if not path.is_file():
        raise DataError(f"{path}: expected a table, found no such file")
    if not path.name.endswith(SUFFIXES):
        raise DataError(
            f"{path}: expected a name ending in {', '.join(SUFFIXES)}, found {path.suffix!r}"
        )
    if path.stat().st_size == 0:
        raise DataError(f"{path}: expected rows, found an empty file")
    if path.suffix == ".parquet":
        return read_parquet(path)
    if ".jsonl" in path.suffixes or ".ndjson" in path.suffixes:
        return read_json_lines(path)
    return _read_csv(path, encoding)


def _read_csv(path: Path, encoding: str) -> pl.DataFrame:
    try:
        with open_bytes(path) as file:
            head = file.readline(1 << 20)
    except OSError as error:
        raise DataError(f"{path} is not gzipped text: {error}") from error
    if b"\0" in head and not encoding.lower().startswith("utf-16"):
        raise DataError(f"{path}: expected text separated by commas, found binary data")
    separator = max("\t,;", key=lambda mark: head.count(mark.encode())) if head else ","
    if ".tsv" in path.suffixes:
        separator = "\t"
    try:
        return read_separated(path, separator, encoding=encoding)
    except DataError as error:
        if encoding == "utf-8" and wrong_utf8(path):
            raise DataError(f"{error}; another encoding can be named with --encoding") from error
        raise


def parse_mapping(flag: str, text: str, roles: Sequence[str]) -> dict[str, str]:
    """Reads role=column,role=column.

    Raises:
        ConfigError: if it is not that, or a role is unknown or given twice.
    """
    mapping: dict[str, str] = {}
    for part in text.split(","):
        role, sign, column = (piece.strip() for piece in part.partition("="))
        if not (role and sign and column):
            raise ConfigError(
                f"{flag}: expected ROLE=COLUMN, with a role of {', '.join(roles)}, found {part!r}"
            )
        if role not in roles:
            raise ConfigError(
                f"{flag}: expected a role of {_nearest_first(role, roles)}, found {role!r}"
            )
        if role in mapping:
            raise ConfigError(f"{flag} gives the role {role!r} twice: {mapping[role]} and {column}")
        mapping[role] = column
    return mapping


def _columns(
    path: Path,
    names: Sequence[str],
    flag: str,
    text: str | None,
    usual: dict[str, str],
    required: Sequence[str],
) -> dict[str, str]:
    """Returns the column of each role: as the flag says, else the usual name."""
    if text is None:
        mapping = {role: name for role, name in usual.items() if name in names or role in required}
    else:
        mapping = parse_mapping(flag, text, tuple(usual))
    if absent := [role for role in required if role not in mapping]:
        raise DataError(
            f"{flag}: expected a column for {' and '.join(absent)}, found none; "
            f"{path} has {', '.join(names)}"
        )
    for role, name in mapping.items():
        if name not in names:
            hint = "" if text is not None else f"; name yours with {flag} {role}=..."
            raise DataError(
                f"{path}: expected a column {name!r}, found {_nearest_first(name, names)}{hint}"
            )
    return mapping


def _nearest_first(name: str, known: Sequence[str]) -> str:
    by_fold = {other.casefold(): other for other in known}
    near = [
        by_fold[match] for match in difflib.get_close_matches(name.casefold(), list(by_fold), n=3)
    ]
    return ", ".join(near + [other for other in known if other not in near])


def _items(options: TableOptions) -> tuple[pl.DataFrame, tuple[str, ...]]:
    if options.items is None:
        return no_items(), ()
    table = read_table(options.items, options.encoding)
    column = _columns(
        options.items, table.columns, "--item-columns", options.item_columns, _USUAL_ITEM, ("item",)
    )
    text = [
        name
        for name, dtype in table.schema.items()
        if dtype == pl.String and name not in (column["item"], column.get("title"))
    ]
    typed = table.with_columns(_typed(table[name], options.list_separator) for name in text)
    return attributes(typed, column["item"], column.get("title"))


def _typed(column: pl.Series, separator: str | None) -> pl.Series:
    """Converts text to a list if it holds the separator, to numbers if all are numbers."""
    column = column.str.strip_chars().replace("", None)
    if separator is not None and column.str.contains(separator, literal=True).any():
        parts = column.str.split(separator)
        return parts.list.eval(pl.element().str.strip_chars()).list.eval(
            pl.element().filter(pl.element() != "")
        )
    values = column.cast(pl.Float64, strict=False)
    return values if values.null_count() == column.null_count() and values.count() else column


def _nothing(table: pl.DataFrame, dtype: type[pl.DataType]) -> pl.Series:
    return pl.Series([None] * table.height, dtype=dtype)
