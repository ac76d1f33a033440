"""Computes the change that a plan's edits make to a user embedding."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from service.arrays import Floats
from service.errors import EditsOutOfRange
from service.steering.edits import EditEffect, apply_edits, decode
from service.steering.plan import WHOLLY, Applied, AppliedEdit, Mode, Plan
from service.steering.state import UserState


@dataclass(frozen=True, slots=True)
class SaeDecoder:
    """What steering reads of a sparse autoencoder.

    Attributes:
        rows: W_dec, float32 [n_neurons, d].
        bias: b_dec, float32 [d].
        scale: Computes what z [d] is divided by before the SAE reads it.
        shift: Computes what is subtracted from z [d] before that.
    """

    rows: Floats
    bias: Floats
    scale: Callable[[Floats], float]
    shift: Callable[[Floats], float]


class Steered(NamedTuple):
    """The change z' - z of a user embedding, in total and by part.

    Attributes:
        edits: The plan's edits in order, including those without effect, each with the fraction
            that is applied.
        effects: The whole effect of each edit; None if they were not asked for.
        parts: The change that each edit makes, float32 [E, d]; zeros for none.
        reconstruction: scale(z) D(s) + shift(z) - z in mode RECONSTRUCT, float32 [d], else None.
        change: The sum, float32 [d]; None if it is zero.
    """

    edits: tuple[AppliedEdit, ...]
    effects: tuple[EditEffect, ...] | None
    parts: Floats
    reconstruction: Floats | None
    change: Floats | None


def steer(
    plan: Plan,
    state: UserState,
    sae: SaeDecoder,
    applied: Applied = WHOLLY,
    *,
    with_effects: bool = False,
) -> Steered:
    """Computes z' - z = scale(z) (s' - s) W_dec; RECONSTRUCT adds scale(z) D(s) + shift(z) - z.

    Args:
        plan: The edits.
        state: The user's state.
        sae: The decoder of the code.
        applied: How far the steering goes.
        with_effects: Whether the edits' effects on levels are needed.

    Raises:
        EditsOutOfRange: the change has a number that is not finite.
    """
    z = state.z
    edits = plan.solved_edits(applied)
    if not edits and plan.mode is not Mode.RECONSTRUCT:
        return Steered((), (), np.empty((0, len(z)), np.float32), None, None)
    scale = np.float32(sae.scale(z))
    # Numbers out of range are refused below.
    with np.errstate(over="ignore", invalid="ignore"):
        edited = apply_edits(
            state.code, [edit for edit, _ in edits], sae.rows, with_effects=with_effects
        )
        fractions = np.array([fraction for _, fraction in edits], np.float32)
        parts = (scale * fractions)[:, None] * edited.changes
        change = parts.sum(axis=0)
        reconstruction = None
        if plan.mode is Mode.RECONSTRUCT:
            decoded = decode(state.code, sae.rows) + sae.bias
            reconstruction = scale * decoded + np.float32(sae.shift(z)) - z
            change = change + reconstruction
        size = float(change @ change)
    if not math.isfinite(size) and not np.isfinite(change).all():
        raise EditsOutOfRange
    moves = size > 0.0 or change.any()
    return Steered(
        edits=tuple(edits),
        effects=edited.effects,
        parts=parts,
        reconstruction=reconstruction,
        change=change if moves else None,
    )
