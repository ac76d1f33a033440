"""Tests budgets and target shares: the promises of a reply hold for its items."""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from trimtab import Client, parse_share, recommend_request, steering
from trimtab.v1 import recommendation_pb2 as pb
from trimtab.v1 import steering_pb2 as sp

from tests.support.servers import Served, StartServer

HISTORIES = [[f"item-{(7 * user + 31 * place) % 199}" for place in range(6)] for user in range(8)]
GENRES = ("Action", "Comedy", "Documentary", "Drama", "Horror", "Romance")
N = 20


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[Client]:
    with Client(served.target) as client:
        yield client


@pytest.fixture(scope="module")
def head_client(
    start_server: StartServer,
    head_bundle_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Client]:
    """Makes a client of a server whose model has a nonlinear head."""
    with (
        start_server(head_bundle_dir, tmp_path_factory.mktemp("head")) as served,
        Client(served.target) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def share_of(bundle_dir: Path) -> Callable[[str, Any], float]:
    """Computes a genre's share of items by the bundle's table; both have the same items."""
    rows = pq.read_table(bundle_dir / "items.parquet").to_pylist()
    genres = {row["item_id"]: row["genres"] or [] for row in rows}

    def share(genre: str, items: Any) -> float:
        return float(np.mean([genre in genres[item.item_id] for item in items]))

    return share


def ids(items: Any) -> list[str]:
    return [item.item_id for item in items]


@pytest.mark.parametrize("kind", ["client", "head_client"])
@pytest.mark.parametrize("least", [0.3, 0.7])
def test_the_share_that_was_asked_for_is_in_the_list(
    request: pytest.FixtureRequest, kind: str, least: float, share_of: Callable[[str, Any], float]
) -> None:
    client: Client = request.getfixturevalue(kind)
    for history in HISTORIES:
        for genre in GENRES:
            reply = client.recommend(
                history=history, n=N, shares={genre: (least, None)}, include_report=True
            )
            found = share_of(genre, reply.items)
            assert found >= least - 1e-6
            (share,), (target,) = reply.report.concepts, reply.report.targets
            assert share.item_share == pytest.approx(found)
            assert target.met
            moved = share.unsteered_item_share < least - 1e-6
            assert reply.report.bound == (sp.BOUND_TARGET if moved else sp.BOUND_NONE)


def test_bounds_below_what_the_list_holds_lower_the_share(
    client: Client, share_of: Callable[[str, Any], float]
) -> None:
    for history in HISTORIES:
        for genre in GENRES:
            reply = client.recommend(
                history=history, n=N, shares={genre: (0.1, 0.15)}, include_report=True
            )
            assert 0.1 - 1e-6 <= share_of(genre, reply.items) <= 0.15 + 1e-6
            assert reply.report.targets[0].met


@pytest.mark.parametrize("kind", ["client", "head_client"])
def test_a_multiple_of_the_unsteered_share_is_in_the_list_and_the_report_counts_items(
    request: pytest.FixtureRequest, kind: str, share_of: Callable[[str, Any], float]
) -> None:
    client: Client = request.getfixturevalue(kind)
    for history in HISTORIES[:4]:
        plain = client.recommend(history=history, n=N).items
        for genre in GENRES:
            before = round(N * share_of(genre, plain))
            more = min(math.ceil(1.5 * before), N)
            for shares, asked in (
                ({genre: (None, "0.5x")}, (0, before // 2)),
                ([f"{genre}>=2x"], (min(2 * before, N), N)),
                ({genre: ("1.5x", 0.5)}, (more, max(more, N // 2))),
            ):
                reply = client.recommend(history=history, n=N, shares=shares, include_report=True)
                (target,) = reply.report.targets
                assert (target.min_items, target.max_items) == asked
                assert target.items == round(N * share_of(genre, reply.items))
                assert target.met == (asked[0] <= target.items <= asked[1])
                assert target.met or target.items < asked[0]  # the catalogue has no more of it


def test_an_edit_is_strengthened_just_as_far_as_its_target_needs(client: Client) -> None:
    asked: dict[str, Any] = {"steer": {"Horror": 3}, "n": N, "include_report": True}
    for history in HISTORIES:
        whole = client.recommend(history=history, **asked).report.concepts[0]
        wanted = (whole.unsteered_item_share + whole.item_share) / 2
        # Where the list changes, rounding decides: look a little further on, away from there.
        for shares, inward in (
            ({"Horror": (wanted, None)}, 1e-5),
            ({"Horror": (None, wanted)}, -1e-5),
        ):
            report = client.recommend(history=history, shares=shares, **asked).report
            fraction = report.edits[0].applied_fraction
            assert 0 < fraction < 1
            assert report.applied_fraction == fraction
            alone = client.recommend(
                history=history, n=N, steer={"Horror": 3 * fraction + inward}, include_report=True
            )
            assert alone.report.concepts[0].item_share == report.concepts[0].item_share
            assert report.bound == sp.BOUND_TARGET


def test_several_targets_make_a_mix(client: Client, share_of: Callable[[str, Any], float]) -> None:
    mix = {"Horror": (0.3, None), "Documentary": (0.25, 0.4), "Drama": (None, 0.1)}
    for history in HISTORIES:
        reply = client.recommend(history=history, n=N, shares=mix, include_report=True)
        assert all(target.met for target in reply.report.targets)
        for genre, (least, most) in mix.items():
            found = share_of(genre, reply.items)
            assert found >= (least or 0) - 1e-6
            assert found <= (most or 1) + 1e-6


@pytest.mark.parametrize("kind", ["client", "head_client"])
def test_a_budget_is_kept_and_used_up(request: pytest.FixtureRequest, kind: str) -> None:
    client: Client = request.getfixturevalue(kind)
    fractions = []
    for history in HISTORIES:
        steer = {"Documentary": 2, "Action": -1}
        report = client.recommend(
            history=history, n=N, steer=steer, max_relevance_loss=0.05, include_report=True
        ).report
        assert report.relevance_loss <= 0.05
        fractions.append(t := report.applied_fraction)
        if t == 1.0:
            assert report.bound == sp.BOUND_NONE
            continue
        assert report.bound == sp.BOUND_BUDGET
        assert all(edit.applied_fraction == t for edit in report.edits)
        more = {concept: strength * (t + 0.01) for concept, strength in steer.items()}
        # Not at once more, as the list changes in jumps; but never less.
        beyond = client.recommend(history=history, n=N, steer=more, include_report=True).report
        assert beyond.relevance_loss >= report.relevance_loss - 1e-6
    assert min(fractions) < 1


def test_a_list_within_a_budget_is_that_of_the_strength_it_reports(client: Client) -> None:
    for history in HISTORIES:
        whole = client.recommend(history=history, n=N, steer="Drama=+2", include_report=True).report
        budget = whole.relevance_loss / 2
        reply = client.recommend(
            history=history, n=N, steer="Drama=+2", max_relevance_loss=budget, include_report=True
        )
        t = reply.report.applied_fraction
        assert 0 < t < 1
        just_below = client.recommend(history=history, n=N, steer={"Drama": 2 * t * (1 - 1e-5)})
        assert set(ids(just_below.items)) == set(ids(reply.items))


def test_the_budget_goes_before_a_target_and_the_report_says_so(client: Client) -> None:
    reply = client.recommend(
        history=HISTORIES[0],
        n=N,
        shares={"Documentary": (0.9, None)},
        max_relevance_loss=0.02,
        include_report=True,
    )
    report = reply.report
    assert report.bound == sp.BOUND_BUDGET
    assert not report.targets[0].met
    assert report.relevance_loss <= 0.02
    assert report.concepts[0].item_share >= report.concepts[0].unsteered_item_share


def test_no_steering_spends_nothing_and_a_wide_budget_changes_nothing(client: Client) -> None:
    plain = client.recommend(history=HISTORIES[1], n=N)
    nothing = client.recommend(
        history=HISTORIES[1], n=N, max_relevance_loss=0.0, include_report=True
    )
    assert [(i.item_id, i.score) for i in nothing.items] == [
        (i.item_id, i.score) for i in plain.items
    ]
    assert (nothing.report.bound, nothing.report.applied_fraction) == (sp.BOUND_NONE, 1.0)
    none_left = client.recommend(
        history=HISTORIES[1], n=N, steer="Drama=+2", max_relevance_loss=0.0
    )
    assert ids(none_left.items) == ids(plain.items)
    steered = client.recommend(history=HISTORIES[1], n=N, steer="Drama=+2")
    free = client.recommend(history=HISTORIES[1], n=N, steer="Drama=+2", max_relevance_loss=1.0)
    assert ids(free.items) == ids(steered.items)


def test_a_target_that_the_filter_rules_out_is_met_as_far_as_can_be(client: Client) -> None:
    reply = client.recommend(
        history=HISTORIES[2],
        n=N,
        shares="Horror>=0.5",
        filter_out={"genres": "Horror"},
        include_report=True,
    )
    assert len(reply.items) == N
    assert not reply.report.targets[0].met
    assert reply.report.concepts[0].item_share == 0.0
    (edit,) = reply.report.edits
    assert edit.raw_strength == 0.0  # nothing that would do no good
    nothing = client.recommend(
        history=HISTORIES[2],
        n=N,
        shares="Horror>=0.5",
        filter={"genres": ["None"]},
        include_report=True,
    )
    assert not nothing.items
    assert not nothing.report.targets[0].met
    two = client.recommend(
        history=HISTORIES[2],
        n=N,
        shares="Horror>=0.5",
        filter={"genres": ["Horror"]},
        include_report=True,
    )
    assert two.report.targets[0].met
    assert two.report.concepts[0].item_share == 1.0


def test_reasons_sum_to_the_score_where_a_target_lifts(client: Client) -> None:
    lifted = 0
    for history in HISTORIES:
        reply = client.recommend(
            history=history, n=N, shares="Documentary>=1", explain=True, include_report=True
        )
        lift = reply.report.targets[0].lift
        lifted += lift > 0
        for item in reply.items:
            parts = [reason.contribution for reason in item.reasons]
            assert sum(parts) == pytest.approx(item.score, abs=1e-5 * sum(map(abs, parts)))
            kinds = {
                reason.kind: reason.contribution
                for reason in item.reasons
                if reason.WhichOneof("source") == "kind"
            }
            assert kinds.get(pb.REASON_KIND_TARGET, 0.0) == pytest.approx(lift)
    assert lifted


def pages(client: Client, request: pb.RecommendRequest) -> list[pb.RecommendResponse]:
    found = []
    for _ in range(50):
        (result,) = client.batch_recommend([request]).results
        found.append(result.response)
        if not found[-1].next_page_token:
            break
        request.page_token = found[-1].next_page_token
    return found


@pytest.mark.parametrize("kind", ["client", "head_client"])
def test_pages_go_on_with_what_the_first_one_solved(
    request: pytest.FixtureRequest, kind: str
) -> None:
    client: Client = request.getfixturevalue(kind)
    asked = steering({"Drama": 2, "Comedy": -1}, max_relevance_loss=0.03)
    found = pages(client, recommend_request(history=HISTORIES[3], n=30, steer=asked))
    first = client.recommend(history=HISTORIES[3], n=30, steer=asked, include_report=True)
    t = first.report.applied_fraction
    assert 0 < t < 1
    whole = client.recommend(history=HISTORIES[3], n=200, steer={"Drama": 2 * t, "Comedy": -t})
    together = [item for page in found for item in page.items]
    assert ids(found[0].items) == ids(first.items)
    assert len(set(ids(together))) == len(together) == len(whole.items)
    assert [item.rank for item in together] == list(range(1, len(together) + 1))
    scores = [item.score for item in together]
    assert scores == pytest.approx([item.score for item in whole.items], rel=1e-4, abs=1e-5)


def test_pages_of_a_lifted_list_repeat_nothing_and_go_down(client: Client) -> None:
    request = recommend_request(
        history=HISTORIES[4], n=16, shares=["Documentary>=0.9", "Drama<=0.05"]
    )
    found = pages(client, request)
    together = [item for page in found for item in page.items]
    everything = client.recommend(history=HISTORIES[4], n=200).items
    assert sorted(ids(together)) == sorted(ids(everything))
    scores = [item.score for item in together]
    assert all(a >= b - 1e-5 for a, b in pairwise(scores))


def test_a_batch_gives_what_single_calls_give(client: Client) -> None:
    requests = [
        recommend_request(history=history, n=N, shares="Horror>=0.4", max_relevance_loss=0.1)
        for history in HISTORIES
    ]
    results = client.batch_recommend(requests).results
    for request, result in zip(requests, results, strict=True):
        alone = client.recommend(
            history=request.history, n=N, steer=request.steering, shares=(), bundle=request.bundle
        )
        assert list(result.response.items) == list(alone.items)


def test_an_unknown_user_gets_the_share_from_the_mean_user(
    client: Client, share_of: Callable[[str, Any], float]
) -> None:
    for genre in GENRES:
        reply = client.recommend("nobody", n=N, shares=[parse_share(f"{genre}>=0.4")])
        assert reply.served_by.source == pb.SOURCE_COLD_START
        assert share_of(genre, reply.items) >= 0.4 - 1e-6


def test_similar_items_can_be_a_mix_and_solving_has_its_time(
    client: Client, served: Served
) -> None:
    mix = steering(shares="Horror>=0.5")
    assert client.similar_items("item-17", n=N, steer=mix).items
    reply = client.recommend(history=HISTORIES[5], n=N, shares="Horror>=0.5")
    assert reply.timing.solve_us > 0
    assert not client.recommend(history=HISTORIES[5], n=N, steer="Horror=+1").timing.solve_us
    stages = served.running.metrics.stage_seconds
    solved = {
        sample.labels["stage"]: sample.value
        for metric in stages.collect()
        for sample in metric.samples
        if sample.name.endswith("_count")
    }
    assert solved["solve"] >= 2
