"""Reads from an earlier bundle what is carried over: concepts, labels, and its items' codes."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
from scipy.sparse import csr_matrix, vstack
from trimtab.label_files import LabelFileError, read_labels
from trimtab.v1.bundle_pb2 import BundleManifest
from trimtab.v1.concept_pb2 import LabelRecord

from exporters.errors import ContentsError
from exporters.sealed import verify_files
from service.arrays import Floats
from service.bundle.bundle import BundleError
from service.bundle.open import open_encoder
from training.concepts import Label

_BATCH = 1_024
"""Items encoded at a time. More take more memory."""


class EarlierConcept(NamedTuple):
    """A concept of the earlier bundle; its weights are [n_neurons of the earlier SAE]."""

    name: str
    attribute: str
    value: str
    weights: Floats


class PreviousBundle(NamedTuple):
    """The parts of an earlier bundle that are carried over.

    Attributes:
        bundle_id: Its id.
        item_ids: Its items' ids, in index order.
        codes: The codes of one-item histories: float32 [n_items, n_neurons].
        concepts: Its concepts.
        labels: Labels per neuron, best first.
    """

    bundle_id: str
    item_ids: list[str]
    codes: csr_matrix
    concepts: list[EarlierConcept]
    labels: list[list[Label]]


def read_previous_bundle(directory: Path, label_file: Path | None = None) -> PreviousBundle:
    """Reads a bundle with its own label set, or with one that was exported from a server.

    Raises:
        BundleError: it is no bundle.
        ContentsError: a line of the label file does not fit it.
    """
    manifest = verify_files(directory)
    n_neurons = manifest.dimensions.n_neurons
    item_ids = pq.read_table(directory / "items.parquet", columns=["item_id"])[
        "item_id"
    ].to_pylist()
    rows = pq.read_table(directory / "concepts.parquet").to_pylist()
    concepts = {
        row["name"]: EarlierConcept(
            name=row["name"],
            attribute=row["attribute"],
            value=row.get("value") or row["name"].removeprefix(f"{row['attribute']}="),
            weights=np.array(row["weights"], np.float32),
        )
        for row in rows
    }
    column = pq.read_table(directory / "neurons.parquet", columns=["labels"])["labels"]
    labels = [[Label(**label) for label in row or ()] for row in column.to_pylist()]
    if label_file is not None:
        records = read_records(label_file)
        concepts = _concepts_of(records, concepts, n_neurons, label_file)
        labels = labels_of(records, n_neurons, label_file)
    codes = _codes(directory, manifest, len(item_ids))
    return PreviousBundle(
        bundle_id=manifest.bundle_id,
        item_ids=item_ids,
        codes=codes,
        concepts=list(concepts.values()),
        labels=labels,
    )


def read_records(path: Path) -> list[LabelRecord]:
    """Reads the records of a file of JSON lines.

    Raises:
        ContentsError: it cannot be read; names the line at fault.
    """
    try:
        return list(read_labels(path))
    except LabelFileError as error:
        raise ContentsError(str(error)) from error


def labels_of(records: Sequence[LabelRecord], n_neurons: int, path: Path) -> list[list[Label]]:
    """Returns every neuron's labels in a file's records, best first.

    Raises:
        ContentsError: names the line at fault.
    """
    labels: list[list[Label]] = [[] for _ in range(n_neurons)]
    for number, record in enumerate(records, start=1):
        if record.HasField("neuron"):
            where = f"{path}, line {number}"
            text = record.label.text
            if record.neuron >= n_neurons:
                raise ContentsError(
                    f"{where}: neuron: expected 0 to {n_neurons - 1}, found {record.neuron}"
                )
            if not text.strip():
                raise ContentsError(
                    f"{where}: text: expected the meaning of neuron {record.neuron}, found none"
                )
            labels[record.neuron].append(
                Label(
                    text=text,
                    method=record.label.method,
                    score=record.label.score,
                    provenance=record.label.provenance,
                )
            )
    return labels


def _concepts_of(
    records: Sequence[LabelRecord], own: dict[str, EarlierConcept], n_neurons: int, path: Path
) -> dict[str, EarlierConcept]:
    """Returns the concepts in a file's records; those without weights are the bundle's own.

    Raises:
        ContentsError: names the line at fault.
    """
    concepts = {}
    for number, record in enumerate(records, start=1):
        if not record.HasField("concept"):
            continue
        if not record.weights:
            if record.concept not in own:
                raise ContentsError(
                    f"{path}, line {number}: expected a concept of the bundle, "
                    f"found {record.concept!r}"
                )
            concepts[record.concept] = own[record.concept]
            continue
        weights = np.zeros(n_neurons, np.float32)
        for part in record.weights:
            if part.neuron >= n_neurons:
                raise ContentsError(
                    f"{path}, line {number}: neuron: expected 0 to {n_neurons - 1}, "
                    f"found {part.neuron}"
                )
            weights[part.neuron] = part.weight
        value = record.value or record.concept
        concepts[record.concept] = EarlierConcept(record.concept, record.attribute, value, weights)
    return concepts


def _codes(directory: Path, manifest: BundleManifest, n_items: int) -> csr_matrix:
    """Computes the codes of one-item histories: [n_items, n_neurons]."""
    encoder = open_encoder(directory, manifest)
    n_neurons = manifest.dimensions.n_neurons
    parts = []
    for start in range(0, n_items, _BATCH):
        items = np.arange(start, min(start + _BATCH, n_items), dtype=np.int64)[:, None]
        z = encoder.embed(items, np.ones(items.shape, np.float32)).z
        neurons, activations = encoder.code(z)
        rows = np.repeat(np.arange(len(items)), neurons.shape[1])
        shape = (len(items), n_neurons)
        parts.append(csr_matrix((activations.ravel(), (rows, neurons.ravel())), shape=shape))
    if not parts:
        raise BundleError(f"{directory}: expected items, found none")
    return vstack(parts, format="csr")
