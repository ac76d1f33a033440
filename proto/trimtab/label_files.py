"""Label sets as files of JSON lines: one LabelRecord a line, in the schema's own names."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from google.protobuf import json_format

from trimtab.v1.concept_pb2 import LabelRecord


class LabelFileError(ValueError):
    """A file that cannot be read as labels; the message says where and why."""


def read_labels(path: Path) -> Iterator[LabelRecord]:
    """The records of a file, one a line.

    Raises:
        LabelFileError: no such file, or a line that is no record.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield json_format.Parse(line, LabelRecord())
                except json_format.ParseError as error:
                    raise LabelFileError(
                        f"{path}, line {number}: no label record: {error}"
                    ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise LabelFileError(f"{path}: {error}") from error


def write_labels(file: IO[str], records: Iterable[LabelRecord]) -> int:
    """Writes records, one a line; returns how many."""
    count = 0
    for record in records:
        text = json_format.MessageToJson(record, preserving_proto_field_name=True, indent=None)
        file.write(f"{text}\n")
        count += 1
    return count
