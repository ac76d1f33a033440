"""Converts label sets to records and back: an export streams them, an import reads them."""

import hashlib
import math
from collections.abc import Collection, Iterable, Iterator, Sequence

import numpy as np
from trimtab.v1.concept_pb2 import Label as LabelMessage
from trimtab.v1.concept_pb2 import LabelRecord
from trimtab.v1.steering_pb2 import WeightedNeuron

from service.arrays import Floats
from service.bundle.label_set import Concept, Label, LabelSet, concept_target
from service.errors import InvalidRequest

MAX_CONCEPTS = 5_000
"""Concepts of one label set."""

MAX_LABELS = 32
"""Labels of one neuron."""

MAX_TEXT_BYTES = 1_000
"""Bytes of a label's text and of its provenance."""

MAX_NAME_BYTES = 256
"""Bytes of a concept's name and of a method's."""

MAX_WEIGHT = 1e6
"""Largest absolute weight of a neuron in a concept."""


def records_of(labels: LabelSet) -> Iterator[LabelRecord]:
    """Yields a label set's records: concepts in order, then each neuron's labels, best first."""
    for concept in labels.concepts:
        weights = concept.target.weights
        yield LabelRecord(
            concept=concept.name,
            label=LabelMessage(method=concept.method),
            weights=[
                WeightedNeuron(neuron=neuron, weight=weights[neuron])
                for neuron in np.flatnonzero(weights).tolist()
            ],
            attribute=concept.attribute,
            value=concept.value,
            item_count=concept.item_count,
            unit=concept.target.unit,
            auc=concept.auc,
            blend_neurons=concept.target.blend_neurons.tolist(),
            unsteered_share=concept.unsteered_share,
            steered_share=concept.steered_share,
        )
    for neuron, neuron_labels in enumerate(labels.labels):
        for label in neuron_labels:
            yield LabelRecord(neuron=neuron, label=LabelMessage(**label._asdict()))


def read_label_set(
    records: Sequence[LabelRecord], own: LabelSet, attributes: Collection[str], first: int = 0
) -> LabelSet:
    """Makes a label set of records.

    The version is a digest of the content, so equal sets have equal versions however they were
    written. The bundle's own set, exported and read again, is the bundle's own.

    Args:
        records: The records of one set.
        own: The bundle's own label set.
        attributes: Names of the items' attributes.
        first: Number of the first record in error messages.

    Raises:
        InvalidRequest: names the record at fault, counted from first.
    """
    concepts: dict[str, Concept] = {}
    labels: list[list[Label]] = [[] for _ in range(own.n_neurons)]
    for number, record in enumerate(records, first):
        field = f"records[{number}]"
        match record.WhichOneof("target"):
            case "neuron":
                neuron = _neuron(record.neuron, own, f"{field}.neuron")
                _check_room_for_label(labels, neuron, field)
                labels[neuron].append(_label(record.label, f"{field}.label"))
            case "concept":
                _check_room_for_concept(concepts, record.concept, field)
                concepts[record.concept] = _concept(record, own, attributes, field)
            case _:
                raise InvalidRequest(field, "expected a neuron or a concept, found neither")
    made = own.overlaid("", list(concepts.values()), labels)
    made.version = _digest(records_of(made))
    return own if made.version == _digest(records_of(own)) else made


def _check_room_for_label(labels: Sequence[Sequence[Label]], neuron: int, field: str) -> None:
    if len(labels[neuron]) == MAX_LABELS:
        raise InvalidRequest(
            field, f"expected at most {MAX_LABELS} labels of neuron {neuron}, found more"
        )


def _check_room_for_concept(concepts: Collection[str], name: str, field: str) -> None:
    if name in concepts:
        raise InvalidRequest(
            f"{field}.concept", f"expected each name once, found {name[:100]!r} twice"
        )
    if len(concepts) == MAX_CONCEPTS:
        raise InvalidRequest(field, f"expected at most {MAX_CONCEPTS} concepts, found more")


def _digest(records: Iterable[LabelRecord]) -> str:
    digest = hashlib.sha256()
    for record in records:
        data = record.SerializeToString(deterministic=True)
        digest.update(len(data).to_bytes(4, "little") + data)
    return digest.hexdigest()[:12]


def _label(message: LabelMessage, field: str) -> Label:
    for name, limit in (
        ("text", MAX_TEXT_BYTES),
        ("method", MAX_NAME_BYTES),
        ("provenance", MAX_TEXT_BYTES),
    ):
        if (size := len(getattr(message, name).encode())) > limit:
            raise InvalidRequest(f"{field}.{name}", f"expected at most {limit} bytes, found {size}")
    if not message.text.strip():
        raise InvalidRequest(f"{field}.text", "expected text that describes the neuron, found none")
    if not math.isfinite(message.score):
        raise InvalidRequest(f"{field}.score", f"expected a finite number, found {message.score}")
    return Label(message.text, message.method, message.score, message.provenance)


def _concept(
    record: LabelRecord, own: LabelSet, attributes: Collection[str], field: str
) -> Concept:
    """Reads a concept; one without weights is the bundle's own concept of that name."""
    name = record.concept
    if not name.strip() or len(name.encode()) > MAX_NAME_BYTES:
        size = len(name.encode())
        raise InvalidRequest(
            f"{field}.concept", f"expected a name of 1 to {MAX_NAME_BYTES} bytes, found {size}"
        )
    if not record.weights:
        if (kept := own.concept(name)) is None:
            raise InvalidRequest(
                f"{field}.weights",
                f"expected weights, or a concept of the bundle, found neither: {name!r}",
            )
        return kept
    _check_facts(record, attributes, field)
    weights = _weights(record, own, f"{field}.weights")
    share = np.abs(weights) / np.abs(weights).sum()
    blend = [_neuron(neuron, own, f"{field}.blend_neurons") for neuron in record.blend_neurons]
    return Concept(
        name=name,
        attribute=record.attribute,
        value=record.value or name,
        item_count=record.item_count,
        method=record.label.method or "imported",
        auc=record.auc if record.HasField("auc") else None,
        unsteered_share=record.unsteered_share,
        steered_share=record.steered_share,
        target=concept_target(
            name, weights, own.decoder, record.unit or float(share @ own.units), blend
        ),
    )


def _check_facts(record: LabelRecord, attributes: Collection[str], field: str) -> None:
    if record.attribute not in attributes:
        known = ", ".join(attributes) or "none"
        raise InvalidRequest(
            f"{field}.attribute",
            f"expected an attribute of the items ({known}), found {record.attribute[:100]!r}",
        )
    for number in ("unit", "unsteered_share", "steered_share"):
        value = getattr(record, number)
        if not value >= 0 or math.isinf(value):
            raise InvalidRequest(
                f"{field}.{number}", f"expected a finite number from 0, found {value}"
            )


def _weights(record: LabelRecord, own: LabelSet, field: str) -> Floats:
    neurons = [_neuron(part.neuron, own, field) for part in record.weights]
    if len(set(neurons)) != len(neurons):
        raise InvalidRequest(field, "expected each neuron at most once, found one twice")
    weights = np.zeros(own.n_neurons, np.float32)
    weights[neurons] = [part.weight for part in record.weights]
    if (
        not (np.abs(weights) <= MAX_WEIGHT).all()
        or np.dot(weights, weights) < np.finfo(np.float32).tiny
    ):
        raise InvalidRequest(
            field,
            f"expected finite weights from -{MAX_WEIGHT:g} to {MAX_WEIGHT:g}, not all 0,"
            " found others",
        )
    return weights


def _neuron(neuron: int, own: LabelSet, field: str) -> int:
    if neuron >= own.n_neurons:
        raise InvalidRequest(
            field, f"expected a neuron from 0 to {own.n_neurons - 1}, found {neuron}"
        )
    return neuron
