"""Tests BOOST against brute force over whole catalogues, and how replies describe it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trimtab import Client, parse_edit
from trimtab.v1 import recommendation_pb2 as pb

from exporters.contents import Gains
from exporters.publish import write_bundle
from service.arrays import Floats
from service.batching.joint_calls import run_alone
from service.bundle.bundle import Bundle
from service.bundle.history import Event, EventKind
from service.bundle.open import open_bundle
from service.engine.audience import audience
from service.engine.compute import answer
from service.engine.query import Query
from service.engine.reply import Reply
from service.ranking.order import score
from service.retrieval.filter import Condition, Filter
from service.steering.boost import LEVELS, PLACES, Boost, Places, added, better_off
from service.steering.edits import Operation, RawEdit
from service.steering.plan import Plan
from service.telemetry.timings import Timings
from service.users.state import UNKNOWN_USER
from tests.support.bundle_factory import make_contents
from tests.support.servers import Served
from training.studies.frontier.relevance import places as offline_places

GENRES = ("Action", "Comedy", "Drama", "Horror")
HISTORIES = [[f"item-{(7 * user + 31 * place) % 199}" for place in range(6)] for user in range(8)]
random_scores = st.lists(st.integers(-40, 40), min_size=1, max_size=400)


@given(random_scores)
def test_a_place_is_worth_its_exposure_and_worths_rise_with_scores(drawn: list[int]) -> None:
    scores = np.array(drawn, np.float32) / np.float32(8)
    places = Places(scores)
    best = np.sort(scores)[::-1]
    for rank in range(1, min(len(best), PLACES) + 1):
        if rank == 1 or best[rank - 1] < best[rank - 2]:  # equal scores are worth the better place
            assert places.worths(best[rank - 1 : rank])[0] == pytest.approx(1 / np.log2(1 + rank))
    grid = np.linspace(-8.0, 8.0, 999)
    worths = places.worths(grid)
    assert (np.diff(worths) > 0).all()
    np.testing.assert_allclose(places.scores(worths), grid, atol=1e-9)


@given(random_scores)
def test_the_service_and_the_evaluation_compute_the_same_worths(drawn: list[int]) -> None:
    scores = np.array(drawn, np.float32) / np.float32(8)
    np.testing.assert_allclose(
        Places(scores).worths(scores), offline_places(scores[None])[0], rtol=1e-6, atol=1e-6
    )


def test_boosting_no_items_adds_nothing() -> None:
    nothing = np.empty(0, np.float32)
    (part,) = added(Places(nothing), nothing, [Boost(0, "Drama", 1.0, np.empty(0, bool))])
    assert part.shape == (0,)


@pytest.fixture(scope="module")
def gained(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Makes a bundle of 3,000 items with gains: about 0.8 for the genre's items, else 0.2."""
    contents = make_contents(n_items=3000)
    genres = contents.catalogue.items["genres"].to_list()
    rng = np.random.default_rng(5)
    has = np.array(
        [[concept.value in (own or ()) for own in genres] for concept in contents.concepts]
    )
    values = np.where(has, rng.beta(8, 2, has.shape), rng.beta(2, 8, has.shape)).astype(np.float32)
    out = tmp_path_factory.mktemp("gains") / "bundle"
    write_bundle(replace(contents, gains=Gains("ridge", values)), out)
    return open_bundle(out)


def edit_of(bundle: Bundle, genre: str, operation: Operation, strength: float) -> RawEdit:
    concept = bundle.labels.concept(genre)
    assert concept is not None
    return RawEdit(concept.target, operation, strength)


def ask(bundle: Bundle, history: list[str], plan: Plan, **fields: Any) -> Reply:
    events = tuple(Event(item_id, EventKind.LIKE) for item_id in history)
    query = Query(bundle, fields.pop("n", 20), history=events, plan=plan, **fields)
    return run_alone(answer(query, UNKNOWN_USER, Timings()))


def worths(
    bundle: Bundle, reply: Reply, boosts: list[tuple[str, float]], moved: Floats | None = None
) -> Any:
    """Computes each item's worth by the definition, with boosts: [n_items], -inf if not allowed."""
    query = reply.query
    who = run_alone(audience(query, UNKNOWN_USER))
    head = bundle.encoder.head if bundle.encoder.has_head else lambda z, _: z
    rows = np.arange(len(bundle.items))
    z = who.state.z
    plain, steered = (
        score(bundle.items, rows, head(v[None], who.state.context)[0])
        for v in (z, z if moved is None else moved)
    )
    allowed_mask = np.ones(len(rows), bool)
    allowed_mask[who.seen] = False
    if (allowed := bundle.catalogue.allowed(query.item_filter)) is not None:
        allowed_mask &= allowed
    worth = Places(plain[allowed_mask]).worths(steered)
    for genre, amount in boosts:
        concept = bundle.labels.concept(genre)
        assert concept is not None
        worth = worth + amount * bundle.gain(concept).astype(np.float64)
    return np.where(allowed_mask, worth, -np.inf)


@pytest.mark.parametrize("kind", ["bundle", "head_bundle"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_lists_equal_brute_force_over_the_whole_catalogue(
    request: pytest.FixtureRequest, kind: str, data: st.DataObject
) -> None:
    bundle: Bundle = request.getfixturevalue(kind)
    history = data.draw(st.sampled_from(HISTORIES))
    genre = data.draw(st.sampled_from(GENRES))
    amount = data.draw(st.floats(-1.5, 1.5))
    item_filter = data.draw(
        st.sampled_from([Filter(), Filter(all_of=(Condition("year", minimum=1995.0),))])
    )
    plan = Plan((edit_of(bundle, genre, Operation.BOOST, amount),))
    reply = ask(
        bundle, history, plan, item_filter=item_filter, n=data.draw(st.sampled_from([1, 20, 60]))
    )
    worth = worths(bundle, reply, [(genre, amount)])
    # Worths are compared, not items: a score cannot tell apart items of nearly equal worth.
    best = np.sort(worth)[::-1][: len(reply.ranking.items)]
    np.testing.assert_allclose(worth[reply.ranking.items], best, rtol=1e-5, atol=1e-6)
    assert len(set(reply.ranking.items.tolist())) == len(best)
    assert (np.diff(reply.ranking.scores) <= 0).all()


@pytest.mark.parametrize("largest", [1.0, 0.1])
@pytest.mark.parametrize("amount", [-0.6, -0.2, 0.05, 0.2, 0.6, 1.5, 5.0])
def test_items_are_moved_by_the_gains_of_the_bundle(
    gained: Bundle, amount: float, largest: float
) -> None:
    """Checks that only the product of gain and strength matters, however small the gains are."""
    rows = {
        key: (largest * row.astype(np.float32)).astype(np.float16)
        for key, row in gained.gains.items()
    }
    bundle = replace(gained, gains=rows)
    strength = amount / largest
    for history in HISTORIES:
        reply = ask(bundle, history, Plan((edit_of(bundle, "Comedy", Operation.BOOST, strength),)))
        worth = worths(bundle, reply, [("Comedy", strength)])
        best = np.sort(worth)[::-1][:20]
        # Candidates are the best items above several levels of the gain, so the list is close to
        # the best one but need not be it.
        assert (best - worth[reply.ranking.items]).max() < 0.02 * max(1.0, abs(amount))
        assert len(np.intersect1d(reply.ranking.items, np.argsort(-worth)[:20])) >= 18


@pytest.mark.parametrize("second", [-0.5, 0.05, 0.3, 0.6])
@pytest.mark.parametrize("first", [-1.0, -0.2, 0.01, 0.1, 0.3, 0.6, 1.0])
def test_lists_equal_brute_force_over_a_large_catalogue(
    gained: Bundle, first: float, second: float
) -> None:
    """Boosts by tags; the best items can carry both concepts, and a report changes nothing."""
    by_tags = replace(gained, gains={})
    pairs = [("Action", "Drama"), ("Drama", "Comedy"), ("Horror", "Action"), ("Drama", "Drama")]
    for history in HISTORIES[:4]:
        for names in pairs:
            boosts = list(zip(names, (first, second), strict=True))
            plan = Plan(
                tuple(edit_of(by_tags, name, Operation.BOOST, amount) for name, amount in boosts)
            )
            reply = ask(by_tags, history, plan)
            worth = worths(by_tags, reply, boosts)
            np.testing.assert_allclose(
                worth[reply.ranking.items], np.sort(worth)[::-1][:20], atol=1e-6
            )
            again = ask(by_tags, history, plan, include_report=True)
            assert again.ranking.items.tolist() == reply.ranking.items.tolist()


def test_lists_within_a_budget_equal_brute_force_over_the_whole_catalogue(gained: Bundle) -> None:
    by_tags = replace(gained, gains={})
    for history in HISTORIES[:4]:
        for names in (("Action", "Drama"), ("Horror", "Comedy")):
            edits = tuple(edit_of(by_tags, name, Operation.BOOST, 0.6) for name in names)
            reply = ask(by_tags, history, Plan(edits, max_relevance_loss=0.3), include_report=True)
            assert reply.report is not None
            assert reply.report.relevance_loss <= 0.3
            worth = worths(by_tags, reply, [(name, 0.6 * reply.applied.fraction) for name in names])
            np.testing.assert_allclose(
                worth[reply.ranking.items], np.sort(worth)[::-1][:20], atol=1e-6
            )


def test_items_of_a_concept_are_searched_for_only_if_that_can_change_the_list(
    gained: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_tags = replace(gained, gains={})
    searched: list[Sequence[Boost]] = []

    def note(boosts: Sequence[Boost]) -> list[Any]:
        searched.append(boosts)
        return []

    monkeypatch.setattr("service.engine.candidates.better_off", note)
    for amount in (0.01, 1.0):
        for history in HISTORIES:
            ask(by_tags, history, Plan((edit_of(by_tags, "Drama", Operation.BOOST, amount),)))
    amounts = [boost.amount for (boost,) in searched]
    assert amounts.count(0.01) < len(HISTORIES)
    assert amounts.count(1.0) > 0


def test_many_boosted_concepts_are_searched_for_together(bundle: Bundle) -> None:
    boosts = [
        Boost(place, concept.name, 0.1 + place / 10, bundle.gain(concept))
        for place, concept in enumerate(bundle.labels.concepts)
    ]
    assert len(list(better_off(boosts[:1]))) == 1
    assert len(list(better_off(boosts[:2]))) <= 3
    assert len(list(better_off([boosts[0]] * 10))) == 1  # the same concept ten times
    assert len(list(better_off(boosts))) <= len(LEVELS)
    assert not list(better_off([boosts[0], boosts[0]._replace(amount=-boosts[0].amount)]))


def test_an_imported_concept_has_the_gains_of_its_attribute_and_value(gained: Bundle) -> None:
    comedy = gained.labels.concept("Comedy")
    assert comedy is not None
    assert gained.gain(replace(comedy, name="Funny")).dtype == np.float16
    other = replace(comedy, value="Comedies")
    assert not gained.gain(other).any()
    assert gained.gain(other).dtype == bool


def test_a_boost_acts_on_the_scores_that_other_edits_give(bundle: Bundle) -> None:
    add = edit_of(bundle, "Comedy", Operation.ADD, 0.8)
    boost = edit_of(bundle, "Horror", Operation.BOOST, 0.2)
    for history in HISTORIES:
        reply = ask(bundle, history, Plan((boost, add)))
        who = run_alone(audience(reply.query, UNKNOWN_USER))
        moved = (
            who.state.z
            + np.float32(bundle.scale(who.state.z)) * np.float32(0.8) * add.target.direction
        )
        expected = np.argsort(-worths(bundle, reply, [("Horror", 0.2)], moved), kind="stable")[:20]
        assert reply.ranking.items.tolist() == expected.tolist()


@pytest.mark.parametrize("kind", ["bundle", "head_bundle"])
def test_reasons_sum_to_the_score_and_show_what_each_boost_added(
    request: pytest.FixtureRequest, kind: str
) -> None:
    bundle: Bundle = request.getfixturevalue(kind)
    edits = (
        edit_of(bundle, "Horror", Operation.BOOST, 0.3),
        edit_of(bundle, "Comedy", Operation.ADD, 0.5),
        edit_of(bundle, "Drama", Operation.BOOST, -0.2),
    )
    for plan in (Plan(edits), Plan(edits, max_relevance_loss=0.2)):
        reply = ask(bundle, HISTORIES[0], plan, explain=True)
        total = np.sum([term.contributions for term in reply.terms], axis=0)
        np.testing.assert_allclose(total, reply.ranking.scores, rtol=1e-4, atol=1e-4)
        for genre, position, sign in (("Horror", 0, 1), ("Drama", 2, -1)):
            (term,) = (term for term in reply.terms if term.edit == edits[position])
            members = bundle.catalogue.members("genres", genre)[reply.ranking.items]
            assert (sign * term.contributions[members] > 0).all()
            assert (term.contributions[~members] == 0).all()


@pytest.fixture(scope="module")
def client(served: Served) -> Any:
    with Client(served.target) as client:
        yield client


def share(reply: Any) -> float:
    item_share: float = reply.report.concepts[0].item_share
    return item_share


def test_the_share_rises_from_none_to_all_with_strengths_from_minus_one_to_one(
    client: Client,
) -> None:
    for history in HISTORIES:
        shares = [
            share(
                client.recommend(
                    history=history, n=10, steer=[f"Drama:boost={strength}"], include_report=True
                )
            )
            for strength in (-1, -0.3, -0.1, 0, 0.1, 0.3, 1)
        ]
        assert shares == sorted(shares)
        assert shares[0] == 0.0
        assert shares[-1] == 1.0


def test_a_boost_of_zero_gives_the_unsteered_list_bit_by_bit(client: Client) -> None:
    plain = client.recommend(history=HISTORIES[0], n=20)
    same = client.recommend(history=HISTORIES[0], n=20, steer=["Drama:boost=0"])
    assert [(item.item_id, item.score) for item in same.items] == [
        (item.item_id, item.score) for item in plain.items
    ]


def test_the_report_shows_the_boost_and_an_unchanged_code(client: Client) -> None:
    reply = client.recommend(
        history=HISTORIES[0],
        n=20,
        steer=["Horror:boost=0.5"],
        include_report=True,
        include_unsteered=True,
    )
    (edit,) = reply.report.edits
    assert edit.target == "Horror"
    assert edit.raw_strength == 0.5
    assert edit.level_before == edit.level_after
    assert not edit.no_effect
    assert reply.report.relevance_loss > 0
    assert reply.report.concepts[0].item_share > reply.report.concepts[0].unsteered_item_share


@pytest.mark.parametrize("budget", [0.0, 0.05, 0.3])
def test_a_budget_applies_the_largest_fraction_of_a_boost(client: Client, budget: float) -> None:
    asked: dict[str, Any] = {"n": 20, "include_report": True}
    for history in HISTORIES[:4]:
        whole = client.recommend(history=history, steer=["Horror:boost=0.8"], **asked).report
        report = client.recommend(
            history=history, steer=["Horror:boost=0.8"], max_relevance_loss=budget, **asked
        ).report
        assert report.relevance_loss <= budget + 1e-6
        if whole.relevance_loss <= budget:
            assert report.applied_fraction == 1.0
        else:
            further = 0.8 * (report.applied_fraction + 0.002)
            beyond = client.recommend(
                history=history, steer=[f"Horror:boost={further}"], **asked
            ).report
            assert beyond.relevance_loss >= report.relevance_loss
            alone = 0.8 * report.applied_fraction
            same = client.recommend(
                history=history, steer=[f"Horror:boost={alone}"], **asked
            ).report
            assert same.relevance_loss == pytest.approx(report.relevance_loss, abs=1e-4)


def test_a_target_share_uses_the_smallest_fraction_of_a_boost(client: Client) -> None:
    for history in HISTORIES:
        reply = client.recommend(
            history=history,
            n=20,
            steer=["Horror:boost=1"],
            shares={"Horror": (0.4, None)},
            include_report=True,
        )
        (target,) = reply.report.targets
        assert target.met
        assert target.lift == 0.0
        least = 8 if reply.report.concepts[0].unsteered_item_share < 0.4 else target.items
        assert target.items == least


def test_pages_of_a_boosted_list_join_to_the_long_list(client: Client) -> None:
    steer = ["Drama:boost=0.3", "Horror:boost=-0.2", "Comedy=+0.5"]
    whole = client.recommend(history=HISTORIES[1], n=60, steer=steer)
    item_ids = []
    token = ""
    for _ in range(3):
        page = client.recommend(history=HISTORIES[1], n=20, steer=steer, page_token=token)
        item_ids += [item.item_id for item in page.items]
        token = page.next_page_token
    assert item_ids == [item.item_id for item in whole.items]


def test_an_unknown_user_gets_boosted_items(client: Client) -> None:
    assert client.recommend("who", n=10).served_by.source == pb.SOURCE_POPULAR
    reply = client.recommend("who", n=10, steer=["Drama:boost=1"], include_report=True)
    assert reply.served_by.source == pb.SOURCE_COLD_START
    assert share(reply) == 1.0
    assert (
        client.recommend("who", n=10, steer=["Drama:boost=0"]).served_by.source == pb.SOURCE_POPULAR
    )


def test_boosts_can_be_written_as_text() -> None:
    edit = parse_edit("Film-Noir:boost=.3")
    assert edit.concept == "Film-Noir"
    assert edit.strength == pytest.approx(0.3)
