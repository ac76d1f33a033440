"""What is answered: a list, and everything that the caller may ask about it."""

import time
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from service.arrays import AnyArray, Floats, Ints
from service.encoding import UserState
from service.lines import Counts
from service.query import AppliedEdit, Query, TargetShare
from service.ranking import Ranking
from service.steering import WHOLLY, Applied, EditEffect, RawEdit, TargetStrength


class Source(Enum):
    """Where a list comes from; see the API's Source."""

    PERSONAL = "personal"
    COLD_START = "cold_start"
    POPULAR = "popular"


class Degradation(Enum):
    """What the server did without; see the API's Degradation."""

    NO_STORE = "no_store"
    UNSTEERED = "unsteered"
    EXACT_SEARCH = "exact_search"


class Audience(NamedTuple):
    """Who a list is for.

    Attributes:
        state: The user embedding and its code.
        source: Where it comes from.
        seen: Items never to be returned, int64 [m].
        history: What the encoder read, int64 [m]; empty where a cached embedding made that unnecessary.
        ignored_count: Events on items that the bundle does not know.
        cached: True if the state came from the cache.
    """

    state: UserState
    source: Source
    seen: Ints
    history: Ints
    ignored_count: int
    cached: bool = False


class Steered(NamedTuple):
    """z' - z, whole and by part.

    Attributes:
        edits: The plan's, identities included, in its order, each with the fraction that is applied.
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


class Found(NamedTuple):
    """Candidates, and what the search gave.

    Attributes:
        items: Sorted indices, int64 [m].
        plain: Unsteered scores, float32 [m].
        scores: Steered scores, float32 or float64 [m].
        applied: How far the steering went.
        degraded: True if the index failed, so that all items were scored.
        boosted: What each boost adds to the scores, [m], with its edit's position in the plan.
    """

    items: Ints
    plain: Floats
    scores: AnyArray
    applied: Applied
    degraded: bool
    boosted: tuple[tuple[int, AnyArray], ...] = ()


class Inspection(NamedTuple):
    """Who a user is to the model, and what the server did without."""

    audience: Audience
    degradations: tuple[Degradation, ...]


class TermKind(Enum):
    """What a term of a score is; see the API's ReasonKind."""

    EDIT = "edit"
    UNSTEERED = "unsteered"
    RECONSTRUCTION = "reconstruction"
    INTERACTION = "interaction"
    TARGET = "target"
    POPULARITY = "popularity"


class Term(NamedTuple):
    """One reason: what it is, and its contribution to every listed item's score, float32 [n]."""

    kind: TermKind
    contributions: Floats
    edit: RawEdit | None = None


class Bound(Enum):
    """Which limit decided how far the steering went; see the API's Bound."""

    NONE = "none"
    BUDGET = "budget"
    TARGET = "target"


class ConceptShare(NamedTuple):
    """A concept's part of the unsteered and of the steered list: of their exposure, and of their items."""

    concept: str
    unsteered: float
    steered: float
    unsteered_items: float
    steered_items: float


class TargetResult(NamedTuple):
    """What became of a target share: how many items it asked for, and how many the list has."""

    target: TargetShare
    strength: TargetStrength
    asked: Counts
    found: int


class Report(NamedTuple):
    """What steering did to the list; see the API's SteeringReport."""

    edits: tuple[AppliedEdit, ...]
    effects: tuple[EditEffect, ...]
    targets: tuple[TargetResult, ...]
    applied_fraction: float
    relevance_loss: float
    overlap: float
    shares: tuple[ConceptShare, ...]
    bound: Bound


@dataclass(slots=True)
class Timings:
    """Seconds spent in each stage of one request."""

    stages: dict[str, float] = field(default_factory=dict)
    _start: float = field(default_factory=time.perf_counter)
    _last: float = field(default_factory=time.perf_counter)

    def lap(self, stage: str) -> None:
        """Adds the time since the last lap to a stage."""
        now = time.perf_counter()
        self.stages[stage] = self.stages.get(stage, 0.0) + now - self._last
        self._last = now

    @property
    def total(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start


@dataclass(frozen=True, slots=True)
class Reply:
    """One list.

    Attributes:
        ranking: The list.
        unsteered_scores: Of the listed items, float32 [n].
        unsteered: The list without steering from its first rank to this page's last, where it was asked for.
        terms: Reasons, where they were asked for; they sum to the scores.
        applied: How far the steering went.
    """

    query: Query
    audience: Audience
    ranking: Ranking
    unsteered_scores: Floats
    unsteered: Ranking | None
    terms: tuple[Term, ...]
    report: Report | None
    degradations: tuple[Degradation, ...]
    applied: Applied = WHOLLY
