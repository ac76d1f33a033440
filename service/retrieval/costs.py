"""The measured costs that decide how candidates are searched for."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SearchCosts:
    """Costs of the ways to search, by which plan_search chooses.

    The defaults were measured with catalogues of 40,000 to 10 million items on one thread:
    docs/results/retrieval.md.

    Attributes:
        margin: Items. Fetched beyond those needed, because the index rounds scores differently
            from the rescoring, and because the share of fetched items that a filter allows varies
            by chance. More cost a few rescored rows, fewer make second searches likelier.
        widening: Factor of the number of items fetched, whenever too few of them were allowed.
            A higher one wastes more on the last search, a lower one makes more searches.
        over_fetched_item: Cost of one over-fetched item, in items that are scored directly. With a
            higher cost, small sets of allowed items are scored directly sooner.
        selection_share: Share of all items. If more are allowed, an index reads their codes in
            less time than their vectors are gathered; then it searches among them where it can.
    """

    margin: int = 16
    widening: int = 4
    over_fetched_item: int = 10
    selection_share: float = 1 / 16


SEARCH_COSTS = SearchCosts()
"""The costs that the service uses."""
