"""Reads files of interactions: Parquet, CSV, JSON lines, and tables with typed headers.

A typed header is for instance "user_id:token". Columns: user_id, item_id; optional ones: rating or
value, timestamp or time (seconds since 1970, or ISO 8601 with a time zone), kind, event_id. Other
columns are ignored.
"""

import csv
import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

from trimtab.argument_types import Time
from trimtab.cli.arguments import InputError
from trimtab.event_messages import interaction
from trimtab.v1.recommendation_pb2 import Interaction

_COLUMNS = {
    "user": ("user_id",),
    "item": ("item_id",),
    "value": ("rating", "value"),
    "time": ("timestamp", "time"),
    "kind": ("kind",),
    "event": ("event_id",),
}
"""Names that each column may have in a file; the first present one is read."""
_ROWS_AT_A_TIME = 65_536

Row: TypeAlias = tuple[Any, ...]
"""User, item, value, time, kind and event id; None for a missing one."""


class EventFileError(InputError):
    """A file that cannot be read as interactions; the message names the row and the reason."""


@dataclass(frozen=True)
class EventFile:
    """A file that was opened."""

    path: Path
    row_count: int
    """Number of rows; an upper bound for text files."""
    interactions: Iterator[Interaction]


def open_events(path: Path) -> EventFile:
    """Opens a file in the format of its suffix; rows are read lazily.

    Raises:
        EventFileError: no such file, an unknown suffix, or no columns for user and item. While
            reading: a row is not an interaction.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise EventFileError(
            f"{path}: expected a file that ends in {', '.join(_READERS)},"
            f" found {path.suffix or 'no suffix'}"
        )
    try:
        row_count, rows = reader(path)
    except OSError as error:
        raise EventFileError(f"{path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise EventFileError(f"{path}: {error}") from error
    return EventFile(path, row_count, _interactions(path, rows))


def _interactions(path: Path, rows: Iterable[Row]) -> Iterator[Interaction]:
    number = 0
    # Computed only if it is needed, from the file's present content.
    digest = functools.cache(lambda: _digest(path))
    try:
        for number, (user, item, value, time, kind, event) in enumerate(rows, start=1):
            if event is None and time is None:
                # The server would derive the id from its own clock, and a second recording of the
                # file would count as new events.
                event = f"{digest()}:{number}"
            yield interaction(
                user,
                item,
                kind=kind or None,
                value=_number(value),
                time=parse_time(time),
                event_id=str(event or ""),
            )
    except (ValueError, TypeError, csv.Error) as error:
        # The reader's own errors are about the row after the last good one.
        if isinstance(error, EventFileError):
            raise
        raise EventFileError(f"{path}, row {number}: {error}") from error


def _read_parquet(path: Path) -> tuple[int, Iterator[Row]]:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise EventFileError(
            f"{path}: reading Parquet needs pyarrow: pip install pyarrow"
        ) from error
    try:
        file = parquet.ParquetFile(path)
    except arrow.ArrowException as error:
        raise EventFileError(f"{path}: {error}") from error
    positions = _positions(path, file.schema_arrow.names)
    names = [None if at is None else file.schema_arrow.names[at] for at in positions]

    def rows() -> Iterator[Row]:
        for batch in file.iter_batches(_ROWS_AT_A_TIME, columns=[name for name in names if name]):
            nothing = [None] * batch.num_rows
            columns = [batch.column(name).to_pylist() if name else nothing for name in names]
            yield from zip(*columns, strict=True)

    return file.metadata.num_rows, rows()


def _read_separated(path: Path, separator: str | None = None) -> tuple[int, Iterator[Row]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline().strip()
    delimiter = separator or ("\t" if "\t" in header else ",")
    # The names in a typed header such as "rating:float" come before the colon.
    fields = next(csv.reader([header], delimiter=delimiter), [])
    names = [field.split(":")[0].strip() for field in fields]
    positions = _positions(path, names)

    def rows() -> Iterator[Row]:
        with path.open(encoding="utf-8-sig", newline="") as file:
            file.readline()
            for fields in filter(None, csv.reader(file, delimiter=delimiter)):
                if len(fields) != len(names):
                    raise ValueError(
                        f"expected {len(names)} fields after this row, found {len(fields)}"
                    )
                yield tuple([None if at is None else fields[at] or None for at in positions])

    return _line_count(path) - 1, rows()


def _read_json_lines(path: Path) -> tuple[int, Iterator[Row]]:
    def rows() -> Iterator[Row]:
        with path.open(encoding="utf-8") as file:
            for line in filter(str.strip, file):
                fields = json.loads(line)
                if not isinstance(fields, dict):
                    raise ValueError(
                        f"expected an object after this row, found {line.strip()[:40]!r}"
                    )
                yield tuple([_first(fields, names) for names in _COLUMNS.values()])

    return _line_count(path), rows()


_READERS: dict[str, Callable[[Path], tuple[int, Iterator[Row]]]] = {
    ".parquet": _read_parquet,
    ".csv": _read_separated,
    ".tsv": functools.partial(_read_separated, separator="\t"),
    ".inter": functools.partial(_read_separated, separator="\t"),
    ".jsonl": _read_json_lines,
}


def _positions(path: Path, names: Sequence[str]) -> list[int | None]:
    """Returns the position of each column of a `Row`, None for a missing one."""
    positions = [
        next((names.index(name) for name in known if name in names), None)
        for known in _COLUMNS.values()
    ]
    if positions[0] is None or positions[1] is None:
        raise EventFileError(
            f"{path}: expected the columns user_id and item_id, found {', '.join(names) or 'none'}"
        )
    return positions


def _first(fields: dict[str, Any], names: Iterable[str]) -> Any:
    return next((fields[name] for name in names if fields.get(name) is not None), None)


def _number(value: Any) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except ValueError:
        raise ValueError(f"value: expected a number, found {value!r}") from None
    return None if math.isnan(number) else number


def parse_time(time: Any) -> Time | None:
    """Reads a time: a number or a text of seconds since 1970, a text in ISO 8601, or a datetime.

    Raises:
        ValueError: the value is none of these.
    """
    if time is None or isinstance(time, int):
        return time
    if isinstance(time, datetime):  # Parquet's times without a zone are in UTC
        return time if time.tzinfo else time.replace(tzinfo=UTC)
    try:
        seconds = float(time)
    except ValueError:
        try:
            return datetime.fromisoformat(time)
        except ValueError:
            raise ValueError(
                f"time: expected seconds since 1970 or ISO 8601, found {time!r}"
            ) from None
    return int(seconds) if seconds.is_integer() else seconds


def _line_count(path: Path) -> int:
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(2**20), b"")) + 1


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
