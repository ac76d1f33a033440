"""What is answered: a list, and everything that the caller may ask about it."""

import time
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from service.arrays import Floats, Ints
from service.encoding import UserState
from service.query import Query
from service.ranking import Ranking
from service.steering import EditEffect, RawEdit


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
    """z' - z, whole and by part, float32 [d] each.

    Attributes:
        parts: Each edit that had an effect, beside its part.
        effects: What every edit of the plan did, identities included, in the request's order.
        reconstruction: scale(z) D(s) + shift(z) - z in RECONSTRUCT mode, else None.
        change: The sum; None if there is nothing to add.
    """

    parts: tuple[tuple[RawEdit, Floats], ...]
    effects: tuple[tuple[RawEdit, EditEffect], ...]
    reconstruction: Floats | None
    change: Floats | None


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
    POPULARITY = "popularity"


class Term(NamedTuple):
    """One reason: what it is, and its contribution to every listed item's score, float32 [n]."""

    kind: TermKind
    contributions: Floats
    edit: RawEdit | None = None


class Report(NamedTuple):
    """What steering did to the list; see the API's SteeringReport. Shares are (name, unsteered, steered)."""

    effects: tuple[tuple[RawEdit, EditEffect], ...]
    relevance_loss: float
    overlap: float
    shares: tuple[tuple[str, float, float], ...]


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
    """

    query: Query
    audience: Audience
    ranking: Ranking
    unsteered_scores: Floats
    unsteered: Ranking | None
    terms: tuple[Term, ...]
    report: Report | None
    degradations: tuple[Degradation, ...]
