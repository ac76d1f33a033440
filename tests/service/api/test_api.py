"""Tests the API with a real server, the generated stubs and a real Valkey."""

import itertools
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from trimtab.v1 import (
    bundle_pb2,
    bundle_pb2_grpc,
    concept_pb2,
    concept_pb2_grpc,
    policy_pb2,
    policy_pb2_grpc,
    recommendation_pb2_grpc,
)
from trimtab.v1 import recommendation_pb2 as pb
from trimtab.v1 import steering_pb2 as sp

from service.bundle.bundle import Bundle
from service.ranking.order import rank, score
from tests.support.servers import Served, StartServer

HISTORY = ("item-3", "item-17", "item-40", "item-41", "item-99")
_ids = itertools.count()


@pytest.fixture
def user_id() -> str:
    """Makes a user id that no other test uses."""
    return f"user-{next(_ids)}"


@pytest.fixture(scope="module")
def stub(served: Served) -> recommendation_pb2_grpc.RecommendationServiceStub:
    return recommendation_pb2_grpc.RecommendationServiceStub(served.channel)


@pytest.fixture(scope="module")
def concept_stub(served: Served) -> concept_pb2_grpc.ConceptServiceStub:
    return concept_pb2_grpc.ConceptServiceStub(served.channel)


def history(*item_ids: str) -> pb.History:
    return pb.History(events=[pb.Event(item_id=item_id) for item_id in item_ids])


def edit(
    target: int | str, strength: float, operation: Any = sp.OPERATION_ADD, unit: Any = 0
) -> sp.Edit:
    made = sp.Edit(operation=operation, strength=strength, unit=unit)
    if isinstance(target, int):
        made.neuron = target
    else:
        made.concept = target
    return made


def steered(*edits: sp.Edit, **fields: Any) -> sp.Steering:
    return sp.Steering(edits=edits, **fields)


def listed(items: Any) -> list[tuple[str, float]]:
    return [(item.item_id, item.score) for item in items]


def record(stub: Any, user_id: str, *item_ids: str, **fields: Any) -> pb.RecordInteractionsResponse:
    interactions = [
        pb.Interaction(user_id=user_id, event=pb.Event(item_id=item_id, **fields))
        for item_id in item_ids
    ]
    response: pb.RecordInteractionsResponse = stub.RecordInteractions(
        pb.RecordInteractionsRequest(interactions=interactions)
    )
    return response


def active_neuron(bundle: Bundle) -> int:
    """Finds a neuron that fires for HISTORY."""
    (state,) = bundle.encoder.encode([bundle.catalogue.indices_of(HISTORY)])
    return int(state.code.neurons[0])


def test_a_list_equals_the_models_own_top_items(stub: Any, bundle: Bundle) -> None:
    response = stub.Recommend(pb.RecommendRequest(history=history(*HISTORY), n=20))
    (state,) = bundle.encoder.encode([bundle.catalogue.indices_of(HISTORY)])
    unseen = np.setdiff1d(np.arange(len(bundle.catalogue)), bundle.catalogue.indices_of(HISTORY))
    expected = rank(unseen, score(bundle.items, unseen, state.z), 20)
    assert [item.item_id for item in response.items] == [
        bundle.catalogue.item_ids[i] for i in expected.items
    ]
    assert [item.rank for item in response.items] == list(range(1, 21))
    assert response.served_by.source == pb.SOURCE_PERSONAL
    assert response.served_by.bundle_id == bundle.id


@pytest.mark.parametrize(
    "edits",
    [
        (),
        (edit("Drama", 0.0),),
        (edit("Drama", 1.0, sp.OPERATION_SCALE),),
        (edit(5, 0.0, sp.OPERATION_BLEND), edit(7, 0.0)),
    ],
)
def test_edits_that_change_nothing_give_the_unsteered_list_bit_for_bit_cached_or_cold(
    stub: Any, user_id: str, edits: tuple[sp.Edit, ...]
) -> None:
    record(stub, user_id, *HISTORY)
    plain = pb.RecommendRequest(user_id=user_id, n=20)
    same = pb.RecommendRequest(user_id=user_id, n=20, steering=steered(*edits))
    cold = stub.Recommend(same)
    assert not cold.served_by.cached
    _wait_until_cached(stub, user_id)
    warm = stub.Recommend(same)
    unsteered = stub.Recommend(plain)
    assert warm.served_by.cached
    given = stub.Recommend(
        pb.RecommendRequest(history=history(*HISTORY), n=20, steering=steered(*edits))
    )
    assert (
        listed(cold.items) == listed(warm.items) == listed(unsteered.items) == listed(given.items)
    )


def _wait_until_cached(stub: Any, user_id: str) -> None:
    for _ in range(200):
        if stub.Recommend(pb.RecommendRequest(user_id=user_id, n=1)).served_by.cached:
            return
    pytest.fail("the embedding was not cached")


def test_a_cached_steered_list_equals_the_cold_one_bit_for_bit(stub: Any, user_id: str) -> None:
    record(stub, user_id, *HISTORY)
    request = pb.RecommendRequest(
        user_id=user_id, n=20, steering=steered(edit("Comedy", 1.5), edit(9, -0.5)), explain=True
    )
    cold = stub.Recommend(request)
    _wait_until_cached(stub, user_id)
    warm = stub.Recommend(request)
    assert warm.served_by.cached
    assert not cold.served_by.cached
    assert list(cold.items) == list(warm.items)


def test_with_int8_embeddings_cached_and_cold_lists_are_the_same_and_close_to_float16s(
    start_server: StartServer, bundle_dir: Path, tmp_path: Path, stub: Any
) -> None:
    flags = ("--embedding-precision", "int8", "--user-tier-mb", "0")
    request = pb.RecommendRequest(user_id="u", n=20, steering=steered(edit("Comedy", 0.5)))
    with start_server(bundle_dir, tmp_path, *flags) as served:
        small = recommendation_pb2_grpc.RecommendationServiceStub(served.channel)
        record(small, "u", *HISTORY)
        cold = small.Recommend(request)
        _wait_until_cached(small, "u")
        warm = small.Recommend(request)
    assert list(cold.items) == list(warm.items)
    given = pb.RecommendRequest(history=history(*HISTORY), n=20, steering=request.steering)
    exact = {item.item_id: item.score for item in stub.Recommend(given).items}
    shared = [item for item in warm.items if item.item_id in exact]
    assert len(shared) >= 19
    for item in shared:
        assert item.score == pytest.approx(exact[item.item_id], abs=0.02)


def test_steering_a_concept_raises_its_share(stub: Any, bundle: Bundle) -> None:
    for concept in bundle.labels.concepts:
        response = stub.Recommend(
            pb.RecommendRequest(
                history=history(*HISTORY),
                n=20,
                steering=steered(edit(concept.name, 1.0)),
                include_report=True,
            )
        )
        (share,) = response.report.concepts
        assert share.concept == concept.name
        assert share.share > share.unsteered_share or share.unsteered_share > 0.95
        assert response.report.relevance_loss >= 0.0
        assert 0.0 <= response.report.overlap <= 1.0


@pytest.mark.parametrize("mode", [sp.MODE_RESIDUAL, sp.MODE_RECONSTRUCT])
@pytest.mark.parametrize("kind", ["plain", "head"])
def test_reasons_sum_to_the_score(
    request: pytest.FixtureRequest,
    start_server: StartServer,
    tmp_path: Path,
    kind: str,
    mode: Any,
) -> None:
    directory = request.getfixturevalue("bundle_dir" if kind == "plain" else "head_bundle_dir")
    edits = (edit("Horror", 1.0), edit(3, -1.0), edit("Drama", 0.3, sp.OPERATION_BLEND))
    weighted = sp.Edit(
        weights=sp.WeightedNeurons(neurons=[sp.WeightedNeuron(neuron=8, weight=0.5)]), strength=2.0
    )
    with start_server(directory, tmp_path) as served:
        stub = recommendation_pb2_grpc.RecommendationServiceStub(served.channel)
        response = stub.Recommend(
            pb.RecommendRequest(
                history=history(*HISTORY),
                n=20,
                steering=steered(*edits, weighted, mode=mode),
                explain=True,
            )
        )
    kinds = {
        reason.kind for reason in response.items[0].reasons if reason.WhichOneof("source") == "kind"
    }
    assert pb.REASON_KIND_UNSTEERED in kinds
    assert pb.REASON_KIND_WEIGHTS in kinds
    assert (pb.REASON_KIND_INTERACTION in kinds) == (kind == "head")
    assert (pb.REASON_KIND_RECONSTRUCTION in kinds) == (mode == sp.MODE_RECONSTRUCT)
    for item in response.items:
        contributions = [reason.contribution for reason in item.reasons]
        size = sum(map(abs, contributions))
        assert sum(contributions) == pytest.approx(item.score, abs=1e-5 * size)
        assert contributions[0] == item.unsteered_score


def test_the_unsteered_list_and_ranks_are_those_of_a_request_without_steering(stub: Any) -> None:
    plain = stub.Recommend(pb.RecommendRequest(history=history(*HISTORY), n=10))
    both = stub.Recommend(
        pb.RecommendRequest(
            history=history(*HISTORY),
            n=10,
            steering=steered(edit("Action", 1.0)),
            include_unsteered=True,
        )
    )
    assert listed(both.unsteered) == listed(plain.items)
    ranks = {item.item_id: item.rank for item in plain.items}
    for item in both.items:
        expected = ranks.get(item.item_id)
        assert (item.unsteered_rank if item.HasField("unsteered_rank") else None) == expected


def test_reports_line_up_with_the_edits_and_name_those_without_effect(
    stub: Any, bundle: Bundle
) -> None:
    (state,) = bundle.encoder.encode([bundle.catalogue.indices_of(HISTORY)])
    silent = next(n for n in range(bundle.labels.n_neurons) if n not in state.code.neurons)
    active = active_neuron(bundle)
    response = stub.Recommend(
        pb.RecommendRequest(
            history=history(*HISTORY),
            n=10,
            include_report=True,
            steering=steered(
                edit(silent, 0.5, sp.OPERATION_SCALE),
                edit(active, 0.5, sp.OPERATION_SET, sp.UNIT_RAW),
                sp.Edit(neuron=active, operation=sp.OPERATION_ABLATE),
                edit(active, 2.0),
            ),
        )
    )
    first, second, third, fourth = response.report.edits
    assert first.no_effect
    assert first.target == f"#{silent}"
    assert second.level_after == pytest.approx(0.5)
    assert third.level_before == pytest.approx(0.5)
    assert third.level_after == 0.0
    assert fourth.raw_strength == pytest.approx(2.0 * float(bundle.labels.units[active]), rel=1e-5)
    assert not any(edit.no_effect for edit in (second, third, fourth))


def test_edits_that_cancel_leave_the_list_as_it_was(stub: Any) -> None:
    plain = stub.Recommend(pb.RecommendRequest(history=history(*HISTORY), n=20))
    there_and_back = stub.Recommend(
        pb.RecommendRequest(
            history=history(*HISTORY),
            n=20,
            steering=steered(edit("Drama", 2.0), edit("Drama", -2.0)),
        )
    )
    assert [item.item_id for item in plain.items] == [item.item_id for item in there_and_back.items]


def test_seen_items_never_come_back(stub: Any, user_id: str, bundle: Bundle) -> None:
    returned: set[str] = set()
    everything = len(bundle.catalogue)
    for _ in range(5):
        response = stub.Recommend(
            pb.RecommendRequest(user_id=user_id, n=15, steering=steered(edit(0, 1.0)))
        )
        page = [item.item_id for item in response.items]
        assert not returned & set(page)
        returned |= set(page)
        record(stub, user_id, *page)
    rest = stub.Recommend(pb.RecommendRequest(user_id=user_id, n=everything))
    assert len(rest.items) == everything - len(returned)
    assert not returned & {item.item_id for item in rest.items}


def test_excluded_items_are_not_returned(stub: Any) -> None:
    plain = stub.Recommend(pb.RecommendRequest(history=history(*HISTORY), n=10))
    without = [item.item_id for item in plain.items[:4]]
    response = stub.Recommend(
        pb.RecommendRequest(
            history=history(*HISTORY), n=6, exclude_item_ids=[*without, "not an item"]
        )
    )
    assert [item.item_id for item in response.items] == [item.item_id for item in plain.items[4:]]


FILTERS: list[tuple[pb.Filter, Callable[[dict[str, Any]], bool]]] = [
    (
        pb.Filter(all_of=[pb.Condition(attribute="genres", values=["Drama", "Horror"])]),
        lambda row: bool({"Drama", "Horror"} & set(row["genres"] or ())),
    ),
    (
        pb.Filter(none_of=[pb.Condition(attribute="genres", values=["Drama"])]),
        lambda row: "Drama" not in (row["genres"] or ()),
    ),
    (
        pb.Filter(all_of=[pb.Condition(attribute="year", min=1980, max=1999)]),
        lambda row: row["year"] is not None and 1980 <= row["year"] <= 1999,
    ),
    (
        pb.Filter(
            all_of=[pb.Condition(attribute="studio", values=["Harbour"])],
            none_of=[pb.Condition(attribute="year", max=1989)],
        ),
        lambda row: (
            row["studio"] == "Harbour" and not (row["year"] is not None and row["year"] <= 1989)
        ),
    ),
    (
        pb.Filter(item_ids=["item-5", "item-6", "nothing"]),
        lambda row: row["item_id"] in ("item-5", "item-6"),
    ),
]
"""Filters, and the condition that each states of an item's row."""


def test_filters_hold_for_every_returned_item(stub: Any, bundle_dir: Path) -> None:
    import pyarrow.parquet as pq

    facts = {row["item_id"]: row for row in pq.read_table(bundle_dir / "items.parquet").to_pylist()}
    for item_filter, holds in FILTERS:
        response = stub.Recommend(
            pb.RecommendRequest(
                history=history(*HISTORY), n=200, filter=item_filter, include_unsteered=True
            )
        )
        expected = {
            item_id for item_id, row in facts.items() if holds(row) and item_id not in HISTORY
        }
        assert {item.item_id for item in response.items} == expected
        assert {item.item_id for item in response.unsteered} == expected


def test_a_filter_that_nothing_meets_gives_an_empty_list(stub: Any) -> None:
    nothing = pb.Filter(all_of=[pb.Condition(attribute="genres", values=["No such genre"])])
    response = stub.Recommend(
        pb.RecommendRequest(
            history=history(*HISTORY), n=5, filter=nothing, include_report=True, explain=True
        )
    )
    assert not response.items


def test_an_unknown_user_gets_the_popular_items_and_the_mean_user_if_steered(
    stub: Any, user_id: str, bundle: Bundle
) -> None:
    popular = stub.Recommend(
        pb.RecommendRequest(user_id=user_id, n=5, explain=True, include_report=True)
    )
    assert popular.served_by.source == pb.SOURCE_POPULAR
    best = bundle.catalogue.by_popularity[:5]
    assert [item.item_id for item in popular.items] == [bundle.catalogue.item_ids[i] for i in best]
    assert popular.items[0].reasons[0].kind == pb.REASON_KIND_POPULARITY
    cold = stub.Recommend(
        pb.RecommendRequest(user_id=user_id, n=5, steering=steered(edit("Drama", 1.0)))
    )
    assert cold.served_by.source == pb.SOURCE_COLD_START
    given = stub.Recommend(pb.RecommendRequest(user_id=user_id, n=5, history=history(*HISTORY)))
    assert given.served_by.source == pb.SOURCE_PERSONAL
    empty = stub.Recommend(pb.RecommendRequest(n=5, history=pb.History()))
    assert empty.served_by.source == pb.SOURCE_POPULAR


def test_unknown_items_of_a_history_are_ignored_and_counted(stub: Any, user_id: str) -> None:
    given = stub.Recommend(
        pb.RecommendRequest(history=history(*HISTORY, "nowhere", "neither"), n=5)
    )
    assert given.served_by.ignored_item_count == 2
    known = stub.Recommend(pb.RecommendRequest(history=history(*HISTORY), n=5))
    assert listed(given.items) == listed(known.items)
    assert record(stub, user_id, *HISTORY, "nowhere").unknown_item_count == 1
    assert (
        stub.Recommend(pb.RecommendRequest(user_id=user_id, n=5)).served_by.ignored_item_count == 1
    )
    _wait_until_cached(stub, user_id)
    assert (
        stub.Recommend(pb.RecommendRequest(user_id=user_id, n=5)).served_by.ignored_item_count == 1
    )


def test_recording_is_read_at_once_and_counts_an_event_once(stub: Any, user_id: str) -> None:
    first = record(stub, user_id, *HISTORY, event_id="same")
    assert (first.accepted_count, first.duplicate_count) == (1, 4)
    again = record(stub, user_id, "item-3", event_id="same")
    assert (again.accepted_count, again.duplicate_count) == (0, 1)
    _wait_until_cached(stub, user_id)
    record(stub, user_id, "item-50")
    response = stub.Recommend(pb.RecommendRequest(user_id=user_id, n=100))
    assert not response.served_by.cached
    assert "item-50" not in [item.item_id for item in response.items]


def test_disliked_and_badly_rated_items_leave_the_history_but_stay_out_of_lists(
    stub: Any, concept_stub: Any, user_id: str
) -> None:
    record(stub, user_id, "item-3", "item-17")
    record(stub, user_id, "item-40", kind=pb.EVENT_KIND_RATING, value=2.0)
    record(stub, user_id, "item-3", kind=pb.EVENT_KIND_DISLIKE)
    seen = concept_stub.InspectUser(concept_pb2.InspectUserRequest(user_id=user_id))
    assert [item.item_id for item in seen.history] == ["item-17"]
    everything = stub.Recommend(pb.RecommendRequest(user_id=user_id, n=200))
    assert not {"item-3", "item-17", "item-40"} & {item.item_id for item in everything.items}


def test_a_forgotten_user_is_unknown_again(stub: Any, user_id: str) -> None:
    record(stub, user_id, *HISTORY)
    _wait_until_cached(stub, user_id)
    assert stub.ForgetUser(pb.ForgetUserRequest(user_id=user_id)).found
    assert not stub.ForgetUser(pb.ForgetUserRequest(user_id=user_id)).found
    response = stub.Recommend(pb.RecommendRequest(user_id=user_id, n=5))
    assert response.served_by.source == pb.SOURCE_POPULAR


def test_similar_items_are_what_a_history_of_just_that_item_gives(stub: Any) -> None:
    similar = stub.SimilarItems(pb.SimilarItemsRequest(item_id="item-17", n=10))
    given = stub.Recommend(pb.RecommendRequest(history=history("item-17"), n=10))
    assert listed(similar.items) == listed(given.items)
    with pytest.raises(grpc.RpcError) as failure:
        stub.SimilarItems(pb.SimilarItemsRequest(item_id="nothing", n=10))
    assert failure.value.code() == grpc.StatusCode.NOT_FOUND


def test_reconstruct_mode_differs_even_without_an_edit_and_residual_does_not(stub: Any) -> None:
    plain = stub.Recommend(pb.RecommendRequest(history=history(*HISTORY), n=20))
    for mode, same in ((sp.MODE_RESIDUAL, True), (sp.MODE_RECONSTRUCT, False)):
        response = stub.Recommend(
            pb.RecommendRequest(history=history(*HISTORY), n=20, steering=steered(mode=mode))
        )
        assert (listed(response.items) == listed(plain.items)) is same


def test_a_pinned_label_set_is_honoured_or_said_to_be_missing(stub: Any, bundle: Bundle) -> None:
    pinned = steered(edit("Drama", 1.0), label_set=bundle.labels.version)
    assert not stub.Recommend(
        pb.RecommendRequest(history=history(*HISTORY), n=5, steering=pinned)
    ).served_by.degradations
    other = steered(edit("Drama", 1.0), label_set="another")
    degraded = stub.Recommend(pb.RecommendRequest(history=history(*HISTORY), n=5, steering=other))
    assert list(degraded.served_by.degradations) == [pb.DEGRADATION_UNSTEERED]
    plain = stub.Recommend(pb.RecommendRequest(history=history(*HISTORY), n=5))
    assert listed(degraded.items) == listed(plain.items)
    other.required = True
    with pytest.raises(grpc.RpcError) as failure:
        stub.Recommend(pb.RecommendRequest(history=history(*HISTORY), n=5, steering=other))
    assert failure.value.code() == grpc.StatusCode.FAILED_PRECONDITION


def test_request_ids_come_back_and_are_made_where_there_is_none(stub: Any) -> None:
    given = stub.Recommend(pb.RecommendRequest(history=history(*HISTORY), n=1, request_id="mine"))
    made = stub.Recommend(pb.RecommendRequest(history=history(*HISTORY), n=1))
    assert given.request_id == "mine"
    assert len(made.request_id) >= 16
    assert made.timing.total_us >= made.timing.search_us > 0


def test_concepts_are_listed_by_page_and_found_by_text(concept_stub: Any, bundle: Bundle) -> None:
    names = []
    token = ""
    while True:
        page = concept_stub.ListConcepts(
            concept_pb2.ListConceptsRequest(page_size=4, page_token=token)
        )
        names += [concept.name for concept in page.concepts]
        if not (token := page.next_page_token):
            break
    assert names == [concept.name for concept in bundle.labels.concepts]
    found = concept_stub.SearchConcepts(concept_pb2.SearchConceptsRequest(query="documentry"))
    assert found.results[0].concept.name == "Documentary"
    exact = concept_stub.SearchConcepts(concept_pb2.SearchConceptsRequest(query="drama"))
    assert exact.results[0].concept.name == "Drama"
    assert exact.results[0].match == 1.0


def test_a_neurons_card_and_a_users_neurons_agree_with_the_bundle(
    concept_stub: Any, bundle: Bundle
) -> None:
    neuron = active_neuron(bundle)
    card = concept_stub.GetNeuron(concept_pb2.GetNeuronRequest(neuron=neuron)).card
    assert card.neuron == neuron
    assert card.unit == pytest.approx(float(bundle.labels.units[neuron]))
    assert card.top_items
    assert len(card.histogram) == 20
    seen = concept_stub.InspectUser(concept_pb2.InspectUserRequest(history=history(*HISTORY)))
    (state,) = bundle.encoder.encode([bundle.catalogue.indices_of(HISTORY)])
    assert [active.neuron for active in seen.neurons] == state.code.neurons.tolist()
    assert [item.item_id for item in seen.history] == list(reversed(HISTORY))
    strengths = [level.strength for level in seen.concepts]
    assert strengths == sorted(strengths, reverse=True)


def test_a_contrast_of_items_is_that_of_their_codes_and_unknown_ones_are_counted(
    concept_stub: Any, bundle: Bundle
) -> None:
    left = ["item-3", "item-17", "item-40"]
    right = ["item-50", "item-60"]
    sets = [concept_pb2.ContrastSet(item_ids=ids) for ids in ([*left, left[0], "nothing"], right)]
    found = concept_stub.Contrast(concept_pb2.ContrastRequest(left=sets[0], right=sets[1], n=200))
    assert (found.left_count, found.right_count, found.ignored_count) == (3, 2, 1)
    codes = np.zeros((5, bundle.labels.n_neurons), np.float32)
    for row, item_id in enumerate(left + right):
        (state,) = bundle.encoder.encode([bundle.catalogue.indices_of([item_id])])
        codes[row, state.code.neurons] = state.code.activations
    wins = (codes[:3, None] > codes[None, 3:]).mean((0, 1)) + (
        codes[:3, None] == codes[None, 3:]
    ).mean((0, 1)) / 2
    assert {one.neuron for one in found.neurons} == set(range(bundle.labels.n_neurons))
    for one in found.neurons:
        mine = codes[:, one.neuron]
        assert one.auc == pytest.approx(wins[one.neuron])
        assert one.left_mean == pytest.approx(mine[:3].mean())
        assert one.right_mean == pytest.approx(mine[3:].mean())
        assert one.strength == pytest.approx(
            (one.left_mean - one.right_mean) / bundle.labels.units[one.neuron], abs=1e-6
        )
    distances = [abs(one.auc - 0.5) for one in found.neurons]
    assert distances == sorted(distances, reverse=True)
    assert len(found.concepts) == len(bundle.labels.concepts)


def test_a_contrast_of_users_reads_their_stored_histories(
    stub: Any, concept_stub: Any, user_id: str
) -> None:
    record(stub, user_id, *HISTORY)
    record(stub, f"{user_id}-other", "item-50", "item-60")
    sets = [concept_pb2.ContrastSet(user_ids=[user]) for user in (user_id, f"{user_id}-other")]
    found = concept_stub.Contrast(concept_pb2.ContrastRequest(left=sets[0], right=sets[1], n=3))
    assert (len(found.neurons), len(found.concepts)) == (3, 3)
    levels = concept_stub.InspectUser(concept_pb2.InspectUserRequest(user_id=user_id)).concepts
    by_name = {level.concept: level.level for level in levels}
    for one in found.concepts:
        assert one.left_mean == pytest.approx(by_name[one.concept])
        assert one.auc == float(one.left_mean > one.right_mean)


def test_bundles_are_listed_with_labels_and_manifest(served: Served, bundle: Bundle) -> None:
    stub = bundle_pb2_grpc.BundleServiceStub(served.channel)
    (held,) = stub.ListBundles(bundle_pb2.ListBundlesRequest()).bundles
    assert held.bundle_id == bundle.id
    assert list(held.labels) == ["stable"]
    assert held.manifest == bundle.manifest


def test_a_bundle_is_named_by_label_id_or_prefix(stub: Any, bundle: Bundle) -> None:
    for name in ("stable", bundle.id, bundle.id[:8]):
        response = stub.Recommend(pb.RecommendRequest(history=history(*HISTORY), n=1, bundle=name))
        assert response.served_by.bundle_id == bundle.id


def test_what_is_not_built_yet_says_so(served: Served, stub: Any) -> None:
    policies = policy_pb2_grpc.PolicyServiceStub(served.channel)
    calls: list[Callable[[], object]] = [
        lambda: policies.ListPolicies(policy_pb2.ListPoliciesRequest()),
        lambda: stub.Recommend(
            pb.RecommendRequest(user_id="u", n=1, steering=sp.Steering(policy="p"))
        ),
    ]
    for call in calls:
        with pytest.raises(grpc.RpcError) as failure:
            call()
        assert failure.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert "not served yet" in (failure.value.details() or "")


def test_health_and_reflection_answer_for_every_service(served: Served) -> None:
    health = health_pb2_grpc.HealthStub(served.channel)
    names = ProtoReflectionDescriptorDatabase(served.channel).get_services()
    assert "trimtab.v1.RecommendationService" in names
    for name in ("", "trimtab.v1.RecommendationService", "trimtab.v1.ConceptService"):
        status = health.Check(health_pb2.HealthCheckRequest(service=name)).status
        assert status == health_pb2.HealthCheckResponse.SERVING


def test_metrics_count_what_was_served(served: Served, stub: Any) -> None:
    def scrape() -> dict[str, float]:
        url = f"http://127.0.0.1:{served.running.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return {
            line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
            for line in lines
            if line[0] != "#"
        }

    served_key = 'trimtab_request_seconds_count{code="OK",method="Recommend"}'
    refused_key = 'trimtab_request_seconds_count{code="INVALID_ARGUMENT",method="Recommend"}'
    stub.Recommend(pb.RecommendRequest(history=history(*HISTORY), n=1))
    with pytest.raises(grpc.RpcError):
        stub.Recommend(pb.RecommendRequest(history=history(*HISTORY), n=0))
    before = scrape()
    stub.Recommend(pb.RecommendRequest(history=history(*HISTORY), n=1))
    with pytest.raises(grpc.RpcError):
        stub.Recommend(pb.RecommendRequest(history=history(*HISTORY), n=0))
    after = scrape()
    assert after[served_key] == before[served_key] + 1
    assert after[refused_key] == before[refused_key] + 1
    assert (
        after['trimtab_stage_seconds_count{stage="search"}']
        > before['trimtab_stage_seconds_count{stage="search"}']
    )
    for _ in range(100):  # a refused call's permit comes back just after its answer
        if scrape()["trimtab_in_flight"] == 0:
            break
    else:
        pytest.fail("a permit did not come back")
    assert any(key.startswith("trimtab_bundle_info{") and 'bundle_id="' in key for key in after)
