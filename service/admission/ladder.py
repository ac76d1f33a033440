"""Names every degradation: what a reply was made without."""

from enum import Enum


class Degradation(Enum):
    """One rung of the ladder of degradations.

    The name is that of the API's enum without its prefix; the value is the label of the metric
    `trimtab_degradations_total`. docs/operating.md explains each.
    """

    NO_STORE = "no_store"
    UNSTEERED = "unsteered"
    EXACT_SEARCH = "exact_search"
