"""Defines how strongly each part of a plan's steering is used."""

from dataclasses import dataclass

import numpy as np

from service.arrays import Doubles


@dataclass(frozen=True, slots=True, eq=False)
class Strengths:
    """Weights of what steering adds, for a plan with J targets.

    Attributes:
        values: float64 [1 + J + J], not to be changed: the weight of the edits that belong to no
            target, then the strength of each target's edits, -1 to 1, then the lift of each
            target, in units of the score.
    """

    values: Doubles

    @classmethod
    def none(cls, target_count: int) -> "Strengths":
        """Returns the strengths of no steering."""
        return cls(np.zeros(1 + 2 * target_count))

    @property
    def _target_count(self) -> int:
        return len(self.values) // 2

    @property
    def moves(self) -> Doubles:
        """Weights of the moves of z: [1 + J]."""
        return self.values[: 1 + self._target_count]

    @property
    def targets(self) -> Doubles:
        """Strengths of the targets' edits: [J]."""
        return self.values[1 : 1 + self._target_count]

    @property
    def lifts(self) -> Doubles:
        """Lifts of the targets: [J]."""
        return self.values[1 + self._target_count :]

    def scaled(self, fraction: float) -> "Strengths":
        """Returns a fraction of all strengths and lifts."""
        return Strengths(fraction * self.values)

    def plus(self, other: "Strengths", weight: float = 1.0) -> "Strengths":
        """Returns the sum of these strengths and a multiple of others."""
        return Strengths(self.values + weight * other.values)

    def minus(self, other: "Strengths") -> "Strengths":
        """Returns the difference to other strengths."""
        return Strengths(self.values - other.values)

    def with_target(self, j: int, strength: float) -> "Strengths":
        """Returns a copy with another strength of target j."""
        return self._with(1 + j, strength)

    def with_lift(self, j: int, lift: float) -> "Strengths":
        """Returns a copy with another lift of target j."""
        return self._with(1 + self._target_count + j, lift)

    def with_lifts(self, lifts: Doubles) -> "Strengths":
        """Returns a copy with other lifts: [J]."""
        return Strengths(np.concatenate([self.moves, lifts]))

    def equals(self, other: "Strengths") -> bool:
        """Returns whether all strengths and lifts are equal."""
        return bool((self.values == other.values).all())

    def _with(self, position: int, value: float) -> "Strengths":
        values = self.values.copy()
        values[position] = value
        return Strengths(values)
