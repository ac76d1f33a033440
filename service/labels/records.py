"""Label sets as records: what an export streams, an import reads, and the store keeps."""

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


MAX_LABELS = 32
"""A neuron's."""


MAX_TEXT_BYTES = 1_000


MAX_NAME_BYTES = 256


MAX_WEIGHT = 1e6


def records_of(labels: LabelSet) -> Iterator[LabelRecord]:
    """A label set whole: its concepts in their order, then every neuron's labels, best first."""
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
    for neuron, found in enumerate(labels.labels):
        for label in found:
            yield LabelRecord(neuron=neuron, label=LabelMessage(**label._asdict()))


def read_label_set(
    records: Sequence[LabelRecord], own: LabelSet, attributes: Collection[str], first: int = 0
) -> LabelSet:
    """The label set that the records are, beside the bundle's own.

    The version is a digest of what was understood, so that the same set has the same version
    however it was written; the bundle's own set, exported and read again, is the bundle's own.

    Raises:
        InvalidRequest: names the record at fault, counted from 0.
    """
    concepts: dict[str, Concept] = {}
    labels: list[list[Label]] = [[] for _ in range(own.n_neurons)]
    for number, record in enumerate(records, first):
        field = f"records[{number}]"
        match record.WhichOneof("target"):
            case "neuron":
                neuron = _neuron(record.neuron, own, f"{field}.neuron")
                if len(labels[neuron]) == MAX_LABELS:
                    raise InvalidRequest(
                        field, f"neuron {neuron} has more than {MAX_LABELS} labels"
                    )
                labels[neuron].append(_label(record.label, f"{field}.label"))
            case "concept":
                if record.concept in concepts:
                    raise InvalidRequest(
                        f"{field}.concept", f"found {record.concept[:100]!r} twice"
                    )
                if len(concepts) == MAX_CONCEPTS:
                    raise InvalidRequest(field, f"found more than {MAX_CONCEPTS} concepts")
                concepts[record.concept] = _concept(record, own, attributes, field)
            case _:
                raise InvalidRequest(field, "found no target, expected a neuron or a concept")
    made = own.overlaid("", list(concepts.values()), labels)
    made.version = _digest(records_of(made))
    return own if made.version == _digest(records_of(own)) else made


def _digest(records: Iterable[LabelRecord]) -> str:
    digest = hashlib.sha256()
    for record in records:
        data = record.SerializeToString(deterministic=True)
        digest.update(len(data).to_bytes(4, "little") + data)
    return digest.hexdigest()[:12]


def _label(message: LabelMessage, field: str) -> Label:
    for name, most in (
        ("text", MAX_TEXT_BYTES),
        ("method", MAX_NAME_BYTES),
        ("provenance", MAX_TEXT_BYTES),
    ):
        if (size := len(getattr(message, name).encode())) > most:
            raise InvalidRequest(f"{field}.{name}", f"found {size} bytes, expected at most {most}")
    if not message.text.strip():
        raise InvalidRequest(f"{field}.text", "found no text, expected what the neuron means")
    if not math.isfinite(message.score):
        raise InvalidRequest(f"{field}.score", f"found {message.score}, expected a finite number")
    return Label(message.text, message.method, message.score, message.provenance)


def _concept(
    record: LabelRecord, own: LabelSet, attributes: Collection[str], field: str
) -> Concept:
    name = record.concept
    if not name.strip() or len(name.encode()) > MAX_NAME_BYTES:
        size = len(name.encode())
        raise InvalidRequest(
            f"{field}.concept", f"found {size} bytes, expected a name of 1 to {MAX_NAME_BYTES}"
        )
    if not record.weights:
        if (kept := own.concept(name)) is None:
            raise InvalidRequest(
                f"{field}.weights",
                f"found none, and the bundle has no concept {name!r} to take them from",
            )
        return kept
    if record.attribute not in attributes:
        known = ", ".join(attributes) or "none"
        raise InvalidRequest(
            f"{field}.attribute",
            f"found {record.attribute[:100]!r}, expected an attribute of the items: {known}",
        )
    for number in ("unit", "unsteered_share", "steered_share"):
        if not (value := getattr(record, number)) >= 0 or math.isinf(value):
            raise InvalidRequest(
                f"{field}.{number}", f"found {value}, expected a finite number from 0"
            )
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


def _weights(record: LabelRecord, own: LabelSet, field: str) -> Floats:
    neurons = [_neuron(part.neuron, own, field) for part in record.weights]
    if len(set(neurons)) != len(neurons):
        raise InvalidRequest(field, "found a neuron twice, expected each at most once")
    weights = np.zeros(own.n_neurons, np.float32)
    weights[neurons] = [part.weight for part in record.weights]
    if (
        not (np.abs(weights) <= MAX_WEIGHT).all()
        or np.dot(weights, weights) < np.finfo(np.float32).tiny
    ):
        raise InvalidRequest(
            field, f"expected finite weights from -{MAX_WEIGHT:g} to {MAX_WEIGHT:g}, not all 0"
        )
    return weights


def _neuron(neuron: int, own: LabelSet, field: str) -> int:
    if neuron >= own.n_neurons:
        raise InvalidRequest(field, f"found neuron {neuron}, expected 0 to {own.n_neurons - 1}")
    return neuron
