"""Reads and writes label sets as JSON lines: one LabelRecord in each line."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from google.protobuf import json_format

from trimtab.v1.concept_pb2 import LabelRecord


class LabelFileError(ValueError):
    """A file that cannot be read as labels; the message names the line and the reason."""


def read_labels(path: Path) -> Iterator[LabelRecord]:
    """Yields the records of a file, one for each line.

    Raises:
        LabelFileError: the file cannot be read, or a line is not a record.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield json_format.Parse(line, LabelRecord())
                except json_format.ParseError as error:
                    raise LabelFileError(
                        f"{path}, line {number}: expected a label record,"
                        f" found another text: {error}"
                    ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise LabelFileError(f"{path}: {error}") from error


def write_labels(file: IO[str], records: Iterable[LabelRecord]) -> int:
    """Writes records, one in each line, and returns their number."""
    count = 0
    for record in records:
        text = json_format.MessageToJson(record, preserving_proto_field_name=True, indent=None)
        file.write(f"{text}\n")
        count += 1
    return count
