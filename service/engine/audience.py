"""Works out who a list is for."""

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
    """Where a list comes from; see the API's Source."""

    PERSONAL = "personal"
    COLD_START = "cold_start"
    POPULAR = "popular"


class Audience(NamedTuple):
    """Who a list is for.

    Attributes:
        state: The user embedding and its code.
        source: Where it comes from.
        seen: Items never to be returned, int64 [m].
        history: What the encoder read, int64 [m]; empty where a cached embedding made that
            unnecessary.
        ignored_count: Events on items that the bundle does not know.
        cached: True if the state came from the cache.
    """

    state: UserState
    source: Source
    seen: Ints
    history: Ints
    ignored_count: int
    cached: bool = False


NO_ITEMS: Ints = np.empty(0, np.int64)


def audience(query: Query, stored: StoredUser) -> Computation[Audience]:
    """Who the list is for.

    A given history, else the stored one, else the mean user if steering acts, else nobody.
    """
    bundle = query.bundle
    seen = stored.seen_in(bundle.catalogue)
    if query.history is None and stored.embedding is not None:
        state, ignored_count = stored.embedding
        return Audience(state, Source.PERSONAL, seen, NO_ITEMS, ignored_count, cached=True)
    if query.history is None:
        items, positive = (
            bundle.catalogue.find_hashes(stored.events["item"]),
            stored.events["positive"],
        )
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
