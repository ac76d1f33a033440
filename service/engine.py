"""One recommendation, start to end: the house's hallway. Each step of `answer` is a call into one module.

`answer` is pure: it reads a query and what the store knew, and returns a reply; where it needs a model or the
index it yields (see together.py), so that lists asked for at once share their work. `Engine` puts it between
the store and the caller.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

import numpy as np

from service.arrays import Ints, are_in
from service.batching import Batcher
from service.blobs import CachedEmbedding
from service.boosting import PLACES, Places, added, better_off, boosts_of, settles
from service.bundle import Bundle
from service.encoding import Encode, Head, UserState
from service.errors import DeadlineExpired, InvalidRequest, StoreUnavailable
from service.histories import Event, EventKind, encoder_input, in_time_order
from service.query import Mode, Plan, Query
from service.ranking import RELEVANCE_DEPTH, Ranking, rank, score
from service.reasons import explain
from service.reply import (
    Audience,
    Degradation,
    Found,
    Inspection,
    Reply,
    Source,
    Steered,
    Term,
    TermKind,
    Timings,
)
from service.reporting import report
from service.retrieval import find_candidates
from service.solving import lifted_items, lifts, solve
from service.steering import WHOLLY, Applied, Operation, RawEdit, apply_edits, decode
from service.together import Computation, alone
from service.userstate import UNKNOWN_USER, StoredUser

NO_ITEMS: Ints = np.empty(0, np.int64)
MOST_WRITES_PENDING = 1_000
"""Embeddings waiting to be cached; beyond that they are not: they will be computed again."""


class Store(Protocol):
    """What the engine needs of user state; see UserStore."""

    async def read(self, user_id: str, model: str | None) -> StoredUser:
        """What is stored of a user."""

    async def remember(self, user_id: str, model: str, stamp: bytes, embedding: CachedEmbedding) -> None:
        """Caches an embedding."""


class Engine:
    """Answers queries.

    Args:
        store: User state.
        batcher: Runs computations.
    """

    def __init__(self, store: Store, batcher: Batcher) -> None:
        self._store = store
        self._batcher = batcher
        self._writes: set[asyncio.Task[None]] = set()

    async def recommend(self, query: Query, timings: Timings, remaining_s: Callable[[], float]) -> Reply:
        """Answers one query.

        Args:
            query: Valid.
            timings: Gets the stages' times.
            remaining_s: Seconds until the caller's deadline.

        Raises:
            DeadlineExpired: before a stage began.
        """
        if remaining_s() <= 0:
            raise DeadlineExpired("the deadline passed before reading the user")
        stored, degradations = await self._read(query)
        timings.lap("store")
        reply = await self._batcher.run(answer(query, stored, timings, degradations), remaining_s)
        if query.history is None and len(reply.audience.history):
            self._remember(query, stored.stamp, reply.audience)
        return reply

    async def inspect(self, query: Query, remaining_s: Callable[[], float]) -> Inspection:
        """Who a query is for, with the history that the encoder reads, and without making a list."""
        stored, degradations = await self._read(query, cached=False)
        return Inspection(await self._batcher.run(audience(query, stored), remaining_s), degradations)

    async def close(self) -> None:
        """Waits for the embeddings that are being cached."""
        await asyncio.gather(*self._writes, return_exceptions=True)

    async def _read(self, query: Query, *, cached: bool = True) -> tuple[StoredUser, tuple[Degradation, ...]]:
        if not query.user_id:
            return UNKNOWN_USER, ()
        try:
            stored = await self._store.read(query.user_id, query.bundle.cache_key if cached else None)
            if stored.embedding is not None and not query.bundle.fits(stored.embedding.state):
                stored = await self._store.read(query.user_id, None)
            return stored, (Degradation.NO_STORE,) if stored.is_stale else ()
        except StoreUnavailable:
            return UNKNOWN_USER, (Degradation.NO_STORE,)

    def _remember(self, query: Query, stamp: bytes, who: Audience) -> None:
        """Caches the embedding after the reply, not on its path."""
        if len(self._writes) >= MOST_WRITES_PENDING:
            return
        task = asyncio.create_task(self._write(query, stamp, CachedEmbedding(who.state, who.ignored_count)))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    async def _write(self, query: Query, stamp: bytes, embedding: CachedEmbedding) -> None:
        # If the store is gone, the next request computes the embedding again, and says so.
        with suppress(StoreUnavailable):
            await self._store.remember(query.user_id, query.bundle.cache_key, stamp, embedding)


def answer(
    query: Query, stored: StoredUser, timings: Timings, degradations: Sequence[Degradation] = ()
) -> Computation[Reply]:
    """Computes one reply; pure but for the clock."""
    timings.lap("queue")
    bundle = query.bundle
    who = yield from audience(query, stored)
    timings.lap("encode")
    unwanted = who.seen
    if query.exclude:
        unwanted = np.union1d(unwanted, bundle.catalogue.indices_of(query.exclude))
    returned = NO_ITEMS if query.page is None else bundle.catalogue.indices_of_hashes(query.page.returned)
    if query.plan.degraded:
        degradations = (*degradations, Degradation.UNSTEERED)
    known = query.page.applied if query.page else None
    applied = known or WHOLLY
    steered = steer(query, who, applied)
    timings.lap("steer")
    acts = steered.change is not None or query.plan.targets or query.plan.boosts
    if who.source is not Source.PERSONAL and not acts:
        unwanted = np.union1d(unwanted, returned)
        return _popular(query, who._replace(source=Source.POPULAR), steered, unwanted, tuple(degradations))

    if query.plan.solves and known is None:
        found = solve(query, who.state, steered, unwanted, timings)
        applied = found.applied
        steered = steer(query, who, applied)
    else:
        found = yield from _look_up(query, who.state, steered, applied, unwanted, len(returned))
        timings.lap("search")
    if found.degraded:
        degradations = (*degradations, Degradation.EXACT_SEARCH)

    fresh = ~are_in(found.items, np.sort(returned)) if len(returned) else slice(None)
    ranking = rank(found.items[fresh], found.scores[fresh], query.n)
    rows = np.searchsorted(found.items, ranking.items)  # candidates are sorted
    unsteered_scores = found.plain[rows]
    depth = query.n + len(returned)
    unsteered = rank(found.items, found.plain, max(depth, RELEVANCE_DEPTH)) if query.compares else None
    terms: tuple[Term, ...] = ()
    if query.explain:
        boosted = [(steered.edits[position].edit, part[rows]) for position, part in found.boosted]
        lifted = lifts(query, applied, ranking.items)
        terms = explain(bundle, who.state, ranking, unsteered_scores, steered, boosted, lifted)
    compared = None
    if unsteered and query.include_report:
        compared = report(query, steered, ranking, unsteered_scores, unsteered, applied)
    shown = Ranking(unsteered.items[:depth], unsteered.scores[:depth]) if unsteered else None
    timings.lap("rank")
    return Reply(query, who, ranking, unsteered_scores, shown, terms, compared, tuple(degradations), applied)


def _look_up(
    query: Query, state: UserState, steered: Steered, applied: Applied, unwanted: Ints, returned_count: int
) -> Computation[Found]:
    """The candidates where it is known how far the steering goes: those of the steered and the plain query.

    Items that are boosted or lifted are searched for apart: without that they would not be found.
    """
    bundle = query.bundle
    queries = np.array([state.z] if steered.change is None else [state.z, state.z + steered.change])
    if bundle.encoder.has_head:
        queries = yield Head(bundle.encoder, queries, state.context)
    depth, boosts = query.n + returned_count, boosts_of(query, applied)
    needed = max(depth, RELEVANCE_DEPTH if query.include_report else 0, PLACES if boosts else 0)
    allowed = bundle.catalogue.allowed(query.item_filter)
    index, matrix = bundle.index, bundle.items
    sought = queries if query.compares or boosts else queries[-1:]
    found = yield from find_candidates(index, matrix, sought, needed, allowed, unwanted)
    items, degraded = found.items, found.degraded
    every = score(matrix, items, queries)
    apart = [(some, depth) for some in lifted_items(query, applied)]
    if boosts and not settles(every, [boost.of(items) for boost in boosts], depth, needed):
        apart += [(some, max(depth, PLACES)) for some in better_off(boosts)]
    for some, count in apart:
        limit = some if allowed is None else allowed & some
        more = yield from find_candidates(index, matrix, queries[-1:], count, limit, unwanted)
        items, degraded = np.union1d(items, more.items), degraded or more.degraded
    if apart:
        every = score(matrix, items, queries)
    plain, scores = every[0], every[-1]
    boosted = added(Places(plain), scores, [boost.of(items) for boost in boosts]) if boosts else ()
    for part in (*boosted, *lifts(query, applied, items)):
        scores = scores + part
    positions = (boost.position for boost in boosts)
    return Found(items, plain, scores, applied, degraded, tuple(zip(positions, boosted, strict=True)))


def warm_up(bundle: Bundle) -> Reply:
    """Answers one request that passes through every part of a bundle; ready means that this worked."""
    concepts = bundle.labels.concepts[:1]
    targets = [bundle.labels.neuron_target(0), *(concept.target for concept in concepts)]
    edits = tuple(RawEdit(target, Operation.ADD, target.unit) for target in targets)
    query = Query(
        bundle,
        n=20,
        history=tuple(Event(item_id, EventKind.LIKE) for item_id in bundle.catalogue.item_ids[:10]),
        plan=Plan(edits, max_relevance_loss=0.1, concepts=tuple(concept.name for concept in concepts)),
        explain=True,
        include_unsteered=True,
        include_report=True,
    )
    return alone(answer(query, UNKNOWN_USER, Timings()))


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
        items, positive = bundle.catalogue.find_hashes(stored.events["item"]), stored.events["positive"]
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


def steer(query: Query, who: Audience, applied: Applied = WHOLLY) -> Steered:
    """The change z' - z: scale(z) (s' - s) W_dec; RECONSTRUCT adds scale(z) D(s) + shift(z) - z."""
    labels, z = query.bundle.labels, who.state.z
    edits = query.plan.solved_edits(applied)
    if not edits and query.plan.mode is not Mode.RECONSTRUCT:
        return Steered((), (), np.empty((0, len(z)), np.float32), None, None)
    scale = np.float32(query.bundle.scale(z))
    with np.errstate(over="ignore", invalid="ignore"):  # what leaves the range of numbers is refused below
        changes, effects = apply_edits(
            who.state.code,
            [edit for edit, _ in edits],
            labels.decoder,
            with_effects=query.include_report,
        )
        fractions = np.array([fraction for _, fraction in edits], np.float32)
        parts = (scale * fractions)[:, None] * changes
        change = parts.sum(axis=0)
        reconstruction = None
        if query.plan.mode is Mode.RECONSTRUCT:
            decoded = decode(who.state.code, labels.decoder) + labels.bias
            reconstruction = scale * decoded + np.float32(query.bundle.shift(z)) - z
            change = change + reconstruction
        size = float(change @ change)
    if not math.isfinite(size) and not np.isfinite(change).all():
        raise InvalidRequest("steering.edits", "the edits together leave the range of numbers")
    moves = size > 0.0 or change.any()
    return Steered(tuple(edits), effects, parts, reconstruction, change if moves else None)


def _popular(
    query: Query, who: Audience, steered: Steered, unwanted: Ints, degradations: tuple[Degradation, ...]
) -> Reply:
    """The most popular allowed items, for a user of whom nothing is known."""
    catalogue = query.bundle.catalogue
    wanted = np.ones(len(catalogue), bool)
    if (allowed := catalogue.allowed(query.item_filter)) is not None:
        wanted &= allowed
    wanted[unwanted] = False
    items = catalogue.by_popularity[wanted[catalogue.by_popularity]][: query.n]
    scores = catalogue.popularity[items].astype(np.float32)
    ranking = Ranking(items, scores)
    terms = (Term(TermKind.POPULARITY, scores),) if query.explain else ()
    compared = report(query, steered, ranking, scores, ranking) if query.include_report else None
    return Reply(
        query, who, ranking, scores, ranking if query.compares else None, terms, compared, degradations
    )
