"""The protocol of an index over item vectors."""

from typing import Protocol

from service.arrays import Bools, Floats, Ints


class Index(Protocol):
    """Finds the rows with the largest inner products, or nearly so."""

    n_items: int
    over_fetch: float
    """So many times as many candidates as are needed hold those: its own scores are approximate."""
    selects: bool
    """Whether it can search among some items only."""

    def search(self, queries: Floats, n: int) -> Ints:
        """Row numbers for [m, p] queries, best first: int64 [m, n], -1 where there are no more."""

    def search_among(self, queries: Floats, n: int, wanted: Bools) -> Ints:
        """The same among the wanted items, bool [n_items]."""

    def comes_by(self, wanted: Bools, n: int) -> bool:
        """Whether a search for n items is known to meet wanted ones wherever it looks, and not look far."""
