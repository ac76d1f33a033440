"""Reads labels that replace a run's own: JSON lines, as trimtab-evaluate dictionary writes them."""

from collections.abc import Collection
from pathlib import Path

from exporters.errors import ContentsError
from exporters.previous_bundle import labels_of, read_records
from training.concepts import Label


def read_labels(path: Path, n_neurons: int, concepts: Collection[str]) -> list[list[Label]]:
    """Reads every neuron's labels, best first.

    Records of concepts are not used: a bundle's concepts are the run's. Their names are compared
    with the run's, so that a file of another run is refused.

    Raises:
        ContentsError: names the line at fault.
    """
    records = read_records(path)
    for number, record in enumerate(records, start=1):
        if record.HasField("concept") and record.concept not in concepts:
            raise ContentsError(
                f"{path}, line {number}: expected a concept of the run, found {record.concept!r}"
            )
    return labels_of(records, n_neurons, path)
