"""Builds messages of steering from Python values."""

import operator
from collections.abc import Mapping

from trimtab.argument_types import Edits, Id, Shares, Steer
from trimtab.share_text import parse_share, share_between
from trimtab.steer_text import parse_edit, parse_target
from trimtab.v1.steering_pb2 import Budget, Edit, Mode, Operation, Steering, TargetShare, Unit
from trimtab.wire_values import enum_value


def steering(
    edits: Edits = (),
    *,
    mode: str | int | None = None,
    shares: Shares = (),
    max_relevance_loss: float | None = None,
    policy: str = "",
    label_set: str = "",
    required: bool = False,
) -> Steering:
    """Builds a Steering message with all of its fields.

    Args:
        edits: changes to neurons and concepts, applied in the order given.
        mode: "residual" (default) or "reconstruct".
        shares: target shares of concepts in the list.
        max_relevance_loss: largest relevance loss that steering may cause, from 0 to 1.
        policy: name of a stored steering policy, instead of edits.
        label_set: version of the label set that concept names refer to; the bundle's current one if
            empty.
        required: true to fail if steering cannot be applied, instead of an unsteered list.

    Raises:
        SteerTextError: a text is not an edit or not a target share.
        ValueError: unknown mode.
    """
    budget = None
    if max_relevance_loss is not None:
        budget = Budget(max_relevance_loss=max_relevance_loss)
    return Steering(
        edits=edits_messages(edits),
        targets=shares_messages(shares),
        budget=budget,
        policy=policy,
        label_set=label_set,
        mode=enum_value(Mode, "MODE", mode),
        required=required,
    )


def steering_message(
    steer: Steer | None,
    mode: str | int | None = None,
    shares: Shares = (),
    max_relevance_loss: float | None = None,
) -> Steering | None:
    """Builds the steering of a request, None if the arguments ask for none.

    `mode` and `max_relevance_loss` override the fields of a Steering message; `shares` are added.
    """
    edits = () if steer is None or isinstance(steer, Steering) else steer
    message = steering(edits, mode=mode, shares=shares, max_relevance_loss=max_relevance_loss)
    if isinstance(steer, Steering):
        merged = Steering()
        merged.CopyFrom(steer)
        merged.MergeFrom(message)
        return merged
    return None if steer is None and message == Steering() else message


def edits_messages(edits: Edits) -> list[Edit]:
    """Builds edits from any form of `Edits`, in the order given."""
    if isinstance(edits, str):
        return [parse_edit(edits)]
    if isinstance(edits, Mapping):
        return [_add(target, strength) for target, strength in edits.items()]
    return [edit if isinstance(edit, Edit) else parse_edit(edit) for edit in edits]


def shares_messages(shares: Shares) -> list[TargetShare]:
    """Builds target shares from any form of `Shares`, in the order given."""
    if isinstance(shares, str):
        return [parse_share(shares)]
    if isinstance(shares, Mapping):
        return [share_between(concept, low, high) for concept, (low, high) in shares.items()]
    return [share if isinstance(share, TargetShare) else parse_share(share) for share in shares]


def _add(target: Id, strength: float) -> Edit:
    edit = parse_target(target if isinstance(target, str) else f"#{operator.index(target)}")
    edit.operation = Operation.OPERATION_ADD
    edit.strength = strength
    edit.unit = Unit.UNIT_TYPICAL
    return edit
