"""Computes the change that a plan's edits make to a user embedding."""

import math
from typing import NamedTuple

import numpy as np

from service.arrays import Floats
from service.engine.audience import Audience
from service.engine.query import Query
from service.errors import EditsOutOfRange
from service.steering.edits import EditEffect, apply_edits, decode
from service.steering.plan import WHOLLY, Applied, AppliedEdit, Mode


class Steered(NamedTuple):
    """z' - z, whole and by part.

    Attributes:
        edits: The plan's, identities included, in its order, each with the fraction that is
            applied.
        effects: What each would do wholly; None where nobody asked.
        parts: What each adds, float32 [E, d]; zeros for nothing.
        reconstruction: scale(z) D(s) + shift(z) - z in RECONSTRUCT mode, float32 [d], else None.
        change: The sum, float32 [d]; None if there is nothing to add.
    """

    edits: tuple[AppliedEdit, ...]
    effects: tuple[EditEffect, ...] | None
    parts: Floats
    reconstruction: Floats | None
    change: Floats | None


def steer(query: Query, who: Audience, applied: Applied = WHOLLY) -> Steered:
    """The change z' - z: scale(z) (s' - s) W_dec; RECONSTRUCT adds scale(z) D(s) + shift(z) - z."""
    labels, z = query.bundle.labels, who.state.z
    edits = query.plan.solved_edits(applied)
    if not edits and query.plan.mode is not Mode.RECONSTRUCT:
        return Steered((), (), np.empty((0, len(z)), np.float32), None, None)
    scale = np.float32(query.bundle.scale(z))
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # what leaves the range of numbers is refused below
        changes, effects = apply_edits(
            who.state.code,
            [edit for edit, _ in edits],
            labels.decoder,
            with_effects=query.include_report,
        )
        fractions = np.array([fraction for _, fraction in edits], np.float32)
        parts = (scale * fractions)[:, None] * changes
        change = parts.sum(axis=0)
        reconstruction = None
        if query.plan.mode is Mode.RECONSTRUCT:
            decoded = decode(who.state.code, labels.decoder) + labels.bias
            reconstruction = scale * decoded + np.float32(query.bundle.shift(z)) - z
            change = change + reconstruction
        size = float(change @ change)
    if not math.isfinite(size) and not np.isfinite(change).all():
        raise EditsOutOfRange
    moves = size > 0.0 or change.any()
    return Steered(tuple(edits), effects, parts, reconstruction, change if moves else None)
