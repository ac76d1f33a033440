"""Every fast formula against the naive one."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from training.concepts.mapping.association import area_under_curve
from training.measures import metrics

N_ITEMS = 12


@st.composite
def lists_and_targets(draw: st.DrawFn) -> tuple[np.ndarray, csr_matrix]:
    users = draw(st.integers(1, 5))
    n = draw(st.integers(1, 8))
    rows = []
    for _ in range(users):
        row = draw(st.lists(st.integers(0, N_ITEMS - 1), unique=True, max_size=n))
        rows.append(row + [-1] * (n - len(row)))
    targets = draw(st.lists(st.sets(st.integers(0, N_ITEMS - 1)), min_size=users, max_size=users))
    matrix = np.zeros((users, N_ITEMS), dtype=np.float32)
    for user, wanted in enumerate(targets):
        matrix[user, sorted(wanted)] = 1
    return np.array(rows, dtype=np.int64), csr_matrix(matrix)


def wanted(targets: csr_matrix, user: int) -> set[int]:
    return set(targets[user].indices.tolist())


@given(lists_and_targets())
def test_recall_is_the_share_of_min_n_and_targets(case: tuple[np.ndarray, csr_matrix]) -> None:
    lists, targets = case
    for user, found in enumerate(metrics.recall(lists, targets)):
        hits = sum(item in wanted(targets, user) for item in lists[user])
        possible = min(lists.shape[1], len(wanted(targets, user)))
        assert math.isnan(found) if possible == 0 else math.isclose(found, hits / possible)


@given(lists_and_targets())
def test_ndcg_is_dcg_over_the_best_possible_dcg(case: tuple[np.ndarray, csr_matrix]) -> None:
    lists, targets = case
    for user, found in enumerate(metrics.ndcg(lists, targets)):
        gain = sum(
            1 / math.log2(rank + 1)
            for rank, item in enumerate(lists[user], start=1)
            if item in wanted(targets, user)
        )
        possible = min(lists.shape[1], len(wanted(targets, user)))
        ideal = sum(1 / math.log2(rank + 1) for rank in range(1, possible + 1))
        assert (
            math.isnan(found) if possible == 0 else math.isclose(found, gain / ideal, abs_tol=1e-12)
        )


@given(lists_and_targets(), st.sets(st.integers(0, N_ITEMS - 1)))
def test_shares_weigh_places_by_exposure_or_equally(
    case: tuple[np.ndarray, csr_matrix], concept: set[int]
) -> None:
    lists, _ = case
    members = np.isin(np.arange(N_ITEMS), sorted(concept))
    exposure = metrics.exposure_share(lists, members)
    plain = metrics.plain_share(lists, members)
    for user, row in enumerate(lists):
        places = [
            (1 / math.log2(rank + 2), item in concept) for rank, item in enumerate(row) if item >= 0
        ]
        total = sum(weight for weight, _ in places)
        expected = sum(weight for weight, inside in places if inside) / total if places else 0.0
        assert math.isclose(exposure[user], expected, abs_tol=1e-12)
        expected = sum(inside for _, inside in places) / len(places) if places else 0.0
        assert math.isclose(plain[user], expected, abs_tol=1e-12)


@given(lists_and_targets(), st.integers(0, 2**32))
def test_overlap_counts_shared_items_whatever_their_order(
    case: tuple[np.ndarray, csr_matrix], seed: int
) -> None:
    left, _ = case
    right = np.random.default_rng(seed).permuted(left, axis=1)
    right[:, 0] = -1
    for user, found in enumerate(metrics.overlap(left, right)):
        own = {item for item in left[user] if item >= 0}
        other = {item for item in right[user] if item >= 0}
        assert math.isnan(found) if not own else math.isclose(found, len(own & other) / len(own))


def test_coverage_counts_distinct_items_of_all_lists() -> None:
    assert metrics.coverage(np.array([[0, 1], [1, -1]]), n_items=8) == 0.25


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=6, max_size=25))
def test_area_under_the_curve_is_the_share_of_pairs_in_order(pairs: list[tuple[int, bool]]) -> None:
    scores = np.array([score for score, _ in pairs], dtype=np.float64)
    positive = np.array([flag for _, flag in pairs])
    found = area_under_curve(scores, positive)
    ups = scores[positive]
    downs = scores[~positive]
    if min(len(ups), len(downs)) < 3:
        assert math.isnan(found)
        return
    won = sum((up > down) + 0.5 * (up == down) for up in ups for down in downs)
    assert math.isclose(found, won / (len(ups) * len(downs)))
