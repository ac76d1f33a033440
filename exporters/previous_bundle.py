"""What an earlier bundle knows by name: its concepts and labels, and how its neurons fire for its items."""

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


class EarlierConcept(NamedTuple):
    """A name with its meaning there; weights [n_neurons of the earlier SAE]."""

    name: str
    attribute: str
    value: str
    weights: Floats


class Earlier(NamedTuple):
    """codes float32 [n_items, n_neurons] of one-item histories; labels per neuron, best first."""

    bundle_id: str
    item_ids: list[str]
    codes: csr_matrix
    concepts: list[EarlierConcept]
    labels: list[list[Label]]


def read_earlier(directory: Path, label_file: Path | None = None) -> Earlier:
    """Reads a bundle, with its own label set or with one that was exported from a server.

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
            row["name"],
            row["attribute"],
            row.get("value") or row["name"].removeprefix(f"{row['attribute']}="),
            np.array(row["weights"], np.float32),
        )
        for row in rows
    }
    found = pq.read_table(directory / "neurons.parquet", columns=["labels"])["labels"].to_pylist()
    labels = [[Label(**label) for label in row or ()] for row in found]
    if label_file is not None:
        records = read_records(label_file)
        concepts = _named(records, concepts, n_neurons, label_file)
        labels = labels_of(records, n_neurons, label_file)
    codes = _codes(directory, manifest, len(item_ids))
    return Earlier(manifest.bundle_id, item_ids, codes, list(concepts.values()), labels)


def read_records(path: Path) -> list[LabelRecord]:
    """The records of a file of JSON lines.

    Raises:
        ContentsError: it cannot be read; names the line at fault.
    """
    try:
        return list(read_labels(path))
    except LabelFileError as error:
        raise ContentsError(str(error)) from error


def labels_of(records: Sequence[LabelRecord], n_neurons: int, path: Path) -> list[list[Label]]:
    """Every neuron's labels in a file's records, best first.

    Raises:
        ContentsError: naming the line at fault.
    """
    labels: list[list[Label]] = [[] for _ in range(n_neurons)]
    for number, record in enumerate(records, start=1):
        if record.HasField("neuron"):
            where, text = f"{path}, line {number}", record.label.text
            if record.neuron >= n_neurons:
                raise ContentsError(
                    f"{where}: neuron {record.neuron} found, expected 0 to {n_neurons - 1}"
                )
            if not text.strip():
                raise ContentsError(
                    f"{where}: no text found, expected what neuron {record.neuron} means"
                )
            label = Label(text, record.label.method, record.label.score, record.label.provenance)
            labels[record.neuron].append(label)
    return labels


def _named(
    records: Sequence[LabelRecord], own: dict[str, EarlierConcept], n_neurons: int, path: Path
) -> dict[str, EarlierConcept]:
    concepts = {}
    for number, record in enumerate(records, start=1):
        if not record.HasField("concept"):
            continue
        if not record.weights:
            if record.concept not in own:
                raise ContentsError(
                    f"{path}, line {number}: the bundle has no concept {record.concept!r}"
                )
            concepts[record.concept] = own[record.concept]
            continue
        weights = np.zeros(n_neurons, np.float32)
        for part in record.weights:
            if part.neuron >= n_neurons:
                raise ContentsError(
                    f"{path}, line {number}: neuron {part.neuron} found, expected 0 to {n_neurons - 1}"
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
        raise BundleError(f"{directory} has no items")
    return vstack(parts, format="csr")
