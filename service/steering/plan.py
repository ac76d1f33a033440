"""A request's steering, resolved against one bundle."""

import math
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from service.bundle.label_set import Concept
from service.steering.edits import RawEdit


class Mode(Enum):
    """How the edited code returns into the model; see the API's Mode."""

    RESIDUAL = "residual"
    RECONSTRUCT = "reconstruct"


class Counts(NamedTuple):
    """How many of the n best may be members; both ends included."""

    least: int
    most: int

    def hold(self, count: int) -> bool:
        """Whether a number of members is right."""
        return self.miss(count) == 0

    def miss(self, count: int) -> int:
        """By how many a number of members is wrong."""
        return max(self.least - count, count - self.most, 0)


class Bounds(NamedTuple):
    """How many of a list's items may be of a concept: all hold.

    Attributes:
        least: Smallest share of the list, 0 to 1.
        most: Largest.
        least_times: Smallest multiple of what the unsteered list has; the whole list is always
            enough.
        most_times: Largest; None for any.
    """

    least: float = 0.0
    most: float = 1.0
    least_times: float = 0.0
    most_times: float | None = None

    @property
    def from_below(self) -> bool:
        """Whether a list may have too few."""
        return self.least > 0.0 or self.least_times > 0.0

    @property
    def from_above(self) -> bool:
        """Whether a list may have too many."""
        return self.most < 1.0 or self.most_times is not None

    def counts(self, n: int, unsteered_count: int) -> Counts:
        """The same for a list of n, in whole items. Where no whole number fits, the least counts."""
        fewest = max(self.least * n, min(self.least_times * unsteered_count, n))
        largest = self.most * n
        if self.most_times is not None:
            largest = min(largest, self.most_times * unsteered_count)
        least = math.ceil(fewest - _FLOAT32)
        return Counts(least, max(least, math.floor(largest + _FLOAT32)))


@dataclass(frozen=True, slots=True)
class TargetShare:
    """Bounds on how many of a list's items are of a concept, and what meets them.

    Attributes:
        concept: Whose items are counted.
        bounds: On their number.
        edits: Positions in the plan's edits of those that are strengthened and weakened for it.
        own: Whether it brought its edit itself, as strong as it may become, to be used as little as
            can be.
    """

    concept: Concept
    bounds: Bounds
    edits: tuple[int, ...]
    own: bool

    @property
    def rest(self) -> float:
        """The fraction of its edits' strength that is used where it is right: none, or all if it is a cap."""
        return 1.0 if not self.own and not self.bounds.from_below else 0.0

    @property
    def signs(self) -> tuple[float, ...]:
        """Which ways its edits may be used: only its own also the other way round, to have fewer items."""
        if not self.own or not self.bounds.from_above:
            return (1.0,)
        return (1.0, -1.0) if self.bounds.from_below else (-1.0,)

    def direction(self, count: int, counts: Counts) -> float:
        """Which way from there, where so many of the list's items are of the concept."""
        if self.own:
            return 1.0 if count < counts.least else -1.0
        return 1.0 - 2.0 * self.rest


class TargetStrength(NamedTuple):
    """What was solved for one target share.

    Attributes:
        fraction: Of the strength of its edits that is used: 0 to 1, from -1 for an edit that it
            brought.
        lift: What its concept's items get on their score where no such strength is enough; else 0.
    """

    fraction: float
    lift: float = 0.0


class Applied(NamedTuple):
    """How far a plan's steering goes: fraction, 0 to 1, multiplies all of it; a float32 can hold it."""

    fraction: float = 1.0
    targets: tuple[TargetStrength, ...] = ()


WHOLLY = Applied()


_FLOAT32 = 1e-3
"""Of an item: what a share that was a float32 may be off, in the longest list."""


class AppliedEdit(NamedTuple):
    """An edit, and the fraction of what it does that is put back into the model."""

    edit: RawEdit
    fraction: float


@dataclass(frozen=True, slots=True)
class Plan:
    """A request's steering, resolved against one bundle.

    Attributes:
        edits: As in the request, so that reports line up with it, identities included; then those
            that the targets brought.
        mode: How the edited code returns.
        targets: Shares of the list to be met.
        max_relevance_loss: The budget; None for none.
        concepts: Names that the report gives shares of.
        degraded: True if steering was asked for but cannot be applied.
    """

    edits: tuple[RawEdit, ...] = ()
    mode: Mode = Mode.RESIDUAL
    targets: tuple[TargetShare, ...] = ()
    max_relevance_loss: float | None = None
    concepts: tuple[str, ...] = ()
    degraded: bool = False

    @property
    def acts(self) -> bool:
        """True if any user's list could differ. Identities are dropped, so that they cost nothing."""
        return self.mode is Mode.RECONSTRUCT or any(not edit.is_identity for edit in self.edits)

    @property
    def boosts(self) -> bool:
        """True if items are moved in the order, beside what the edits do to the query."""
        return any(edit.is_boost and not edit.is_identity for edit in self.edits)

    @property
    def solves(self) -> bool:
        """True if how far the steering goes has to be found out."""
        return bool(self.targets) or self.max_relevance_loss is not None

    def solved_edits(self, applied: Applied) -> list[AppliedEdit]:
        """The edits, with the strengths and fractions that were solved for."""
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
