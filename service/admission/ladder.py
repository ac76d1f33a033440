"""Names every degradation: what the server did without."""

from enum import Enum


class Degradation(Enum):
    """What the server did without; see the API's Degradation."""

    NO_STORE = "no_store"
    UNSTEERED = "unsteered"
    EXACT_SEARCH = "exact_search"
