"""Labels from a file in place of a run's own: JSON lines, as trimtab-evaluate dictionary writes them."""

from collections.abc import Collection
from pathlib import Path

from exporters.errors import ContentsError
from exporters.previous_bundle import labels_of, read_records
from training.concepts import Label


def read_labels(path: Path, n_neurons: int, concepts: Collection[str]) -> list[list[Label]]:
    """Every neuron's labels, best first.

    Concepts' records say nothing new here: a bundle's concepts are the run's. Their names must be
    the run's, so that no file of another run is taken.

    Raises:
        ContentsError: naming the line at fault.
    """
    records = read_records(path)
    for number, record in enumerate(records, start=1):
        if record.HasField("concept") and record.concept not in concepts:
            raise ContentsError(
                f"{path}, line {number}: concept {record.concept!r} found, expected one of the run's"
            )
    return labels_of(records, n_neurons, path)
