"""Finds the audience of a list: the user's state and seen items."""

from enum import Enum
from typing import NamedTuple

import numpy as np

from service.arrays import Ints
from service.batching.joint_calls import Computation
from service.bundle.encoder import Encode
from service.bundle.history import encoder_input, in_time_order
from service.engine.query import Query
from service.steering.state import UserState
from service.users.state import StoredUser


class Source(Enum):
    """The origin of a list; see Source in recommendation.proto."""

    PERSONAL = "personal"
    COLD_START = "cold_start"
    POPULAR = "popular"


class Audience(NamedTuple):
    """The user that a list is for.

    Attributes:
        state: The user's state.
        source: The origin of the state.
        seen: Items that are never returned again, int64 [m].
        history: The items that the encoder read, int64 [m]; empty if a cached embedding made that
            unnecessary.
        ignored_count: Number of events whose item the bundle does not know.
        cached: Whether the state came from the cache.
    """

    state: UserState
    source: Source
    seen: Ints
    history: Ints
    ignored_count: int
    cached: bool = False


NO_ITEMS: Ints = np.empty(0, np.int64)


def audience(query: Query, stored: StoredUser) -> Computation[Audience]:
    """Finds the audience of a query.

    It is the user of the given history, else of the stored one, else the mean user if steering
    acts, else nobody.

    Args:
        query: The request.
        stored: What the store knows of its user.
    """
    bundle = query.bundle
    seen = stored.seen_in(bundle.catalogue)
    if query.history is None and stored.embedding is not None:
        state, ignored_count = stored.embedding
        return Audience(state, Source.PERSONAL, seen, NO_ITEMS, ignored_count, cached=True)
    if query.history is None:
        items = bundle.catalogue.find_hashes(stored.events["item"])
        positive = stored.events["positive"]
    else:
        events = in_time_order(query.history)
        items = bundle.catalogue.find([event.item_id for event in events])
        positive = np.array([bundle.history_rule.is_positive(event) for event in events], bool)
        seen = np.union1d(seen, items[items >= 0])
    history, ignored_count = encoder_input(items, positive, bundle.history_rule)
    if len(history):
        state = yield Encode(bundle.encoder, history)
        return Audience(state, Source.PERSONAL, seen, history, ignored_count)
    source = Source.COLD_START if query.plan.acts else Source.POPULAR
    return Audience(bundle.mean_user, source, seen, NO_ITEMS, ignored_count)
