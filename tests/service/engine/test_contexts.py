"""Tests lists against torch: heads with a context, other normalisations, ordered histories."""

import itertools
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis.asyncio as redis
import torch
from trimtab import Client
from trimtab.v1 import recommendation_pb2 as pb

from service.batching.joint_calls import run_alone
from service.bundle.history import Event, EventKind
from service.bundle.precision import Precision
from service.engine.audience import Source
from service.engine.compute import answer
from service.engine.query import Query
from service.engine.reply import Reply
from service.steering.edits import Operation, RawEdit
from service.steering.plan import Mode, Plan
from service.steering.state import NO_CONTEXT, SparseCode
from service.telemetry.timings import Timings
from service.users.codec import pack_embedding
from service.users.state import UNKNOWN_USER, CachedEmbedding
from tests.support.servers import StartServer

ITEMS = [3, 17, 40, 41, 99, 120, 7, 64]
IDS = [f"item-{item}" for item in ITEMS]
N = 20
Variants = Callable[[str], Any]
_ids = itertools.count()


@pytest.fixture(scope="module", params=["unit", "standard", "context"])
def made(request: pytest.FixtureRequest, variant: Variants) -> Any:
    return variant(request.param)


@pytest.fixture
def user_id() -> str:
    return f"context-user-{next(_ids)}"


@pytest.fixture(scope="module")
def client(
    variant: Variants, start_server: StartServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    with (
        start_server(variant("context").path, tmp_path_factory.mktemp("context")) as served,
        Client(served.target) as client,
    ):
        yield client


def ask(made: Any, items: list[int], plan: Plan, **fields: Any) -> Reply:
    events = tuple(Event(f"item-{item}", EventKind.LIKE) for item in items)
    return run_alone(
        answer(Query(made.bundle, N, history=events, plan=plan, **fields), UNKNOWN_USER, Timings())
    )


def stored(values: torch.Tensor) -> torch.Tensor:
    return values.half().float()


@torch.no_grad()
def torch_scores(made: Any, items: list[int], edit: torch.Tensor, mode: Mode) -> torch.Tensor:
    """Computes the formulas of docs/formulas.md with the torch models behind the bundle."""
    recommender = made.world.recommender
    sae = made.world.sae
    state = recommender.activate(
        torch.tensor([items], dtype=torch.int64), torch.ones(1, len(items))
    )
    z = stored(state.z)
    neurons, activations = sae.encode_sparse(z)
    code = torch.zeros(1, sae.n_neurons).scatter_add(1, neurons, stored(activations))
    moved = z + sae.scale(z) * (edit @ sae.W_dec)
    if mode is Mode.RECONSTRUCT:
        moved = sae.scale(z) * ((code + edit) @ sae.W_dec + sae.b_dec) + sae.shift(z)
    scores: torch.Tensor = (
        recommender.head(moved, stored(state.context)) @ recommender.V.T + recommender.b
    )[0]
    scores[items] = -torch.inf
    return scores


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("strength", [0.0, 1.5])
def test_lists_equal_those_of_torch_in_every_mode(made: Any, mode: Mode, strength: float) -> None:
    concept = made.bundle.labels.concepts[1]
    edit = RawEdit(concept.target, Operation.ADD, strength * concept.target.unit)
    reply = ask(made, ITEMS, Plan((edit,), mode), explain=True)
    weights = torch.from_numpy(np.array(concept.target.weights))
    expected = torch_scores(made, ITEMS, edit.strength * weights, mode)
    best = torch.sort(expected, descending=True).values[:N].numpy()
    np.testing.assert_allclose(reply.ranking.scores, best, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        reply.ranking.scores, expected[reply.ranking.items], rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(
        np.sum([term.contributions for term in reply.terms], axis=0),
        reply.ranking.scores,
        atol=1e-4,
    )


def test_the_mean_user_is_steered_in_the_context_of_the_empty_history(made: Any) -> None:
    concept = made.bundle.labels.concepts[0]
    edit = RawEdit(concept.target, Operation.ADD, concept.target.unit)
    reply = ask(made, [], Plan((edit,)))
    assert reply.audience.source is Source.COLD_START
    recommender = made.world.recommender
    sae = made.world.sae
    with torch.no_grad():
        z = stored(torch.tensor([made.bundle.manifest.mean_user]))
        context = recommender.activate(
            torch.zeros(1, 0, dtype=torch.int64), torch.zeros(1, 0)
        ).context
        weights = torch.from_numpy(np.array(concept.target.weights))
        moved = z + sae.scale(z) * (edit.strength * weights @ sae.W_dec)
        expected = (recommender.head(moved, context) @ recommender.V.T + recommender.b)[0]
    np.testing.assert_allclose(
        reply.ranking.scores, expected[reply.ranking.items], rtol=1e-4, atol=1e-4
    )
    assert float(expected.max()) == pytest.approx(float(reply.ranking.scores[0]), rel=1e-4)


def _listed(items: Any) -> list[tuple[str, float]]:
    return [(item.item_id, item.score) for item in items]


def _until_cached(client: Client, user_id: str) -> None:
    for _ in range(200):
        if client.recommend(user_id, n=1).served_by.cached:
            return
    pytest.fail("the embedding was not cached")


@pytest.mark.parametrize("steer", [None, {"Comedy": 1.5, "#9": -0.5}])
def test_a_cached_list_equals_the_cold_and_the_given_one_bit_for_bit(
    client: Client, user_id: str, steer: dict[str, float] | None
) -> None:
    client.record((user_id, item) for item in IDS)
    cold = client.recommend(user_id, n=N, steer=steer)
    _until_cached(client, user_id)
    warm = client.recommend(user_id, n=N, steer=steer)
    given = client.recommend(history=IDS, n=N, steer=steer)
    assert (cold.served_by.cached, warm.served_by.cached) == (False, True)
    assert _listed(cold.items) == _listed(warm.items) == _listed(given.items)


def test_events_are_ordered_by_their_time(client: Client, user_id: str) -> None:
    given = client.recommend(history=IDS, n=N)
    assert _listed(client.recommend(history=IDS[::-1], n=N).items) != _listed(given.items)
    timed = [pb.Event(item_id=item_id) for item_id in IDS]
    for second, event in enumerate(timed):
        event.time.FromSeconds(1_700_000_000 + second)
    shuffled = [timed[place] for place in (5, 0, 7, 2, 1, 6, 3, 4)]
    assert _listed(client.recommend(history=shuffled, n=N).items) == _listed(given.items)
    for event in shuffled:
        client.record([pb.Interaction(user_id=user_id, event=event)])
    assert _listed(client.recommend(user_id, n=N).items) == _listed(given.items)


def test_a_repeated_item_counts_at_its_last_position_whether_stored_or_given(
    client: Client, user_id: str
) -> None:
    once = client.recommend(history=[*IDS[1:], IDS[0]], n=N)
    twice = client.recommend(history=[*IDS, IDS[0]], n=N)
    client.record((user_id, item) for item in [*IDS, IDS[0]])
    assert _listed(twice.items) == _listed(once.items)
    assert _listed(client.recommend(user_id, n=N).items) == _listed(once.items)


def test_the_encoder_reads_the_newest_items_of_a_long_history(
    client: Client, user_id: str, variant: Variants
) -> None:
    longest = variant("context").bundle.history_rule.max_length
    long = [f"item-{item}" for item in range(10, 10 + longest + 25)]
    client.record((user_id, item) for item in long)
    unseen = client.recommend(user_id, n=N)
    given = client.recommend(history=long, n=N)
    # The older items count as seen too; only the encoder's input is cut.
    cut = client.recommend(history=long[-longest:], n=N, exclude=long[:-longest])
    assert _listed(unseen.items) == _listed(given.items) == _listed(cut.items)


def _of_an_old_server(embedding: CachedEmbedding, stamp: bytes) -> bytes:
    """Packs format e1: magic, active neurons, ignored items, width, stamp; then the arrays."""
    z, (neurons, activations), _ = embedding.state
    parts = z.astype("<f2"), neurons.astype("<u2"), activations.astype("<f2")
    header = struct.pack("<2sHHxB8s", b"e1", len(neurons), 0, 2, stamp)
    return header + b"".join(part.tobytes() for part in parts)


def _changed(**parts: Any) -> Callable[[CachedEmbedding, bytes], bytes]:
    return lambda embedding, stamp: pack_embedding(
        embedding._replace(state=embedding.state._replace(**parts)), stamp, Precision.FLOAT16
    )


UNFIT: dict[str, Callable[[CachedEmbedding, bytes], bytes]] = {
    "of an old server": _of_an_old_server,
    "of another d": _changed(z=np.ones(31, np.float32)),
    "of another context": _changed(context=np.ones(5, np.float32)),
    "without a context": _changed(context=NO_CONTEXT),
    "of more neurons": _changed(code=SparseCode(np.array([128]), np.ones(1, np.float32))),
    "cut": lambda embedding, stamp: pack_embedding(embedding, stamp, Precision.FLOAT16)[:-3],
    "empty": lambda _embedding, _stamp: b"",
}


async def test_a_cached_state_of_another_model_is_computed_again(
    variant: Variants, start_server: StartServer, tmp_path: Path, valkey: str
) -> None:
    path, bundle, _ = variant("context")
    (state,) = bundle.encoder.encode([np.array(ITEMS)])
    with start_server(path, tmp_path, "--redis", valkey) as served, Client(served.target) as client:
        expected = client.recommend(history=IDS, n=N, steer={"Drama": 1.0})
        for user_id, blob in UNFIT.items():
            client.record((user_id, item) for item in IDS)
            async with redis.Redis.from_url(valkey) as store:
                stored = await store.get(f"tt:{{{user_id}}}:s")
                assert isinstance(stored, bytes)
                stamp = stored[8:16]
                key = f"tt:{{{user_id}}}:e:{bundle.cache_key}"
                await store.set(key, blob(CachedEmbedding(state, 0), stamp))
            reply = client.recommend(user_id, n=N, steer={"Drama": 1.0})
            assert not reply.served_by.cached, user_id
            assert _listed(reply.items) == _listed(expected.items), user_id
            _until_cached(client, user_id)
