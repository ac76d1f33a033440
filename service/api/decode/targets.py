"""Wire to domain: target shares and budget, checked and resolved in a label set."""

import math
from collections import defaultdict

from trimtab.v1 import steering_pb2 as steering

from service.bundle.label_set import Concept, LabelSet
from service.errors import InvalidRequest, PreconditionFailed
from service.steering.edits import Operation, RawEdit
from service.steering.plan import Bounds, TargetShare

MAX_TARGETS = 16


MOST_UNITS = 1.0
"""Typical units: the strongest edit that a target share brings. Beyond it a lift costs less relevance."""


MAX_NAME = 256
"""Characters of an unknown concept's name that are compared with the known ones."""


def read_budget(message: steering.Steering, field: str) -> float | None:
    """The largest relevance loss; None if there is no budget."""
    if not message.HasField("budget"):
        return None
    if message.mode == steering.MODE_RECONSTRUCT:
        raise InvalidRequest(
            field, "found MODE_RECONSTRUCT too, expected MODE_RESIDUAL with a budget"
        )
    return _share(message.budget.max_relevance_loss, f"{field}.max_relevance_loss")


def read_targets(
    message: steering.Steering, labels: LabelSet, field: str
) -> tuple[tuple[TargetShare, ...], list[RawEdit]]:
    """The target shares, and the edits that they bring to those of the request."""
    if len(message.targets) > MAX_TARGETS:
        raise InvalidRequest(
            field, f"found {len(message.targets)} targets, expected at most {MAX_TARGETS}"
        )
    edited: dict[str, list[int]] = defaultdict(list)
    for position, edit in enumerate(message.edits):
        if edit.WhichOneof("target") == "concept":
            edited[edit.concept].append(position)
    targets: dict[str, TargetShare] = {}
    brought: list[RawEdit] = []
    for position, target in enumerate(message.targets):
        where = f"{field}[{position}]"
        concept = find_concept(target.concept, labels, f"{where}.concept")
        if concept.name in targets:
            raise InvalidRequest(
                f"{where}.concept", f"found {concept.name!r} twice, expected it once"
            )
        bounds = _bounds(target, where)
        edits = tuple(edited[concept.name])
        own = not edits
        if own:
            edits = (len(message.edits) + len(brought),)
            brought.append(RawEdit(concept.target, Operation.ADD, MOST_UNITS * concept.target.unit))
        targets[concept.name] = TargetShare(concept, bounds, edits, own)
    return tuple(targets.values()), brought


def _bounds(target: steering.TargetShare, field: str) -> Bounds:
    if not any(
        target.HasField(name) for name in ("min_share", "max_share", "min_times", "max_times")
    ):
        raise InvalidRequest(
            field, "found no bound, expected min_share, max_share, min_times or max_times"
        )
    least = _share(target.min_share, f"{field}.min_share")
    most = _share(target.max_share, f"{field}.max_share") if target.HasField("max_share") else 1.0
    least_times = _times(target.min_times, f"{field}.min_times")
    most_times = (
        _times(target.max_times, f"{field}.max_times") if target.HasField("max_times") else None
    )
    if least > most:
        raise InvalidRequest(
            f"{field}.min_share", f"found {least:g}, expected at most max_share, {most:g}"
        )
    if most_times is not None and least_times > most_times:
        raise InvalidRequest(
            f"{field}.min_times",
            f"found {least_times:g}, expected at most max_times, {most_times:g}",
        )
    return Bounds(least, most, least_times, most_times)


def _share(value: float, field: str) -> float:
    if not 0.0 <= value <= 1.0:
        raise InvalidRequest(field, f"found {value:g}, expected 0 to 1")
    return value


def _times(value: float, field: str) -> float:
    if not 0.0 <= value < math.inf:
        raise InvalidRequest(field, f"found {value:g}, expected a finite number from 0")
    return value


def find_concept(name: str, labels: LabelSet, field: str) -> Concept:
    """The concept of a name that must be known."""
    concept = labels.concept(name)
    if concept is None and name in labels.former:  # never silently another meaning
        raise PreconditionFailed(f"{field}: {_no_such_concept(name, labels)}")
    if concept is None:
        raise InvalidRequest(field, _no_such_concept(name, labels))
    return concept


def _no_such_concept(name: str, labels: LabelSet) -> str:
    shown = name if len(name) <= 100 else f"{name[:100]}..."
    nearest = labels.nearest_names(name[:MAX_NAME])
    hint = f"nearest: {', '.join(nearest)}" if nearest else "see ConceptService.ListConcepts"
    return f"found {shown!r}, expected a concept of label set {labels.version}; {hint}"
