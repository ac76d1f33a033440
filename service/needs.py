"""What the computation of a list asks of the bundle's models and index; see together.py."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from service.arrays import Bools, Floats, Ints
from service.bundle import Bundle
from service.encoding import Encoder, UserState
from service.retrieval import Candidates, find_candidates


@dataclass(frozen=True, slots=True)
class Encode:
    """The user state of a history of item indices, oldest first."""

    encoder: Encoder
    history: Ints

    stage: ClassVar[int] = 0

    @property
    def kind(self) -> Hashable:
        """One run of the graphs."""
        return Encode, id(self.encoder)

    def meet(self, needs: Sequence["Encode"]) -> Sequence[UserState]:
        """See Need."""
        return self.encoder.encode([need.history for need in needs])


@dataclass(frozen=True, slots=True)
class Head:
    """Queries for user embeddings z, float32 [m, d], in one context: float32 [m, p]."""

    encoder: Encoder
    z: Floats
    context: Floats

    stage: ClassVar[int] = 1

    @property
    def kind(self) -> Hashable:
        """One run of the graph."""
        return Head, id(self.encoder)

    def meet(self, needs: Sequence["Head"]) -> Sequence[Floats]:
        """See Need."""
        counts = [len(need.z) for need in needs]
        contexts = np.repeat([need.context for need in needs], counts, axis=0)
        queries = self.encoder.head(np.concatenate([need.z for need in needs]), contexts)
        return np.split(queries, np.cumsum(counts)[:-1])


@dataclass(frozen=True, slots=True)
class Search:
    """The candidates of some queries; see find_candidates."""

    bundle: Bundle
    queries: Floats
    n: int
    allowed: Bools | None
    excluded: Ints

    stage: ClassVar[int] = 2

    @property
    def kind(self) -> Hashable:
        """One search of the index."""
        return Search, id(self.bundle.index), id(self.allowed)

    def meet(self, needs: Sequence["Search"]) -> Sequence[Candidates]:
        """See Need."""
        return [
            find_candidates(
                need.bundle.index, need.bundle.items, need.queries, need.n, need.allowed, need.excluded
            )
            for need in needs
        ]
