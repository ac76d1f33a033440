"""Decodes the steering of a request."""

import math

import numpy as np
from trimtab.v1 import steering_pb2 as steering

from service.api.decode.targets import find_concept, read_budget, read_targets
from service.bundle.bundle import Bundle
from service.bundle.label_set import LabelSet
from service.errors import InvalidRequest, PreconditionFailed, Unsupported
from service.steering.edits import Operation, RawEdit
from service.steering.plan import Mode, Plan
from service.steering.targets import Target

MAX_EDITS = 64


MAX_STRENGTH = 1e6


_OPERATIONS = {
    steering.OPERATION_UNSPECIFIED: Operation.ADD,
    steering.OPERATION_ADD: Operation.ADD,
    steering.OPERATION_SET: Operation.SET,
    steering.OPERATION_SCALE: Operation.SCALE,
    steering.OPERATION_CAP: Operation.CAP,
    steering.OPERATION_ABLATE: Operation.ABLATE,
    steering.OPERATION_BLEND: Operation.BLEND,
    steering.OPERATION_BOOST: Operation.BOOST,
}


_MODES = {
    steering.MODE_UNSPECIFIED: Mode.RESIDUAL,
    steering.MODE_RESIDUAL: Mode.RESIDUAL,
    steering.MODE_RECONSTRUCT: Mode.RECONSTRUCT,
}


_UNITLESS = (Operation.SCALE, Operation.BLEND, Operation.ABLATE, Operation.BOOST)


def read_steering(message: steering.Steering, bundle: Bundle, field: str = "steering") -> Plan:
    """Steering with its targets resolved in the bundle's label set and strengths in units of the code."""
    if message.policy:
        raise Unsupported(f"{field}.policy is not served yet")
    if len(message.edits) > MAX_EDITS:
        raise InvalidRequest(
            f"{field}.edits", f"found {len(message.edits)} edits, expected at most {MAX_EDITS}"
        )
    if message.mode not in _MODES:
        raise InvalidRequest(f"{field}.mode", f"found {message.mode}, expected a Mode")
    if message.label_set and message.label_set != bundle.labels.version:
        return _unknown_label_set(message, bundle)
    edits = tuple(
        _edit(edit, bundle, f"{field}.edits[{position}]")
        for position, edit in enumerate(message.edits)
    )
    targets, brought = (
        read_targets(message, bundle.labels, f"{field}.targets") if message.targets else ((), ())
    )
    named = [edit.target.name for edit in edits if edit.target.is_concept]
    return Plan(
        edits=(*edits, *brought),
        targets=targets,
        max_relevance_loss=read_budget(message, f"{field}.budget"),
        mode=_MODES[message.mode],
        concepts=tuple(dict.fromkeys([*named, *(target.concept.name for target in targets)])),
    )


def _unknown_label_set(message: steering.Steering, bundle: Bundle) -> Plan:
    """Names pinned to another label set are never read in this one: they could mean something else."""
    if message.required:
        raise PreconditionFailed(
            f"steering.label_set: found {message.label_set!r}, bundle {bundle.id[:12]} has"
            f" {bundle.labels.version!r}"
        )
    return Plan(degraded=True)


def _edit(message: steering.Edit, bundle: Bundle, field: str) -> RawEdit:
    if message.operation not in _OPERATIONS:
        raise InvalidRequest(
            f"{field}.operation", f"found {message.operation}, expected an Operation"
        )
    operation = _OPERATIONS[message.operation]
    target = _target(message, bundle.labels, field)
    if operation is Operation.BOOST:
        _check_boost(target, bundle, field)
    return RawEdit(target, operation, _strength(message, operation, target, field))


def _check_boost(target: Target, bundle: Bundle, field: str) -> None:
    """Refuses to boost what no item carries: neurons, weights, and concepts of no items."""
    concept = bundle.labels.concept(target.name) if target.is_concept else None
    if concept is None or not bundle.catalogue.members(concept.attribute, concept.value).any():
        raise InvalidRequest(
            field, f"found BOOST of {target.name}, expected a concept that items carry"
        )


def _strength(message: steering.Edit, operation: Operation, target: Target, field: str) -> float:
    if operation is Operation.ABLATE:
        return 0.0
    if not message.HasField("strength"):
        raise InvalidRequest(
            f"{field}.strength", f"found none, expected a number for {operation.name}"
        )
    strength = message.strength
    if not math.isfinite(strength):
        raise InvalidRequest(f"{field}.strength", f"found {strength}, expected a finite number")
    if operation is Operation.BLEND and not 0.0 <= strength <= 1.0:
        raise InvalidRequest(f"{field}.strength", f"found {strength:g}, expected 0 to 1 for BLEND")
    if abs(strength) > MAX_STRENGTH:
        raise InvalidRequest(
            f"{field}.strength",
            f"found {strength:g}, expected -{MAX_STRENGTH:g} to {MAX_STRENGTH:g}",
        )
    if message.unit not in (steering.UNIT_UNSPECIFIED, steering.UNIT_TYPICAL, steering.UNIT_RAW):
        raise InvalidRequest(f"{field}.unit", f"found {message.unit}, expected a Unit")
    if message.unit == steering.UNIT_RAW or operation in _UNITLESS:
        return strength
    return strength * target.unit


def _target(message: steering.Edit, labels: LabelSet, field: str) -> Target:
    match message.WhichOneof("target"):
        case "neuron":
            check_neuron(message.neuron, labels, f"{field}.neuron")
            return labels.neuron_target(message.neuron)
        case "concept":
            return find_concept(message.concept, labels, f"{field}.concept").target
        case "weights":
            return _weighted(message.weights, labels, f"{field}.weights")
        case _:
            raise InvalidRequest(field, "found no target, expected a neuron, a concept or weights")


def check_neuron(neuron: int, labels: LabelSet, field: str) -> None:
    """Refuses a neuron that the SAE does not have."""
    if neuron >= labels.n_neurons:
        raise InvalidRequest(field, f"found {neuron}, expected 0 to {labels.n_neurons - 1}")


def _weighted(message: steering.WeightedNeurons, labels: LabelSet, field: str) -> Target:
    if len(message.neurons) > labels.n_neurons:
        raise InvalidRequest(
            field, f"found {len(message.neurons)} neurons, expected each at most once"
        )
    neurons = np.array([part.neuron for part in message.neurons], np.int64)
    weights = np.array([part.weight for part in message.neurons], np.float32)
    if not len(neurons):
        raise InvalidRequest(field, "found no neurons, expected at least one")
    for position, neuron in enumerate(neurons.tolist()):
        check_neuron(neuron, labels, f"{field}.neurons[{position}].neuron")
    if len(np.unique(neurons)) != len(neurons):
        raise InvalidRequest(field, "found a neuron twice, expected each once")
    if (
        not (np.abs(weights) <= MAX_STRENGTH).all()
        or np.dot(weights, weights) < np.finfo(np.float32).tiny
    ):
        raise InvalidRequest(
            field, f"expected finite weights from -{MAX_STRENGTH:g} to {MAX_STRENGTH:g}, not all 0"
        )
    return labels.weighted_target(neurons, weights)
