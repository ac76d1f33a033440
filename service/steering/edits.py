"""Applies edits to a user's code: s' = s + (new level - c) w, returned as changes of D(s). Pure.

A target is a weight vector w over neurons: a unit vector for a neuron, a fitted vector for a
concept. Its level in a code s is c = <s, w> / <w, w>. The code is not clamped at zero and not made
sparse again: either would break linearity, and suppressing a silent neuron would do nothing. No
model is needed: a cached (z, s) is enough.
"""

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

import numpy as np

from service.arrays import Floats
from service.steering.state import SparseCode
from service.steering.targets import Target


class Operation(Enum):
    """The operation of an edit with strength x, in units of the code, on its target's level c."""

    ADD = "add"  # c + x
    SET = "set"  # x
    SCALE = "scale"  # x c
    CAP = "cap"  # min(c, x)
    ABLATE = "ablate"  # 0
    BLEND = "blend"  # (1 - x) s + x sum(s) / |N| on the target's neurons N: arXiv 2601.11182
    BOOST = "boost"  # leaves the code as it is, and moves items in the order: see boost.py


_NEUTRAL = {Operation.ADD: 0.0, Operation.SCALE: 1.0, Operation.BLEND: 0.0, Operation.BOOST: 0.0}


class RawEdit(NamedTuple):
    """One edit.

    Attributes:
        target: What it acts on.
        operation: What it does.
        strength: In units of the code; a factor for SCALE and BLEND, a worth for BOOST.
    """

    target: Target
    operation: Operation
    strength: float

    @property
    def is_identity(self) -> bool:
        """Whether it changes no user's list: ADD 0, SCALE 1, BLEND 0, BOOST 0."""
        return _NEUTRAL.get(self.operation) == self.strength

    @property
    def is_boost(self) -> bool:
        """Whether it moves items instead of the code."""
        return self.operation is Operation.BOOST


class EditEffect(NamedTuple):
    """The effect of one edit on its target's level.

    Attributes:
        level_before: The level that the edit found.
        level_after: The level that it left.
        amount: How far it moved the code along w; the strength for BLEND and BOOST; 0 if it had no
            effect.
        total: For BLEND, the sum of the code before it.
    """

    level_before: float
    level_after: float
    amount: float
    total: float = 0.0


class Edited(NamedTuple):
    """The results of E edits, in order.

    Attributes:
        changes: Changes of D(s), float32 [E, d]; zeros for an edit without effect.
        effects: Their effects on levels; None if they were not asked for.
    """

    changes: Floats
    effects: tuple[EditEffect, ...] | None


def apply_edits(
    code: SparseCode, edits: Sequence[RawEdit], decoder: Floats, *, with_effects: bool = True
) -> Edited:
    """Applies edits in order: each reads the code that the ones before it left.

    Args:
        code: The user's code s.
        edits: The edits, in order.
        decoder: W_dec, float32 [n_neurons, d].
        with_effects: Whether effects are needed. Without them, ADD and BOOST are not applied to the
            code, because their changes do not depend on it.
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
    _set_blends(changes, code, edits, effects, decoder)
    return Edited(changes, effects)


def _set_blends(
    changes: Floats,
    code: SparseCode,
    edits: Sequence[RawEdit],
    effects: Sequence[EditEffect],
    decoder: Floats,
) -> None:
    """Sets the changes that BLEND edits make; each depends on the changes before it."""
    for position, (edit, effect) in enumerate(zip(edits, effects, strict=True)):
        if edit.operation is Operation.BLEND and effect.amount:
            mixed_in = np.float32(effect.total) * decoder[edit.target.blend_neurons].mean(axis=0)
            decoded = decode(code, decoder) + changes[:position].sum(axis=0)
            changes[position] = np.float32(effect.amount) * (mixed_in - decoded)


def decode(code: SparseCode, decoder: Floats) -> Floats:
    """Computes the product s W_dec of a sparse code: [d]."""
    return np.asarray(code.activations @ decoder[code.neurons], np.float32)


def _walk(code: SparseCode, edits: Sequence[RawEdit], n_neurons: int) -> tuple[EditEffect, ...]:
    dense = np.zeros(n_neurons, np.float32)
    dense[code.neurons] = code.activations
    return tuple(
        (_blend if edit.operation is Operation.BLEND else _shift)(dense, edit) for edit in edits
    )


def _shift(dense: Floats, edit: RawEdit) -> EditEffect:
    """Applies any operation but BLEND: moves the level to its new value along w."""
    level = edit.target.level(dense)
    if edit.is_boost:
        return EditEffect(level, level, edit.strength)
    new_level = _new_level(edit.operation, level, edit.strength)
    # ADD takes the strength itself: new_level - level could round differently.
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
    """Mixes the code with the target's neurons (arXiv 2601.11182).

    Keeps (1 - alpha) of the code, and spreads alpha of its sum over the neurons.
    """
    alpha = edit.strength
    neurons = edit.target.blend_neurons
    before = edit.target.level(dense)
    total = float(dense.sum())
    if alpha == 0.0 or total == 0.0:
        return EditEffect(before, before, 0.0)
    dense *= np.float32(1.0 - alpha)
    np.add.at(dense, neurons, np.float32(alpha * total / len(neurons)))
    return EditEffect(before, edit.target.level(dense), alpha, total)
