"""Decodes the steering of a request."""

import numpy as np
from trimtab.v1 import steering_pb2 as steering

from service.api.decode.checks import (
    check_count,
    check_neuron,
    find_concept,
    read_finite,
)
from service.api.decode.targets import Targets, read_budget, read_targets
from service.arrays import Floats
from service.bundle.bundle import Bundle
from service.bundle.label_set import LabelSet
from service.errors import InvalidRequest, PreconditionFailed, Unsupported, quoted, unexpected
from service.steering.edits import Operation, RawEdit
from service.steering.plan import Mode, Plan
from service.steering.targets import Target

MAX_EDITS = 64
"""Edits of one request; each is a row of the product with the decoder."""

MAX_STRENGTH = 1e6
"""Largest absolute strength or weight; beyond it, edits together leave float32."""

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

_UNITS = (steering.UNIT_UNSPECIFIED, steering.UNIT_TYPICAL, steering.UNIT_RAW)

_UNITLESS = (Operation.SCALE, Operation.BLEND, Operation.ABLATE, Operation.BOOST)
"""Operations whose strength is a bare factor."""


def read_steering(message: steering.Steering, bundle: Bundle, field: str = "steering") -> Plan:
    """Returns the plan of a request's steering.

    Its targets are resolved in the bundle's label set, and its strengths are in units of the code.
    """
    if message.policy:
        raise Unsupported(f"{field}.policy is not served yet")
    check_count(message.edits, MAX_EDITS, "edits", f"{field}.edits")
    if message.mode not in _MODES:
        raise unexpected(f"{field}.mode", "a Mode", message.mode)
    if message.label_set and message.label_set != bundle.labels.version:
        return _unknown_label_set(message, bundle)
    edits = tuple(
        _edit(edit, bundle, f"{field}.edits[{position}]")
        for position, edit in enumerate(message.edits)
    )
    targets = Targets()
    if message.targets:
        targets = read_targets(message, bundle, f"{field}.targets")
    named = [edit.target.name for edit in edits if edit.target.is_concept]
    named += [share.name for share in targets.shares]
    return Plan(
        edits=edits + targets.edits,
        targets=targets.shares,
        max_relevance_loss=read_budget(message, f"{field}.budget"),
        mode=_MODES[message.mode],
        concepts=tuple(dict.fromkeys(named)),
    )


def _unknown_label_set(message: steering.Steering, bundle: Bundle) -> Plan:
    """Returns a plan without steering: in another label set a name could mean something else."""
    if message.required:
        raise PreconditionFailed(
            f"steering.label_set: expected {bundle.labels.version!r} of bundle {bundle.id[:12]},"
            f" found {quoted(message.label_set)}"
        )
    return Plan(degraded=True)


def _edit(message: steering.Edit, bundle: Bundle, field: str) -> RawEdit:
    if message.operation not in _OPERATIONS:
        raise unexpected(f"{field}.operation", "an Operation", message.operation)
    operation = _OPERATIONS[message.operation]
    target = _target(message, bundle.labels, field)
    if operation is Operation.BOOST:
        _check_boost(target, bundle, field)
    return RawEdit(target, operation, _strength(message, operation, target, field))


def _check_boost(target: Target, bundle: Bundle, field: str) -> None:
    """Refuses to boost what no item carries: neurons, weights, and concepts of no items."""
    concept = bundle.labels.concept(target.name) if target.is_concept else None
    if concept is None or not bundle.catalogue.members(concept.attribute, concept.value).any():
        raise unexpected(field, "a concept that items carry", f"BOOST of {target.name}")


def _strength(message: steering.Edit, operation: Operation, target: Target, field: str) -> float:
    """Returns an edit's strength in units of the code."""
    if operation is Operation.ABLATE:
        return 0.0
    path = f"{field}.strength"
    if not message.HasField("strength"):
        raise unexpected(path, f"a number for {operation.name}", "none")
    strength = read_finite(message.strength, path)
    if operation is Operation.BLEND and not 0.0 <= strength <= 1.0:
        raise unexpected(path, "0 to 1 for BLEND", f"{strength:g}")
    if abs(strength) > MAX_STRENGTH:
        raise unexpected(path, f"-{MAX_STRENGTH:g} to {MAX_STRENGTH:g}", f"{strength:g}")
    if message.unit not in _UNITS:
        raise unexpected(f"{field}.unit", "a Unit", message.unit)
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
            return _weighted_target(message.weights, labels, f"{field}.weights")
        case _:
            raise unexpected(field, "a neuron, a concept or weights", "no target")


def _weighted_target(message: steering.WeightedNeurons, labels: LabelSet, field: str) -> Target:
    if len(message.neurons) > labels.n_neurons:
        raise unexpected(field, "each neuron at most once", f"{len(message.neurons)} neurons")
    neurons = np.array([part.neuron for part in message.neurons], np.int64)
    weights = np.array([part.weight for part in message.neurons], np.float32)
    if not len(neurons):
        raise unexpected(field, "at least one neuron", "no neurons")
    for position, neuron in enumerate(neurons.tolist()):
        check_neuron(neuron, labels, f"{field}.neurons[{position}].neuron")
    if len(np.unique(neurons)) != len(neurons):
        raise unexpected(field, "each neuron once", "a neuron twice")
    in_range = bool((np.abs(weights) <= MAX_STRENGTH).all())  # false for NaN
    if not in_range or np.dot(weights, weights) < np.finfo(np.float32).tiny:
        raise InvalidRequest(
            field,
            f"expected finite weights from -{MAX_STRENGTH:g} to {MAX_STRENGTH:g}, not all 0;"
            f" found {_range(weights)}",
        )
    return labels.weighted_target(neurons, weights)


def _range(weights: Floats) -> str:
    return f"{weights.min():g} to {weights.max():g}"
