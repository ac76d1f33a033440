"""Candidates: right, allowed, and not excluded, whichever way they are found."""

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.arrays import Bools, Floats, Ints
from service.batching.joint_calls import run_alone
from service.ranking.order import rank, score
from service.retrieval.exact_index import ExactIndex
from service.retrieval.faiss_index import FaissIndex
from service.retrieval.protocol import Index
from service.retrieval.strategy import SearchPlan, find_candidates, make_search, plan_search

N_ITEMS = 3_000
P = 16
RNG = np.random.default_rng(5)
MATRIX = np.hstack([RNG.normal(size=(N_ITEMS, P)), np.zeros((N_ITEMS, 1))]).astype(np.float32)


@pytest.fixture(scope="module", params=["exact", "flat", "hnsw", "ivf", "sq8", "pq4", "ivf-pq4"])
def index(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Index:
    if request.param == "exact":
        return ExactIndex(MATRIX)
    vectors = np.ascontiguousarray(MATRIX[:, :-1])
    if request.param == "flat":
        made = faiss.IndexFlatIP(P)
    elif request.param == "hnsw":
        made = faiss.IndexHNSWFlat(P, 32, faiss.METRIC_INNER_PRODUCT)
        made.hnsw.efSearch = 512
    elif request.param == "ivf":
        made = faiss.index_factory(P, "IVF16,Flat", faiss.METRIC_INNER_PRODUCT)
        made.nprobe = 16
    elif request.param.endswith("pq4"):  # 4-bit fast scan, which takes no selectors
        cells = "IVF16," if request.param.startswith("ivf") else ""
        made = faiss.index_factory(P, f"{cells}PQ8x4fs", faiss.METRIC_INNER_PRODUCT)
        if cells:
            made.nprobe = 16
    else:
        made = faiss.IndexScalarQuantizer(
            P, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
        )
    made.train(vectors)
    made.add(vectors)
    path = tmp_path_factory.mktemp("index") / "items.faiss"
    faiss.write_index(made, str(path))
    return FaissIndex.read(path, over_fetch=32.0 if request.param.endswith("pq4") else 1.0)


def exact(query: Floats, n: int, allowed: Bools | None, excluded: Ints) -> list[int]:
    listable = np.ones(N_ITEMS, bool) if allowed is None else allowed.copy()
    listable[excluded] = False
    rows = np.flatnonzero(listable)
    items: list[int] = rank(rows, score(MATRIX, rows, query), n).items.tolist()
    return items


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    share=st.sampled_from([1.0, 0.5, 0.12, 0.05, 0.01, 0.0]),
    n=st.integers(1, 60),
    excluded_count=st.sampled_from([0, 1, 100, 2_000]),
)
def test_every_candidate_satisfies_the_filter_and_none_is_excluded(
    index: Index, seed: int, share: float, n: int, excluded_count: int
) -> None:
    rng = np.random.default_rng(seed)
    queries = rng.normal(size=(2, P)).astype(np.float32)
    allowed = None if share == 1.0 else rng.random(N_ITEMS) < share
    excluded = np.sort(rng.choice(N_ITEMS, excluded_count, replace=False))
    candidates = run_alone(find_candidates(index, MATRIX, queries, n, allowed, excluded))
    assert not candidates.degraded
    assert not np.isin(candidates.items, excluded).any()
    assert allowed is None or allowed[candidates.items].all()
    assert np.array_equal(candidates.items, np.unique(candidates.items))
    available = N_ITEMS if allowed is None else int(allowed.sum())
    if excluded_count == 0:
        assert len(candidates.items) >= min(n, available)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.sampled_from([1.0, 0.5, 0.05]), n=st.integers(1, 60))
def test_the_candidates_hold_the_exact_list(index: Index, seed: int, share: float, n: int) -> None:
    rng = np.random.default_rng(seed)
    query = rng.normal(size=P).astype(np.float32)
    allowed = None if share == 1.0 else rng.random(N_ITEMS) < share
    excluded = np.sort(rng.choice(N_ITEMS, 50, replace=False))
    candidates = run_alone(find_candidates(index, MATRIX, query[None], n, allowed, excluded))
    expected = exact(query, n, allowed, excluded)
    missing = set(expected) - set(candidates.items.tolist())
    assert len(missing) <= 0.05 * n + (0 if share == 0.05 else 1), (
        "recall fell below what these settings give"
    )


@pytest.mark.parametrize("share", [0.5, 0.12, 0.05])
def test_items_of_a_filter_that_lie_away_from_the_query_are_found(
    index: Index, share: float
) -> None:
    query = np.random.default_rng(7).normal(size=P).astype(np.float32)
    scores = score(MATRIX, np.arange(N_ITEMS), query)
    allowed = scores < np.quantile(scores, share)  # none of them among what an index names first
    nothing = np.empty(0, np.int64)
    candidates = run_alone(find_candidates(index, MATRIX, query[None], 20, allowed, nothing))
    assert allowed[candidates.items].all()
    assert len(set(exact(query, 20, allowed, nothing)) - set(candidates.items.tolist())) <= 2


def test_an_index_that_fails_is_replaced_by_an_exact_pass() -> None:
    class Broken:
        n_items = N_ITEMS
        over_fetch = 1.0
        can_select = True

        def search(self, *_: object) -> Ints:
            raise RuntimeError("Error in faiss: no such list")

        search_among = search

        def over_fetch_pays(self, *_: object) -> bool:
            return False

    query = RNG.normal(size=P).astype(np.float32)
    excluded = np.array([3, 4])
    for allowed in (None, RNG.random(N_ITEMS) < 0.5, RNG.random(N_ITEMS) < 0.1):
        candidates = run_alone(
            find_candidates(Broken(), MATRIX, query[None], 20, allowed, excluded)
        )
        assert candidates.degraded
        assert set(exact(query, 20, allowed, excluded)) <= set(candidates.items.tolist())


def plain_search(index: Any, queries: Floats, n: int, over_fetch: float) -> Ints:
    """Searches by docs/bundle.md: the effort was chosen for 128 candidates of each over-fetch."""
    depth = min(n, index.ntotal)
    factor = depth / (128 * over_fetch)
    parameters = None
    if isinstance(index, faiss.IndexIVF) and factor > 1:
        probes = min(int(index.nprobe * factor) + 1, index.nlist)
        parameters = faiss.SearchParametersIVF(nprobe=probes)
    elif isinstance(index, faiss.IndexHNSW) and factor > 1:
        parameters = faiss.SearchParametersHNSW(efSearch=int(index.hnsw.efSearch * factor) + 1)
    items: Ints = index.search(queries, depth, params=parameters)[1]
    return items


def plain_search_among(
    index: Any, queries: Floats, n: int, over_fetch: float, allowed: Bools
) -> Ints:
    """The same among allowed items, in twice as many cells as hold enough of them on average."""
    depth = min(n, index.ntotal)
    held = np.zeros(index.nlist, bool)
    for cell in range(index.nlist):
        size = index.invlists.list_size(cell)
        held[cell] = allowed[faiss.rev_swig_ptr(index.invlists.get_ids(cell), size)].any()
    wider = 2 * index.ntotal / max(int(allowed.sum()), 1) * max(depth / (128 * over_fetch), 1.0)
    cells = faiss.IDSelectorBitmap(np.packbits(held, bitorder="little"))
    parameters = faiss.SearchParametersIVF(
        sel=faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little")),
        nprobe=min(int(index.nprobe * wider) + 1, max(int(held.sum()), 1)),
        quantizer_params=faiss.SearchParameters(sel=cells),
    )
    items: Ints = index.search(queries, depth, params=parameters)[1]
    return items


@pytest.mark.parametrize("n", [50, 256, 257, 1_500, N_ITEMS + 5])
@pytest.mark.parametrize("kind", ["IVF40,PQ8x4fsr", "HNSW8,Flat"])
def test_an_index_is_searched_with_an_effort_in_proportion_to_the_depth(
    tmp_path: Path, kind: str, n: int
) -> None:
    made = faiss.index_factory(P, kind, faiss.METRIC_INNER_PRODUCT)
    made.train(MATRIX[:, :-1].copy())
    made.add(MATRIX[:, :-1].copy())
    if isinstance(made, faiss.IndexIVF):
        made.nprobe = 4
    faiss.write_index(made, str(tmp_path / "items.faiss"))
    queries = RNG.normal(size=(6, P)).astype(np.float32)
    allowed = RNG.random(N_ITEMS) < 0.2
    served = FaissIndex.read(tmp_path / "items.faiss", over_fetch=2.0)
    assert np.array_equal(served.search(queries, n), plain_search(made, queries, n, 2.0))
    assert served.can_select == isinstance(made, faiss.IndexIVF)
    if served.can_select:
        assert served.over_fetch_pays(allowed, 256)
        assert not served.over_fetch_pays(allowed, 4_096)
        assert not served.over_fetch_pays(np.arange(N_ITEMS) < 10, 1)
        among = served.search_among(queries, n, allowed)
        assert np.array_equal(among, plain_search_among(made, queries, n, 2.0, allowed))


def test_biases_in_the_index_are_met_by_a_one_at_the_querys_end(tmp_path: Path) -> None:
    matrix = MATRIX.copy()
    matrix[:, -1] = np.random.default_rng(2).normal(size=N_ITEMS) * 5
    made = faiss.IndexFlatIP(P + 1)
    made.add(matrix)
    faiss.write_index(made, str(tmp_path / "items.faiss"))
    query = RNG.normal(size=P).astype(np.float32)
    index = FaissIndex.read(tmp_path / "items.faiss")
    nothing = np.empty(0, np.int64)
    candidates = run_alone(find_candidates(index, matrix, query[None], 10, None, nothing))
    expected = rank(np.arange(N_ITEMS), score(matrix, np.arange(N_ITEMS), query), 10)
    assert set(expected.items.tolist()) <= set(candidates.items.tolist())


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 200), count=st.integers(1, 40))
def test_an_exact_search_in_blocks_finds_the_best_of_each_query(
    seed: int, n: int, count: int
) -> None:
    queries = np.random.default_rng(seed).normal(size=(count, P)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.retrieval.exact_index.SCORES_AT_ONCE", 700 * count)  # several blocks
        rows = ExactIndex(MATRIX).search(queries, n)
    scores = queries @ MATRIX[:, :-1].T
    best = -np.sort(-scores, axis=1)[:, :n]
    np.testing.assert_allclose(
        -np.sort(-np.take_along_axis(scores, rows, 1), axis=1), best, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    ("share", "can_select", "excluded_count", "plan"),
    [
        (None, True, 0, SearchPlan.OVER_FETCH),
        (0.9, True, 0, SearchPlan.OVER_FETCH),
        (0.1, True, 0, SearchPlan.SELECT),
        (0.1, False, 0, SearchPlan.EXACT),
        (0.05, True, 0, SearchPlan.EXACT),
        (None, True, N_ITEMS - 10, SearchPlan.EXACT),
    ],
)
def test_a_search_goes_the_way_that_its_costs_make_cheapest(
    share: float | None, can_select: bool, excluded_count: int, plan: SearchPlan
) -> None:
    index = ExactIndex(MATRIX)
    index.can_select = can_select
    allowed = None if share is None else np.arange(N_ITEMS) < share * N_ITEMS
    search = make_search(index, 10, allowed, np.arange(excluded_count))
    assert plan_search(search, search.first_fetch) is plan
