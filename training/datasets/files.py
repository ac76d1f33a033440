"""Finds and reads publishers' files, and reports which are missing or malformed."""

from __future__ import annotations

import codecs
import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from training.errors import DataError

Schema = Mapping[str, type[pl.DataType] | pl.DataType]


class Publisher(NamedTuple):
    """The publisher of a data set: its name and where it can be had."""

    data_set: str
    offer: str

    def locate(self, folder: Path | None, names: Sequence[str]) -> list[Path]:
        """Finds the named files in the folder, or in a folder inside it named like the data set.

        Raises:
            DataError: naming what was looked for, where, and who offers it.
        """
        wanted = " and ".join(names)
        if folder is None:
            raise DataError(
                f"{self.data_set}: expected --data-dir, the folder of {wanted}, found none. "
                f"{self.offer}"
            )
        for base in (folder, folder / self.data_set):
            if all((base / name).is_file() for name in names):
                return [base / name for name in names]
        missing = [name for name in names if not (folder / name).is_file()]
        listing = _listing(folder)
        raise DataError(
            f"{self.data_set}: expected {' and '.join(missing)} in {folder}, found {listing}. "
            f"{self.offer}"
        )


def _listing(folder: Path) -> str:
    if not folder.is_dir():
        return "no such folder"
    names = sorted(path.name for path in folder.iterdir())
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return shown or "an empty folder"


def read_separated(
    path: Path,
    separator: str,
    required: Sequence[str] = (),
    header: Sequence[str] | None = None,
    schema: Schema | None = None,
    quote: str | None = '"',
    encoding: str = "utf-8",
    content: bytes | None = None,
) -> pl.DataFrame:
    """Reads a table of separated text; columns are text unless schema gives another type.

    header names the columns of a file that does not name them itself; content replaces the
    file's bytes.

    Raises:
        DataError: if it is empty, is no such table, or lacks a required column.
    """
    settings: dict[str, Any] = {"separator": separator, "quote_char": quote, "infer_schema": False}
    if header is not None:
        settings |= {"has_header": False, "new_columns": list(header)}
    if schema is not None:
        settings["schema_overrides"] = schema
    try:
        if content is None and not _is_utf8(encoding):
            with open_bytes(path) as file:
                content = file.read().decode(encoding).encode()
        table = pl.read_csv(path if content is None else content, **settings)
    except pl.exceptions.NoDataError as error:
        raise DataError(f"{path}: expected rows, found an empty file") from error
    except (pl.exceptions.PolarsError, UnicodeDecodeError, EOFError) as error:
        raise DataError(_no_table(path, separator, encoding, error)) from error
    require_columns(path, table.columns, required or header or ())
    if table.is_empty():
        raise DataError(f"{path}: expected rows, found a header alone")
    return table


def _is_utf8(encoding: str) -> bool:
    return codecs.lookup(encoding).name == "utf-8"


def _no_table(path: Path, separator: str, encoding: str, error: Exception) -> str:
    if _is_utf8(encoding) and (place := wrong_utf8(path)):
        return f"{path}: expected UTF-8, found {place}"
    return f"{path} is not a table separated by {separator!r}: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def require_columns(path: Path, names: Sequence[str], required: Sequence[str]) -> None:
    """Refuses a table without the required columns, naming those it has."""
    if missing := [name for name in required if name not in names]:
        raise DataError(f"{path}: expected also the columns {missing}, found {list(names)}")


def read_json_lines(
    path: Path, required: Sequence[str] = (), schema: Schema | None = None
) -> pl.DataFrame:
    """Reads one JSON object a line, plain or gzipped; if schema is given, its fields only.

    Raises:
        DataError: if it is empty, holds something else, or its first object lacks a required field.
    """
    try:
        with open_bytes(path) as file:
            first = next((line for line in file if line.strip()), b"")
        if not first:
            raise DataError(f"{path}: expected one JSON object a line, found an empty file")
        parsed = json.loads(first)
        if not isinstance(parsed, dict):
            raise DataError(
                f"{path}: line 1: expected one JSON object a line, found {_kind(parsed)}"
            )
        require_columns(path, list(parsed), required)
        if schema is not None:
            return pl.read_ndjson(path, schema=schema)
        return pl.read_ndjson(path, infer_schema_length=None)
    except (ValueError, EOFError, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is not JSON lines: {_first_line(error)}") from error
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{path} does not hold the same kind of object in every line: {error}"
        ) from error


def _kind(value: object) -> str:
    return "an array" if isinstance(value, list) else f"the value {value!r}"


def read_parquet(path: Path) -> pl.DataFrame:
    """Reads a Parquet file.

    Raises:
        DataError: if it is not one, or has no rows.
    """
    try:
        table = pl.read_parquet(path)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path} is not a Parquet file: {error}") from error
    if table.is_empty():
        raise DataError(f"{path}: expected rows, found none")
    return table


def open_bytes(path: Path) -> Any:
    """Opens a file for reading bytes, unpacked if its name ends in .gz."""
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def wrong_utf8(path: Path) -> str | None:
    """Describes the first byte that is not UTF-8 and its place, or returns None."""
    with open_bytes(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                place = f"in line {number} at {error.start + 1}"
                return f"the byte 0x{line[error.start]:02x} {place}"
    return None


def mixed_to_utf8(content: bytes) -> bytes:
    """Converts old files to UTF-8: a line that is UTF-8 stays, any other one is read as Latin-1."""
    lines = content.split(b"\n")
    for number, line in enumerate(lines):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError:
            lines[number] = line.decode("latin-1").encode("utf-8")
    return b"\n".join(lines)
