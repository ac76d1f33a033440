"""Files of interactions: Parquet, CSV, JSON lines, and tables whose header carries types ("user_id:token").

Columns: user_id, item_id; and if there are any, rating or value, timestamp or time (seconds since
    1970, or
ISO 8601 with a time zone), kind, event_id. Others are left alone.
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

from trimtab.cli.arguments import InputError
from trimtab.messages import Time, interaction
from trimtab.v1.recommendation_pb2 import Interaction

# By the names that each may have in a file, best first.
_COLUMNS = {
    "user": ("user_id",),
    "item": ("item_id",),
    "value": ("rating", "value"),
    "time": ("timestamp", "time"),
    "kind": ("kind",),
    "event": ("event_id",),
}
_ROWS_AT_A_TIME = 65_536

Row: TypeAlias = tuple[Any, ...]
"""User, item, value, time, kind and event id; None where there is none."""


class EventFileError(InputError):
    """A file that cannot be read as interactions; the message says where and why."""


@dataclass(frozen=True)
class EventFile:
    """A file that was opened."""

    path: Path
    row_count: int
    """As far as it is known before reading: an upper bound for text files."""
    interactions: Iterator[Interaction]


def open_events(path: Path) -> EventFile:
    """Opens a file by what its name ends in; rows are read as they are asked for.

    Raises:
        EventFileError: no such file, an unknown kind, or no columns for user and item. While
            reading: a row that is
            no interaction.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise EventFileError(f"{path}: expected a file that ends in {', '.join(_READERS)}")
    try:
        row_count, rows = reader(path)
    except OSError as error:
        raise EventFileError(f"{path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise EventFileError(f"{path}: {error}") from error
    return EventFile(path, row_count, _interactions(path, rows))


def _interactions(path: Path, rows: Iterable[Row]) -> Iterator[Interaction]:
    number = 0
    digest = functools.cache(
        lambda: _digest(path)
    )  # of a file as it is now, and only if it is needed
    try:
        for number, (user, item, value, time, kind, event) in enumerate(rows, start=1):
            if event is None and time is None:
                # The server would take its own clock's time into the id, and so count a second
                # recording as new.
                event = f"{digest()}:{number}"
            yield interaction(
                user,
                item,
                kind=kind or None,
                value=_number(value),
                time=parse_time(time),
                event_id=str(event or ""),
            )
    except (
        ValueError,
        TypeError,
        csv.Error,
    ) as error:  # of the reader too, on the row after the last good one
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
    # A header that carries types, "rating:float", is read by its names.
    fields = next(csv.reader([header], delimiter=delimiter), [])
    names = [field.split(":")[0].strip() for field in fields]
    positions = _positions(path, names)

    def rows() -> Iterator[Row]:
        with path.open(encoding="utf-8-sig", newline="") as file:
            file.readline()
            for fields in filter(None, csv.reader(file, delimiter=delimiter)):
                if len(fields) != len(names):
                    raise ValueError(
                        f"{len(fields)} fields found after this row, expected {len(names)}"
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
                        f"{line.strip()[:40]!r} found after this row, expected an object"
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
    """Where the columns of a `Row` are."""
    found = [
        next((names.index(name) for name in known if name in names), None)
        for known in _COLUMNS.values()
    ]
    if found[0] is None or found[1] is None:
        raise EventFileError(
            f"{path}: the columns {', '.join(names)} found, expected user_id and item_id"
        )
    return found


def _first(fields: dict[str, Any], names: Iterable[str]) -> Any:
    return next((fields[name] for name in names if fields.get(name) is not None), None)


def _number(value: Any) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except ValueError:
        raise ValueError(f"value: {value!r} found, expected a number") from None
    return None if math.isnan(number) else number


def parse_time(time: Any) -> Time | None:
    """A time from a file or an argument: a number or a text of seconds, ISO 8601, or a datetime.

    Raises:
        ValueError: none of these.
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
                f"time: {time!r} found, expected seconds since 1970 or ISO 8601"
            ) from None
    return int(seconds) if seconds.is_integer() else seconds


def _line_count(path: Path) -> int:
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(2**20), b"")) + 1


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
