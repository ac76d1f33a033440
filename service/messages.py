"""Wire to domain: every field of a request is checked here, and only here.

What does not fit raises InvalidRequest with the field's path, what was found and what was expected.
"""

import math
from collections.abc import Sequence

import numpy as np
from trimtab.v1 import recommendation_pb2 as wire
from trimtab.v1 import steering_pb2 as steering

from service.bundle import Bundle
from service.concepts import LabelSet
from service.errors import InvalidRequest, PreconditionFailed, Unsupported
from service.filters import Condition, Filter
from service.histories import Event, EventKind
from service.paging import read_page
from service.query import NO_FILTER, NO_PLAN, Mode, Plan, Query
from service.registry import BundleRegistry
from service.steering import Operation, RawEdit, Target
from service.targets import find_concept, read_budget, read_targets

MAX_ID_BYTES = 256
MAX_EDITS = 64
MAX_EXCLUDED = 10_000
MAX_CONDITIONS = 64
MAX_VALUES = 1_000
MAX_HISTORY = 100_000
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


def read_recommend(request: wire.RecommendRequest, bundles: BundleRegistry, max_n: int) -> Query:
    """A valid query, resolved against the bundle that the request names."""
    bundle = bundles.get(request.bundle).pinned(request.steering.label_set)
    has_history = request.HasField("history")
    if not request.user_id and not has_history:
        raise InvalidRequest("user_id", "found neither a user_id nor a history, expected one of them")
    if request.user_id:
        read_user_id(request.user_id)
    if request.page_token and request.include_report:
        raise InvalidRequest("include_report", "found a page_token too, expected it on the first page only")
    return Query(
        bundle=bundle,
        n=read_n(request.n, max_n),
        user_id=request.user_id,
        history=tuple(read_history(request.history)) if has_history else None,
        plan=read_steering(request.steering, bundle) if request.HasField("steering") else NO_PLAN,
        item_filter=read_filter(request.filter, bundle) if request.HasField("filter") else NO_FILTER,
        exclude=read_excluded(request.exclude_item_ids),
        page=read_page(request),
        explain=request.explain,
        include_unsteered=request.include_unsteered,
        include_report=request.include_report,
    )


def read_n(n: int, max_n: int) -> int:
    """How many recommendations."""
    if not 1 <= n <= max_n:
        raise InvalidRequest("n", f"found {n}, expected 1 to {max_n}")
    return n


def read_user_id(user_id: str, field: str = "user_id") -> str:
    """A user id that can be a key."""
    if not user_id:
        raise InvalidRequest(field, "found an empty id, expected 1 to 256 bytes")
    if (size := len(user_id.encode())) > MAX_ID_BYTES:
        raise InvalidRequest(field, f"found {size} bytes, expected at most {MAX_ID_BYTES}")
    return user_id


def read_history(history: wire.History, field: str = "history.events") -> list[Event]:
    """The events of a given history."""
    if len(history.events) > MAX_HISTORY:
        raise InvalidRequest(field, f"found {len(history.events)} events, expected at most {MAX_HISTORY}")
    return [read_event(event, f"{field}[{position}]") for position, event in enumerate(history.events)]


def read_event(event: wire.Event, field: str) -> Event:
    """One event."""
    if not event.item_id or len(event.item_id.encode()) > MAX_ID_BYTES:
        size = len(event.item_id.encode())
        raise InvalidRequest(f"{field}.item_id", f"found {size} bytes, expected 1 to {MAX_ID_BYTES}")
    if len(event.event_id.encode()) > MAX_ID_BYTES:
        raise InvalidRequest(f"{field}.event_id", f"expected at most {MAX_ID_BYTES} bytes")
    value = event.value if event.HasField("value") else None
    if value is not None and not math.isfinite(value):
        raise InvalidRequest(f"{field}.value", f"found {value}, expected a finite number")
    try:
        kind = EventKind(event.kind)
    except ValueError:
        raise InvalidRequest(f"{field}.kind", f"found {event.kind}, expected an EventKind") from None
    try:
        time_ms = event.time.ToMilliseconds() if event.HasField("time") else None
    except ValueError:
        raise InvalidRequest(f"{field}.time", "found a time that is none, expected years 1 to 9999") from None
    return Event(event.item_id, kind, value, time_ms, event.event_id)


def read_excluded(item_ids: Sequence[str], field: str = "exclude_item_ids") -> tuple[str, ...]:
    """Items that are not to be returned; ids that the bundle does not know are no fault."""
    if len(item_ids) > MAX_EXCLUDED:
        raise InvalidRequest(field, f"found {len(item_ids)} ids, expected at most {MAX_EXCLUDED}")
    return tuple(item_ids)


def read_filter(message: wire.Filter, bundle: Bundle, field: str = "filter") -> Filter:
    """A filter that fits the bundle's attributes."""
    for part, conditions in (("all_of", message.all_of), ("none_of", message.none_of)):
        if len(conditions) > MAX_CONDITIONS:
            raise InvalidRequest(
                f"{field}.{part}", f"found {len(conditions)} conditions, expected at most {MAX_CONDITIONS}"
            )
        for position, condition in enumerate(conditions):
            if len(condition.values) > MAX_VALUES:
                raise InvalidRequest(
                    f"{field}.{part}[{position}].values",
                    f"found {len(condition.values)} values, expected at most {MAX_VALUES}",
                )
    item_filter = Filter(
        all_of=tuple(map(_condition, message.all_of)),
        none_of=tuple(map(_condition, message.none_of)),
        item_ids=read_excluded(message.item_ids, f"{field}.item_ids"),
    )
    bundle.catalogue.check(item_filter, field)
    return item_filter


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
        _edit(edit, bundle, f"{field}.edits[{position}]") for position, edit in enumerate(message.edits)
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


def _condition(message: wire.Condition) -> Condition:
    return Condition(
        attribute=message.attribute,
        values=tuple(message.values),
        minimum=message.min if message.HasField("min") else None,
        maximum=message.max if message.HasField("max") else None,
    )


def _edit(message: steering.Edit, bundle: Bundle, field: str) -> RawEdit:
    if message.operation not in _OPERATIONS:
        raise InvalidRequest(f"{field}.operation", f"found {message.operation}, expected an Operation")
    operation = _OPERATIONS[message.operation]
    target = _target(message, bundle.labels, field)
    if operation is Operation.BOOST:
        _check_boost(target, bundle, field)
    return RawEdit(target, operation, _strength(message, operation, target, field))


def _check_boost(target: Target, bundle: Bundle, field: str) -> None:
    """Refuses to boost what no item carries: neurons, weights, and concepts of no items."""
    concept = bundle.labels.concept(target.name) if target.is_concept else None
    if concept is None or not bundle.catalogue.members(concept.attribute, concept.value).any():
        raise InvalidRequest(field, f"found BOOST of {target.name}, expected a concept that items carry")


def _strength(message: steering.Edit, operation: Operation, target: Target, field: str) -> float:
    if operation is Operation.ABLATE:
        return 0.0
    if not message.HasField("strength"):
        raise InvalidRequest(f"{field}.strength", f"found none, expected a number for {operation.name}")
    strength = message.strength
    if not math.isfinite(strength):
        raise InvalidRequest(f"{field}.strength", f"found {strength}, expected a finite number")
    if operation is Operation.BLEND and not 0.0 <= strength <= 1.0:
        raise InvalidRequest(f"{field}.strength", f"found {strength:g}, expected 0 to 1 for BLEND")
    if abs(strength) > MAX_STRENGTH:
        raise InvalidRequest(
            f"{field}.strength", f"found {strength:g}, expected -{MAX_STRENGTH:g} to {MAX_STRENGTH:g}"
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
        raise InvalidRequest(field, f"found {len(message.neurons)} neurons, expected each at most once")
    neurons = np.array([part.neuron for part in message.neurons], np.int64)
    weights = np.array([part.weight for part in message.neurons], np.float32)
    if not len(neurons):
        raise InvalidRequest(field, "found no neurons, expected at least one")
    for position, neuron in enumerate(neurons.tolist()):
        check_neuron(neuron, labels, f"{field}.neurons[{position}].neuron")
    if len(np.unique(neurons)) != len(neurons):
        raise InvalidRequest(field, "found a neuron twice, expected each once")
    if not (np.abs(weights) <= MAX_STRENGTH).all() or np.dot(weights, weights) < np.finfo(np.float32).tiny:
        raise InvalidRequest(
            field, f"expected finite weights from -{MAX_STRENGTH:g} to {MAX_STRENGTH:g}, not all 0"
        )
    return labels.weighted_target(neurons, weights)
