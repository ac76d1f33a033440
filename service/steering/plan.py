"""Defines a request's steering, resolved against one bundle."""

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from service.arrays import Bools
from service.steering.edits import RawEdit

_FLOAT32 = 1e-3
"""Error, in items of the longest list, of a share that was sent as a float32."""


class Mode(Enum):
    """How the edited code returns into the model; see Mode in steering.proto."""

    RESIDUAL = "residual"
    RECONSTRUCT = "reconstruct"


class Counts(NamedTuple):
    """The smallest and the largest right number of a list's items that are of a concept."""

    least: int
    most: int

    def hold(self, count: int) -> bool:
        """Returns whether a number is right."""
        return self.miss(count) == 0

    def miss(self, count: int) -> int:
        """Returns how far a number is from the nearest right one."""
        return max(self.least - count, count - self.most, 0)


class Bounds(NamedTuple):
    """Bounds on a concept's share of a list's items; all of them apply.

    Attributes:
        least: Smallest share, 0 to 1.
        most: Largest share, 0 to 1.
        least_times: Smallest multiple of the unsteered list's items of the concept; a list that
            consists of them is always enough.
        most_times: Largest multiple; None for no bound.
    """

    least: float = 0.0
    most: float = 1.0
    least_times: float = 0.0
    most_times: float | None = None

    @property
    def from_below(self) -> bool:
        """Whether a list can have too few items of the concept."""
        return self.least > 0.0 or self.least_times > 0.0

    @property
    def from_above(self) -> bool:
        """Whether a list can have too many items of the concept."""
        return self.most < 1.0 or self.most_times is not None

    def counts(self, n: int, unsteered_count: int) -> Counts:
        """Converts the bounds to numbers of items; if no integer fits, the lower bound decides.

        Args:
            n: Length of the list.
            unsteered_count: Items of the concept in the unsteered list.
        """
        smallest = max(self.least * n, min(self.least_times * unsteered_count, n))
        largest = self.most * n
        if self.most_times is not None:
            largest = min(largest, self.most_times * unsteered_count)
        least = math.ceil(smallest - _FLOAT32)
        return Counts(least, max(least, math.floor(largest + _FLOAT32)))


@dataclass(frozen=True, slots=True)
class TargetShare:
    """A target share: bounds on a concept's share of the list, and the edits that meet it.

    Attributes:
        name: The concept's name.
        members: Which items are of the concept, bool [n_items].
        bounds: Bounds on its share.
        edits: Positions, in the plan, of the edits whose strength is solved for.
        own: Whether the target added its edit itself. Such an edit has the largest strength
            allowed, and is used as little as possible.
    """

    name: str
    members: Bools = field(repr=False, compare=False)
    bounds: Bounds
    edits: tuple[int, ...]
    own: bool

    @property
    def rest(self) -> float:
        """The strength to start from: 0, or 1 for a target that only caps a share."""
        return 1.0 if not self.own and not self.bounds.from_below else 0.0

    @property
    def signs(self) -> tuple[float, ...]:
        """The directions in which its edits may be used.

        Only an own edit may be reversed, to have fewer items.
        """
        if not self.own or not self.bounds.from_above:
            return (1.0,)
        return (1.0, -1.0) if self.bounds.from_below else (-1.0,)

    def direction(self, count: int, counts: Counts) -> float:
        """Returns the direction, 1 or -1, in which the strength changes from its rest strength.

        Args:
            count: Items of the concept in the list at the rest strength; not right.
            counts: The right numbers.
        """
        if self.own:
            return 1.0 if count < counts.least else -1.0
        return 1.0 - 2.0 * self.rest


class TargetStrength(NamedTuple):
    """The solution for one target share.

    Attributes:
        fraction: Fraction of its edits' strength that is used: 0 to 1, from -1 for an own edit.
        lift: Number added to the scores of the concept's items if no strength is enough, else 0.
    """

    fraction: float
    lift: float = 0.0


class Applied(NamedTuple):
    """How far a plan's steering goes.

    Attributes:
        fraction: Multiplies all steering, 0 to 1; a float32 can hold it.
        targets: The solution for each target share; empty if none was solved.
    """

    fraction: float = 1.0
    targets: tuple[TargetStrength, ...] = ()


WHOLLY = Applied()


class AppliedEdit(NamedTuple):
    """An edit, and the fraction of its effect that goes back into the model."""

    edit: RawEdit
    fraction: float


@dataclass(frozen=True, slots=True)
class Plan:
    """A request's steering.

    Attributes:
        edits: The request's edits in order, including those without effect, so that reports line up
            with them; then the edits that target shares added.
        mode: How the edited code returns into the model.
        targets: The target shares.
        max_relevance_loss: The budget; None for none.
        concepts: Names of the concepts whose shares the report gives.
        degraded: True if steering was requested but cannot be applied.
    """

    edits: tuple[RawEdit, ...] = ()
    mode: Mode = Mode.RESIDUAL
    targets: tuple[TargetShare, ...] = ()
    max_relevance_loss: float | None = None
    concepts: tuple[str, ...] = ()
    degraded: bool = False

    @property
    def acts(self) -> bool:
        """Whether any user's list could differ from the unsteered one."""
        return self.mode is Mode.RECONSTRUCT or any(not edit.is_identity for edit in self.edits)

    @property
    def boosts(self) -> bool:
        """Whether items are moved in the order, in addition to changes of the query."""
        return any(edit.is_boost and not edit.is_identity for edit in self.edits)

    @property
    def solves(self) -> bool:
        """Whether the strength has to be solved for."""
        return bool(self.targets) or self.max_relevance_loss is not None

    def solved_edits(self, applied: Applied) -> list[AppliedEdit]:
        """Returns the edits with the strengths and fractions that were solved for."""
        edits = [AppliedEdit(edit, applied.fraction) for edit in self.edits]
        for target, solved in zip(self.targets, applied.targets, strict=False):
            for position in target.edits:
                edit = self.edits[position]
                if target.own:
                    edit = edit._replace(strength=edit.strength * solved.fraction)
                part = 1.0 if target.own else solved.fraction
                edits[position] = AppliedEdit(edit, applied.fraction * part)
        return edits


NO_PLAN = Plan()
