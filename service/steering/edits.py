"""Edits of a user's code, as algebra: s' = s + (new level - c) w, put back as a change of z.

A target is a weight vector w over neurons: a neuron is a unit vector, a concept a fitted vector.
Its level in a code s is c = <s, w> / <w, w>. No clamping at zero and no re-sparsifying: either
would break linearity, and make suppression of a silent neuron do nothing. Everything here is pure,
and needs no model: a cached (z, s) is enough.
"""

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

import numpy as np

from service.arrays import Floats
from service.steering.state import SparseCode
from service.steering.targets import Target


class Operation(Enum):
    """What an edit does to the level c of its target, given the strength x in units of the code."""

    ADD = "add"  # c + x
    SET = "set"  # x
    SCALE = "scale"  # x c
    CAP = "cap"  # min(c, x)
    ABLATE = "ablate"  # 0
    BLEND = "blend"  # (1 - x) s + x sum(s) / |N| on the target's neurons N: arXiv 2601.11182
    BOOST = "boost"  # leaves the code as it is: moves items in the order, see boosting.py


_NEUTRAL = {Operation.ADD: 0.0, Operation.SCALE: 1.0, Operation.BLEND: 0.0, Operation.BOOST: 0.0}


class RawEdit(NamedTuple):
    """One edit with its strength x in units of the code (SCALE and BLEND: the bare factor; BOOST: worth)."""

    target: Target
    operation: Operation
    strength: float

    @property
    def is_identity(self) -> bool:
        """True for edits that change nobody's list: ADD 0, SCALE 1, BLEND 0, BOOST 0."""
        return _NEUTRAL.get(self.operation) == self.strength

    @property
    def is_boost(self) -> bool:
        """True if it moves items instead of the code."""
        return self.operation is Operation.BOOST


class EditEffect(NamedTuple):
    """What one edit did to its target's level, and how.

    Attributes:
        amount: How far the code was moved along w; of BLEND and BOOST the strength; 0 where it had
            no effect.
        total: For BLEND, the code's sum before it.
    """

    level_before: float
    level_after: float
    amount: float
    total: float = 0.0


class Edited(NamedTuple):
    """What edits did, in their order.

    Attributes:
        changes: Of D(s), float32 [E, d]; zeros for an edit without effect.
        effects: None where nobody asked for them.
    """

    changes: Floats
    effects: tuple[EditEffect, ...] | None


def apply_edits(
    code: SparseCode, edits: Sequence[RawEdit], decoder: Floats, *, with_effects: bool = True
) -> Edited:
    """Applies edits in order to a code: each sees what the ones before it left.

    Args:
        code: The user's code s.
        edits: In order.
        decoder: W_dec, float32 [n_neurons, d].
        with_effects: Whether they are wanted where the changes can be had without: of ADD and BOOST
            alone.
    """
    directions = np.array([edit.target.direction for edit in edits], np.float32)
    directions = directions.reshape(len(edits), decoder.shape[1])
    if not with_effects and all(edit.operation is Operation.ADD or edit.is_boost for edit in edits):
        amounts = [0.0 if edit.is_boost else edit.strength for edit in edits]
        return Edited(np.array(amounts, np.float32)[:, None] * directions, None)
    effects = _walk(code, edits, len(decoder))
    amounts = [
        0.0 if edit.is_boost else effect.amount for edit, effect in zip(edits, effects, strict=True)
    ]
    changes = np.array(amounts, np.float32)[:, None] * directions
    for place, (edit, effect) in enumerate(zip(edits, effects, strict=True)):
        if edit.operation is Operation.BLEND and effect.amount:
            mixed_in = np.float32(effect.total) * decoder[edit.target.blend_neurons].mean(axis=0)
            decoded = decode(code, decoder) + changes[:place].sum(axis=0)
            changes[place] = np.float32(effect.amount) * (mixed_in - decoded)
    return Edited(changes, effects)


def decode(code: SparseCode, decoder: Floats) -> Floats:
    """The product s W_dec of a sparse code: [d]."""
    return np.asarray(code.activations @ decoder[code.neurons], np.float32)


def _walk(code: SparseCode, edits: Sequence[RawEdit], n_neurons: int) -> tuple[EditEffect, ...]:
    dense = np.zeros(n_neurons, np.float32)
    dense[code.neurons] = code.activations
    return tuple(
        (_blend if edit.operation is Operation.BLEND else _shift)(dense, edit) for edit in edits
    )


def _shift(dense: Floats, edit: RawEdit) -> EditEffect:
    """All operations but BLEND: moves the level to its new value along w."""
    level = edit.target.level(dense)
    if edit.is_boost:
        return EditEffect(level, level, edit.strength)
    new_level = _new_level(edit.operation, level, edit.strength)
    # Of ADD the strength itself, so that it does the same whether or not the level was looked at.
    amount = edit.strength if edit.operation is Operation.ADD else new_level - level
    if amount:
        edit.target.add_to(dense, amount)
    return EditEffect(level, new_level, amount)


def _new_level(operation: Operation, level: float, strength: float) -> float:
    match operation:
        case Operation.ADD:
            return level + strength
        case Operation.SET:
            return strength
        case Operation.SCALE:
            return strength * level
        case Operation.CAP:
            return min(level, strength)
        case Operation.ABLATE:
            return 0.0
        case Operation.BLEND | Operation.BOOST:
            raise ValueError(f"{operation.name} has no new level along w")


def _blend(dense: Floats, edit: RawEdit) -> EditEffect:
    """P1's convex mix: keeps (1 - alpha) of the code, spreads alpha of its sum over the target's neurons."""
    alpha, neurons = edit.strength, edit.target.blend_neurons
    before, total = edit.target.level(dense), float(dense.sum())
    if alpha == 0.0 or total == 0.0:
        return EditEffect(before, before, 0.0)
    dense *= np.float32(1.0 - alpha)
    np.add.at(dense, neurons, np.float32(alpha * total / len(neurons)))
    return EditEffect(before, edit.target.level(dense), alpha, total)
