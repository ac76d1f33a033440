"""Labels from a file in place of a run's own: JSON lines, as trimtab-evaluate dictionary writes them."""

from collections.abc import Collection
from pathlib import Path

from google.protobuf import json_format
from trimtab.v1.concept_pb2 import LabelRecord

from exporters.errors import ContentsError
from training.concepts import Label


def read_labels(path: Path, n_neurons: int, concepts: Collection[str]) -> list[list[Label]]:
    """Every neuron's labels, best first.

    Concepts' records say nothing new here: a bundle's concepts are the run's. Their names must be the run's,
    so that no file of another run is taken.

    Raises:
        ContentsError: naming the line at fault.
    """
    labels: list[list[Label]] = [[] for _ in range(n_neurons)]
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ContentsError(f"{path}: {error}") from error
    for number, line in enumerate(lines, start=1):
        where = f"{path}, line {number}"
        try:
            record = json_format.Parse(line, LabelRecord())
        except json_format.ParseError as error:
            raise ContentsError(f"{where}: no label record: {error}") from error
        if record.HasField("concept") and record.concept not in concepts:
            raise ContentsError(f"{where}: concept {record.concept!r} found, expected one of the run's")
        if record.HasField("neuron"):
            if record.neuron >= n_neurons:
                raise ContentsError(f"{where}: neuron {record.neuron} found, expected 0 to {n_neurons - 1}")
            if not record.label.text.strip():
                raise ContentsError(f"{where}: no text found, expected what neuron {record.neuron} means")
            found = record.label
            labels[record.neuron].append(Label(found.text, found.method, found.score, found.provenance))
    return labels
