"""Decodes target shares and the relevance budget."""

import math
from collections import defaultdict
from typing import Literal, NamedTuple

from trimtab.v1 import steering_pb2 as steering

from service.api.decode.checks import check_count, find_concept, read_share
from service.bundle.bundle import Bundle
from service.errors import unexpected
from service.steering.edits import Operation, RawEdit
from service.steering.plan import Bounds, TargetShare

MAX_TARGETS = 16
"""Target shares of one request; the solver takes a step for each."""

OWN_EDIT_UNITS = 1.0
"""Strength, in typical units, of the edit that a target share adds to the request.

A stronger edit costs more relevance than a lift: docs/solver.md.
"""

_BOUNDS: tuple[Literal["min_share", "max_share", "min_times", "max_times"], ...] = (
    "min_share",
    "max_share",
    "min_times",
    "max_times",
)


class Targets(NamedTuple):
    """The target shares of a request, and the edits that they add to the request's own."""

    shares: tuple[TargetShare, ...] = ()
    edits: tuple[RawEdit, ...] = ()


def read_budget(message: steering.Steering, field: str) -> float | None:
    """Returns the largest relevance loss allowed; None if there is no budget."""
    if not message.HasField("budget"):
        return None
    if message.mode == steering.MODE_RECONSTRUCT:
        raise unexpected(field, "MODE_RESIDUAL with a budget", "MODE_RECONSTRUCT too")
    return read_share(message.budget.max_relevance_loss, f"{field}.max_relevance_loss")


def read_targets(message: steering.Steering, bundle: Bundle, field: str) -> Targets:
    """Returns the target shares of a request.

    A target share uses the request's edits of its concept; if there are none, it adds one.
    """
    check_count(message.targets, MAX_TARGETS, "targets", field)
    positions = _edit_positions(message)
    shares: dict[str, TargetShare] = {}
    added: list[RawEdit] = []
    for number, target in enumerate(message.targets):
        path = f"{field}[{number}]"
        concept = find_concept(target.concept, bundle.labels, f"{path}.concept")
        if concept.name in shares:
            raise unexpected(f"{path}.concept", "each concept once", f"{concept.name!r} twice")
        bounds = _bounds(target, path)
        edits = tuple(positions[concept.name])
        own = not edits
        if own:
            edits = (len(message.edits) + len(added),)
            strength = OWN_EDIT_UNITS * concept.target.unit
            added.append(RawEdit(concept.target, Operation.ADD, strength))
        shares[concept.name] = TargetShare(
            name=concept.name,
            members=bundle.catalogue.members(concept.attribute, concept.value),
            bounds=bounds,
            edits=edits,
            own=own,
        )
    return Targets(tuple(shares.values()), tuple(added))


def _edit_positions(message: steering.Steering) -> dict[str, list[int]]:
    """Returns the positions of each concept's edits in the request."""
    positions: dict[str, list[int]] = defaultdict(list)
    for position, edit in enumerate(message.edits):
        if edit.WhichOneof("target") == "concept":
            positions[edit.concept].append(position)
    return positions


def _bounds(target: steering.TargetShare, field: str) -> Bounds:
    if not any(target.HasField(name) for name in _BOUNDS):
        raise unexpected(field, "min_share, max_share, min_times or max_times", "no bound")
    bounds = Bounds(
        least=read_share(target.min_share, f"{field}.min_share"),
        most=_max_share(target, field),
        least_times=_read_times(target.min_times, f"{field}.min_times"),
        most_times=_max_times(target, field),
    )
    if bounds.least > bounds.most:
        raise unexpected(
            f"{field}.min_share",
            f"at most max_share, {bounds.most:g}",
            f"{bounds.least:g}",
        )
    if bounds.most_times is not None and bounds.least_times > bounds.most_times:
        raise unexpected(
            f"{field}.min_times",
            f"at most max_times, {bounds.most_times:g}",
            f"{bounds.least_times:g}",
        )
    return bounds


def _max_share(target: steering.TargetShare, field: str) -> float:
    if not target.HasField("max_share"):
        return 1.0
    return read_share(target.max_share, f"{field}.max_share")


def _max_times(target: steering.TargetShare, field: str) -> float | None:
    if not target.HasField("max_times"):
        return None
    return _read_times(target.max_times, f"{field}.max_times")


def _read_times(value: float, field: str) -> float:
    if not 0.0 <= value < math.inf:
        raise unexpected(field, "a finite number from 0", f"{value:g}")
    return value
