"""The protocol of an index over item vectors, and what every engine behind it promises."""

from typing import Protocol

from service.arrays import Bools, Floats, Ints


class Index(Protocol):
    """Finds the items with the largest inner products, or nearly all of them.

    Attributes:
        n_items: Number of items in the index.
        over_fetch: Candidates that must be fetched for each item needed, at least 1.0: the scores
            of an approximate index may rank a needed item lower than it belongs.
        can_select: True if the index can search among given items only.
    """

    n_items: int
    over_fetch: float
    can_select: bool

    def search(self, queries: Floats, n: int) -> Ints:
        """Finds n items for each of the queries [m, p], best first: int64 [m, n], -1 for none."""

    def search_among(self, queries: Floats, n: int, allowed: Bools) -> Ints:
        """Finds n items among the allowed ones, bool [n_items]; shapes as in search."""

    def over_fetch_pays(self, allowed: Bools, n: int) -> bool:
        """Tells if a plain search for n items meets allowed ones and is cheaper than scoring them.

        Args:
            allowed: bool [n_items].
            n: Number of items that the search fetches, the forbidden ones included.

        Returns:
            True only if both are known. Then a search may fetch nearly as many items as there are
            allowed ones, where SearchCosts would otherwise end it earlier.
        """
