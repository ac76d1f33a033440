"""Tests scores, order and measures against the naive formulas."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.ranking.measures import exposure_share, overlap, relevance_loss
from service.ranking.order import rank, score


def test_a_score_does_not_depend_on_the_other_candidates() -> None:
    rng = np.random.default_rng(0)
    items = rng.normal(size=(500, 129)).astype(np.float32)
    query = rng.normal(size=128).astype(np.float32)
    whole = score(items, np.arange(500), query)
    for size in (1, 2, 3, 7, 33, 250):
        rows = rng.choice(500, size, replace=False)
        assert np.array_equal(score(items, rows, query), whole[rows])


def test_a_score_is_the_inner_product_plus_the_bias() -> None:
    rng = np.random.default_rng(1)
    items = rng.normal(size=(20, 9)).astype(np.float32)
    query = rng.normal(size=8).astype(np.float32)
    expected = items[:, :-1].astype(float) @ query.astype(float) + items[:, -1]
    np.testing.assert_allclose(score(items, np.arange(20), query), expected, rtol=1e-5)


def test_items_of_equal_score_are_ordered_by_their_index() -> None:
    ranking = rank(np.array([9, 4, 7, 1]), np.array([1.0, 2.0, 2.0, 1.0], np.float32), 3)
    assert ranking.items.tolist() == [4, 7, 1]
    assert ranking.scores.tolist() == [2.0, 2.0, 1.0]


scores = st.lists(st.floats(-5, 5, width=32), min_size=2, max_size=40).map(
    lambda values: np.sort(np.array(values, np.float32))[::-1]
)


@given(unsteered=scores, data=st.data())
def test_relevance_loss_equals_its_definition(unsteered: np.ndarray, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(unsteered)))
    chosen = data.draw(st.permutations(range(len(unsteered))))[:n]
    u1 = float(unsteered[0])
    floor = float(unsteered[-1])
    loss = relevance_loss(unsteered, unsteered[chosen])
    if u1 == floor:
        assert loss == 0.0
        return

    def gain(value: float) -> float:
        return (value - floor) / (u1 - floor)

    steered = sum(gain(float(unsteered[i])) / math.log2(1 + r) for r, i in enumerate(chosen, 1))
    best = sum(gain(float(unsteered[i])) / math.log2(1 + r) for r, i in enumerate(range(n), 1))
    assert loss == pytest.approx(1 - steered / best, rel=1e-3, abs=1e-4)


@given(unsteered=scores)
def test_the_unsteered_list_loses_nothing(unsteered: np.ndarray) -> None:
    n = min(5, len(unsteered))
    assert relevance_loss(unsteered, unsteered[:n]) == pytest.approx(0.0, abs=1e-6)


@given(unsteered=scores, factor=st.floats(0.1, 10), shift=st.floats(-3, 3))
def test_relevance_loss_does_not_depend_on_the_scale_of_the_scores(
    unsteered: np.ndarray, factor: float, shift: float
) -> None:
    if unsteered[0] - unsteered[-1] < 0.5:
        return
    moved = (unsteered * factor + shift).astype(np.float32)
    worst = min(4, len(unsteered))
    loss = relevance_loss(moved, moved[-worst:])
    assert loss == pytest.approx(relevance_loss(unsteered, unsteered[-worst:]), abs=1e-2)


def test_an_empty_list_loses_nothing_and_holds_no_share() -> None:
    empty = np.empty(0, np.float32)
    assert relevance_loss(empty, empty) == 0.0
    assert exposure_share(np.empty(0, bool)) == 0.0
    assert overlap(np.empty(0, np.int64), np.empty(0, np.int64)) == 0.0


def test_the_first_rank_has_the_largest_exposure() -> None:
    assert exposure_share(np.array([True, False])) == pytest.approx(1 / (1 + 1 / math.log2(3)))
    assert exposure_share(np.array([True, True, True])) == pytest.approx(1.0)
    assert overlap(np.array([1, 2, 3, 4]), np.array([4, 9, 8, 1])) == 0.5
