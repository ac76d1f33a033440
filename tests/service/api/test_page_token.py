"""Tests pages and batches: no item is repeated or left out, and ranks continue."""

from collections.abc import Iterable
from typing import Any

import grpc
import pytest
from trimtab.v1 import recommendation_pb2 as pb
from trimtab.v1 import recommendation_pb2_grpc
from trimtab.v1 import steering_pb2 as sp

from tests.support.servers import Served

HISTORY = pb.History(events=[pb.Event(item_id=f"item-{n}") for n in (3, 17, 40)])
STEERING = sp.Steering(edits=[sp.Edit(concept="Drama", strength=1.0)])


@pytest.fixture(scope="module")
def stub(served: Served) -> recommendation_pb2_grpc.RecommendationServiceStub:
    return recommendation_pb2_grpc.RecommendationServiceStub(served.channel)


def pages(stub: Any, request: pb.RecommendRequest, most: int = 100) -> list[pb.RecommendResponse]:
    found: list[pb.RecommendResponse] = []
    while len(found) < most:
        found.append(stub.Recommend(request))
        if not found[-1].next_page_token:
            return found
        request.page_token = found[-1].next_page_token
    return found


def facts(listed: Iterable[pb.Recommendation]) -> list[tuple[str, float, int]]:
    return [(item.item_id, item.score, item.rank) for item in listed]


@pytest.mark.parametrize("steering", [None, STEERING])
def test_pages_together_are_the_one_long_list(stub: Any, steering: sp.Steering | None) -> None:
    whole = stub.Recommend(pb.RecommendRequest(history=HISTORY, n=200, steering=steering))
    found = pages(stub, pb.RecommendRequest(history=HISTORY, n=30, steering=steering))
    items = [item for page in found for item in page.items]
    assert facts(items) == facts(whole.items)
    assert len(found) == 7
    assert not whole.next_page_token


def test_a_history_that_grows_between_pages_repeats_nothing(stub: Any) -> None:
    user_id = "reads-and-pages"
    seen: list[str] = []
    request = pb.RecommendRequest(user_id=user_id, n=10, steering=STEERING)
    for _ in range(4):
        page = stub.Recommend(request)
        seen += [item.item_id for item in page.items]
        request.page_token = page.next_page_token
        stub.RecordInteractions(
            pb.RecordInteractionsRequest(
                interactions=[pb.Interaction(user_id=user_id, event=pb.Event(item_id=seen[-1]))]
            )
        )
    assert len(seen) == len(set(seen)) == 40


def test_the_popular_list_pages_too(stub: Any) -> None:
    whole = stub.Recommend(pb.RecommendRequest(user_id="nobody", n=200))
    found = pages(stub, pb.RecommendRequest(user_id="nobody", n=64))
    assert [i.item_id for page in found for i in page.items] == [i.item_id for i in whole.items]


@pytest.mark.parametrize("token", ["x", "AAAA", "!!!!", "é", "A" * 100, "=" * 8])
def test_a_text_that_is_not_a_token_is_refused(stub: Any, token: str) -> None:
    with pytest.raises(grpc.RpcError) as failure:
        stub.Recommend(pb.RecommendRequest(history=HISTORY, n=5, page_token=token))
    assert failure.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "page_token" in (failure.value.details() or "")


def test_a_token_of_another_request_is_refused(stub: Any) -> None:
    token = stub.Recommend(pb.RecommendRequest(user_id="a", n=5)).next_page_token
    others = [
        pb.RecommendRequest(user_id="b", n=5),
        pb.RecommendRequest(user_id="a", n=5, steering=STEERING),
        pb.RecommendRequest(user_id="a", n=5, filter=pb.Filter(item_ids=["item-3"])),
    ]
    for other in others:
        other.page_token = token
        with pytest.raises(grpc.RpcError) as failure:
            stub.Recommend(other)
        assert "the token of another request" in (failure.value.details() or "")
    assert stub.Recommend(pb.RecommendRequest(user_id="a", n=9, page_token=token)).items


def test_a_batch_has_a_status_for_each_element_in_their_order(stub: Any) -> None:
    requests = [
        pb.RecommendRequest(history=HISTORY, n=5, request_id="good"),
        pb.RecommendRequest(history=HISTORY, n=0),
        pb.RecommendRequest(
            history=HISTORY,
            n=5,
            steering=sp.Steering(edits=[sp.Edit(concept="Dramma", strength=1.0)]),
        ),
        pb.RecommendRequest(user_id="u", n=5, steering=sp.Steering(policy="later")),
    ] + [pb.RecommendRequest(history=HISTORY, n=7)] * 252
    results = stub.BatchRecommend(pb.BatchRecommendRequest(requests=requests)).results
    assert len(results) == 256
    single = stub.Recommend(requests[0])
    assert list(results[0].response.items) == list(single.items)
    assert results[0].response.request_id == "good"
    assert (results[1].error.code, results[1].error.field) == (3, "n")
    assert results[2].error.field == "steering.edits[0].concept"
    assert "nearest: Drama" in results[2].error.message
    assert results[3].error.code == grpc.StatusCode.UNIMPLEMENTED.value[0]
    assert all(len(result.response.items) == 7 for result in results[4:])


def test_a_batch_of_257_is_refused_and_an_empty_one_is_empty(stub: Any) -> None:
    with pytest.raises(grpc.RpcError) as failure:
        stub.BatchRecommend(pb.BatchRecommendRequest(requests=[pb.RecommendRequest()] * 257))
    assert failure.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "expected at most 256 requests, found 257" in (failure.value.details() or "")
    assert not stub.BatchRecommend(pb.BatchRecommendRequest()).results
