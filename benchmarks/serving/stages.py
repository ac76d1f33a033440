"""Measures each of our parts of a call alone, in this process, in CPU time."""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from trimtab.v1 import recommendation_pb2 as pb

from benchmarks.serving.load import read_requests
from benchmarks.serving.world import World, user_id
from service.api.decode.request import read_recommend
from service.api.encode.lists import recommend_response
from service.batching.joint_calls import run_alone, run_jointly
from service.bundle.bundle import Bundle
from service.bundle.open import open_bundle
from service.bundle.registry import DEFAULT_LABEL, BundleRegistry
from service.engine.audience import audience
from service.engine.compute import answer
from service.retrieval.faiss_index import CHOSEN_DEPTH
from service.steering.steer import steer
from service.telemetry.timings import Timings
from service.users.state import NO_EVENTS, CachedEmbedding, StoredUser

CALLS = 512
TOGETHER = 32
ROUNDS = 7


def stages(world: World, requests: Path) -> dict[str, float]:
    """Measures microseconds a call, lists computed 32 at a time, the fastest of seven rounds."""
    faiss.omp_set_num_threads(1)
    bundle = open_bundle(world.bundle)
    bundles = BundleRegistry()
    bundles.add(bundle, DEFAULT_LABEL)
    bodies = [body for _, body in read_requests(requests)][:CALLS]
    queries = [
        read_recommend(pb.RecommendRequest.FromString(body), bundles, 1_000) for body in bodies
    ]
    stored = _stored(world, bundle, {query.user_id for query in queries})

    def answers(part: Sequence[int]) -> list[Any]:
        return run_jointly(
            [answer(queries[i], stored[queries[i].user_id], Timings()) for i in part]
        )

    parts = [range(start, start + TOGETHER) for start in range(0, len(queries), TOGETHER)]
    replies = [reply for part in parts for reply in answers(part)]
    who = [run_alone(audience(query, stored[query.user_id])) for query in queries]
    changes = [
        steer(query.plan, one.state, bundle.sae_decoder).parts.sum(axis=0)
        for query, one in zip(queries, who, strict=True)
    ]
    moved = [one.state.z + change for one, change in zip(who, changes, strict=True)]
    figures = {
        "parse the request": _cost(
            lambda part: [
                read_recommend(pb.RecommendRequest.FromString(bodies[i]), bundles, 1_000)
                for i in part
            ],
            parts,
        ),
        "steer": _cost(
            lambda part: [steer(queries[i].plan, who[i].state, bundle.sae_decoder) for i in part],
            parts,
        ),
        "search the index": _cost(
            lambda part: bundle.index.search(np.array([moved[i] for i in part]), CHOSEN_DEPTH),
            parts,
        ),
        "build the reply": _cost(
            lambda part: [
                recommend_response(replies[i], "0" * 16, Timings()).SerializeToString()
                for i in part
            ],
            parts,
        ),
    }
    computing = _cost(answers, parts)
    figures["score, rank, and the rest of computing"] = (
        computing - figures["steer"] - figures["search the index"]
    )
    return figures


def _stored(world: World, bundle: Bundle, users: Iterable[str]) -> dict[str, StoredUser]:
    """Encodes users as the store would hold them: user id -> history and embedding."""
    rows = {user_id(row): row for row in range(world.histories.size)}
    stored = {}
    for user in users:
        items = world.histories.rows(np.array([rows[user]])).items
        (state,) = bundle.encoder.encode([np.sort(items)])
        embedding = CachedEmbedding(state, 0)
        stored[user] = StoredUser(bundle.catalogue.hashes[items], NO_EVENTS, embedding, bytes(8))
    return stored


def _cost(work: Callable[[Sequence[int]], object], parts: Sequence[Sequence[int]]) -> float:
    """Measures the microseconds of this thread for one call."""
    seconds = []
    for _ in range(ROUNDS):
        began = time.thread_time()
        for part in parts:
            work(part)
        seconds.append(time.thread_time() - began)
    return 1e6 * min(seconds) / sum(map(len, parts))
