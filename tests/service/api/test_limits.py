"""Tests large, late and damaged input: it is bounded and named, and never an internal fault."""

import asyncio
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
import redis.asyncio as redis
from trimtab import Client
from trimtab.errors import Unavailable
from trimtab.v1 import concept_pb2, concept_pb2_grpc, recommendation_pb2_grpc
from trimtab.v1 import recommendation_pb2 as pb
from trimtab.v1 import steering_pb2 as sp

from service.arrays import Bools, Floats, Ints
from service.batching.joint_calls import run_alone
from service.bundle.bundle import Bundle
from service.bundle.encoder import Activation
from service.bundle.onnx_encoder import OnnxEncoder
from service.retrieval.strategy import find_candidates
from service.settings import read_settings
from tests.support.servers import Served, StartServer

HISTORY = pb.History(events=[pb.Event(item_id=f"item-{n}") for n in (3, 17, 40)])


@pytest.fixture(scope="module")
def stub(served: Served) -> recommendation_pb2_grpc.RecommendationServiceStub:
    return recommendation_pb2_grpc.RecommendationServiceStub(served.channel)


def refused(call: Any, request: Any) -> str:
    with pytest.raises(grpc.RpcError) as failure:
        call(request)
    assert failure.value.code() == grpc.StatusCode.INVALID_ARGUMENT, failure.value
    return failure.value.details() or ""


def edited(*edits: sp.Edit) -> pb.RecommendRequest:
    return pb.RecommendRequest(history=HISTORY, n=5, steering=sp.Steering(edits=edits))


def test_strengths_beyond_any_use_are_refused_alone_and_together(stub: Any) -> None:
    assert "expected -1e+06 to 1e+06" in refused(
        stub.Recommend, edited(sp.Edit(neuron=1, strength=3e38))
    )
    weights = sp.WeightedNeurons(neurons=[sp.WeightedNeuron(neuron=1, weight=1e18)])
    assert "weights" in refused(stub.Recommend, edited(sp.Edit(weights=weights, strength=1.0)))
    grow = sp.Edit(neuron=1, strength=1e6, operation=sp.OPERATION_SCALE)
    together = edited(sp.Edit(neuron=1, strength=1.0), *[grow] * 20)
    assert "leave the range of numbers" in refused(stub.Recommend, together)


def test_times_out_of_range_are_refused(stub: Any) -> None:
    for seconds, nanos in ((10**18, 0), (2**62, 0), (0, -5)):
        event = pb.Event(item_id="item-3")
        event.time.seconds = seconds
        event.time.nanos = nanos
        request = pb.RecommendRequest(n=1, history=pb.History(events=[event]))
        assert "history.events[0].time" in refused(stub.Recommend, request)
        interactions = [pb.Interaction(user_id="u", event=event)]
        record = pb.RecordInteractionsRequest(interactions=interactions)
        assert "interactions[0].event.time" in refused(stub.RecordInteractions, record)


def test_a_refusal_that_quotes_a_long_text_still_arrives(served: Served, stub: Any) -> None:
    assert (
        len(refused(stub.Recommend, pb.RecommendRequest(user_id="u", n=1, bundle="x" * 20_000)))
        < 600
    )
    long = pb.Filter(all_of=[pb.Condition(attribute="é" * 1_500, values=["x"])])
    assert "attribute" in refused(
        stub.Recommend, pb.RecommendRequest(user_id="u", n=1, filter=long)
    )
    concepts = concept_pb2_grpc.ConceptServiceStub(served.channel)
    version = concepts.ListConcepts(concept_pb2.ListConceptsRequest()).label_set
    token = concept_pb2.ListConceptsRequest(page_token=f"{version}:{'9' * 5_000}")
    assert "page_token" in refused(concepts.ListConcepts, token)


def test_lists_in_requests_are_bounded(stub: Any) -> None:
    events = [pb.Event(item_id="a")] * 100_001
    assert "events, found 100001" in refused(
        stub.Recommend, pb.RecommendRequest(n=1, history=pb.History(events=events))
    )
    values = pb.Condition(attribute="genres", values=["x"] * 1_001)
    many = pb.RecommendRequest(user_id="u", n=1, filter=pb.Filter(none_of=[values]))
    assert "filter.none_of[0].values: expected at most 1000 values, found 1001" in refused(
        stub.Recommend, many
    )
    neurons = [sp.WeightedNeuron(neuron=1, weight=1.0)] * 129
    weighted = sp.Edit(weights=sp.WeightedNeurons(neurons=neurons), strength=1.0)
    assert "found 129 neurons" in refused(stub.Recommend, edited(weighted))


def test_an_unknown_user_with_steering_of_no_effect_gets_the_popular_list(
    stub: Any, bundle: Bundle
) -> None:
    silent = next(
        n for n in range(bundle.labels.n_neurons) if n not in bundle.mean_user.code.neurons
    )
    scale = sp.Edit(neuron=silent, strength=2.0, operation=sp.OPERATION_SCALE)
    steering = sp.Steering(edits=[scale])
    plain = stub.Recommend(pb.RecommendRequest(user_id="nobody", n=5))
    same = stub.Recommend(
        pb.RecommendRequest(user_id="nobody", n=5, steering=steering, include_report=True)
    )
    assert same.served_by.source == pb.SOURCE_POPULAR
    assert [item.item_id for item in same.items] == [item.item_id for item in plain.items]
    assert [edit.no_effect for edit in same.report.edits] == [True]


def test_unsteered_ranks_are_true_on_every_page(stub: Any) -> None:
    steering = sp.Steering(edits=[sp.Edit(concept="Drama", strength=1.0)])
    whole = stub.Recommend(pb.RecommendRequest(history=HISTORY, n=200))
    true_rank = {item.item_id: item.rank for item in whole.items}
    request = pb.RecommendRequest(history=HISTORY, n=5, steering=steering, include_unsteered=True)
    for page in range(3):
        response = stub.Recommend(request)
        listed = [item.item_id for item in response.unsteered]
        assert listed == [item.item_id for item in whole.items[5 * page : 5 * page + 5]]
        for item in response.items:
            if item.HasField("unsteered_rank"):
                assert item.unsteered_rank == true_rank[item.item_id]
        request.page_token = response.next_page_token
    request.include_report = True
    assert "include_report" in refused(stub.Recommend, request)


def test_an_index_that_finds_too_few_is_replaced_by_an_exact_pass() -> None:
    class Short:
        n_items = 2_000
        over_fetch = 1.0
        can_select = False

        def search(self, queries: Floats, n: int) -> Ints:
            found = np.full((len(queries), n), -1)
            found[:, :30] = np.arange(30)
            return found

        def search_among(self, queries: Floats, n: int, allowed: Bools) -> Ints:
            raise NotImplementedError

        def over_fetch_pays(self, allowed: Bools, n: int) -> bool:
            raise NotImplementedError

    matrix = np.random.default_rng(0).normal(size=(2_000, 9)).astype(np.float32)
    query = np.ones((1, 8), np.float32)
    enough = run_alone(find_candidates(Short(), matrix, query, 25, None, np.empty(0, np.int64)))
    assert enough.items.tolist() == list(range(30))
    short = run_alone(find_candidates(Short(), matrix, query, 25, None, np.arange(10)))
    assert len(short.items) >= 25
    assert not np.isin(short.items, np.arange(10)).any()


def test_an_embedding_beyond_float16_is_bounded(
    bundle_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = OnnxEncoder(bundle_dir, has_head=False)
    huge = Activation(np.full((1, 32), 1e6, np.float32), np.full((1, 2), -np.inf, np.float32))
    monkeypatch.setattr(encoder, "embed", lambda *_: huge)  # no bundle of ours goes so far
    (state,) = encoder.encode([np.array([1])])
    assert np.isfinite(state.z).all()
    assert np.isfinite(state.context).all()


async def test_a_user_is_forgotten_whole_though_the_store_was_gone_at_the_start(
    start_server: StartServer, bundle_dir: Path, tmp_path: Path, valkey: str
) -> None:
    link = tmp_path / "late.sock"
    with (
        start_server(bundle_dir, tmp_path, "--redis", f"unix://{link}") as served,
        Client(served.target) as client,
    ):
        link.symlink_to(valkey.removeprefix("unix://"))
        for _ in range(100):
            try:
                client.record([("bob", "item-3")])
                break
            except Unavailable:
                await asyncio.sleep(0.1)
        for _ in range(100):
            if client.recommend("bob", n=1).served_by.cached:
                break
        async with redis.Redis.from_url(valkey) as store:
            assert [key async for key in store.scan_iter("tt:{bob}:e:*")]
            assert client.forget_user("bob").found
            assert not [key async for key in store.scan_iter("tt:{bob}:*")]


def test_an_embedded_store_that_ends_is_started_again_with_its_histories(
    start_server: StartServer, bundle_dir: Path, tmp_path: Path
) -> None:
    with start_server(bundle_dir, tmp_path) as served, Client(served.target) as client:
        client.record([("u", "item-3")])
        (valkey,) = [
            child
            for child in psutil.Process().children()
            if child.name() == "valkey-server" and child.cwd().startswith(str(tmp_path))
        ]
        valkey.kill()
        for _ in range(100):
            reply = client.recommend("u", n=1)
            if reply.served_by.source == pb.SOURCE_PERSONAL:
                break
            time.sleep(0.1)
        assert reply.served_by.source == pb.SOURCE_PERSONAL


def test_a_batch_larger_than_a_message_is_sent_in_parts(served: Served) -> None:
    history = [f"item-{n % 150:04d}-{'x' * 40}" for n in range(2_000)] + ["item-3"]
    requests = [
        pb.RecommendRequest(n=1, history=pb.History(events=[pb.Event(item_id=i) for i in history]))
    ]
    with Client(served.target) as client:
        results = client.batch_recommend(requests * 60).results
    assert len(results) == 60
    assert all(result.response.items for result in results)


def test_a_settings_file_that_is_absent_or_malformed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "settings.toml"
    monkeypatch.setenv("TRIMTAB_SETTINGS_FILE", str(path))
    with pytest.raises(SystemExit, match=r"settings\.toml"):
        read_settings([])
    path.write_text("bundle = [")
    with pytest.raises(SystemExit, match=r"settings\.toml"):
        read_settings([])
    path.write_text('bundle = "somewhere"\nmax_n = 7\n')
    assert read_settings([]).max_n == 7
