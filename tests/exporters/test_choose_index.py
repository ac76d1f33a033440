"""The index's kind is chosen by what it finds, for plain and for steered queries."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np
import pytest

from exporters.choose_index import IndexOptions, choose_index
from exporters.index_kinds import KINDS
from exporters.recall import Truth, rounded_recall
from service.arrays import Floats
from service.retrieval.faiss_index import FaissIndex


class Search(NamedTuple):
    items: Floats
    plain: Floats
    steered: Floats


@pytest.fixture(scope="module")
def search() -> Search:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(30, 16))
    vectors = (centres[rng.integers(30, size=3000)] + 0.5 * rng.normal(size=(3000, 16))).astype(
        np.float32
    )
    plain = vectors[rng.integers(3000, size=(64, 5))].sum(axis=1)
    steered = (
        plain
        + rng.normal(size=plain.shape).astype(np.float32)
        * np.linalg.norm(plain, axis=1, keepdims=True)
        / 4
    )
    return Search(with_bias(vectors), plain, steered.astype(np.float32))


def with_bias(vectors: Floats) -> Floats:
    """[V | 0]."""
    return np.hstack([vectors, np.zeros((len(vectors), 1), np.float32)])


def _recall(index: faiss.Index, over_fetch: float, items: Floats, queries: Floats) -> float:
    """By sets of items, where choose_index goes by scores."""
    found = FaissIndex(index, over_fetch).search(queries, int(np.ceil(100 * over_fetch)))
    exact = np.argsort(-(queries @ items[:, :-1].T), axis=1)[:, :100]
    return float(np.mean([len(set(a) & set(b)) / 100 for a, b in zip(found, exact, strict=True)]))


def only(*kinds: str, required_recall: float = 0.95) -> IndexOptions:
    return IndexOptions(flat_limit=1000, kinds=kinds, required_recall=required_recall)


def test_a_small_catalogue_gets_no_index_and_finds_everything(search: Search) -> None:
    chosen = choose_index(*search)
    assert (chosen.index, chosen.trial.kind, chosen.trials) == (None, "flat", ())
    assert set(chosen.trial.recalls) == {1.0}


def test_a_handful_of_items_gets_no_index_even_if_one_is_asked_for(search: Search) -> None:
    items = search.items[:12]
    queries = search.plain
    chosen = choose_index(items, queries, queries, IndexOptions(flat_limit=0, kinds=("ivf-pq4",)))
    assert (chosen.index, chosen.trial.kind) == (None, "flat")


def test_the_quickest_kind_that_finds_enough_is_chosen(search: Search) -> None:
    chosen = choose_index(*search, IndexOptions(flat_limit=1000))
    assert {trial.kind for trial in chosen.trials} == {"flat", *KINDS}
    good = [trial for trial in chosen.trials if trial.single_us]
    assert all(min(trial.recalls) >= 0.95 for trial in good)
    assert all(min(trial.recalls) < 0.95 for trial in chosen.trials if trial not in good)
    assert chosen.trial in good
    assert 0.9 * chosen.trial.cost_us <= min(trial.cost_us for trial in good)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_finds_what_is_stated_of_it(search: Search, kind: str) -> None:
    chosen = choose_index(*search, only(kind, required_recall=0.85))
    assert chosen.trial.kind == kind
    assert chosen.index.ntotal == 3000
    stated = chosen.trial.recalls
    over_fetch = chosen.trial.over_fetch
    for queries, recall in ((search.plain, stated.plain), (search.steered, stated.steered)):
        assert recall >= 0.85
        assert _recall(chosen.index, over_fetch, search.items, queries) == pytest.approx(
            recall, abs=2e-3
        )


@pytest.mark.parametrize("kind", ["ivf-pq4", "hnsw"])
def test_the_search_effort_that_was_measured_is_stored_with_the_index(
    search: Search, kind: str
) -> None:
    chosen = choose_index(*search, only(kind, required_recall=0.85))
    stored = faiss.deserialize_index(faiss.serialize_index(chosen.index))
    found = rounded_recall(
        FaissIndex(stored, chosen.trial.over_fetch), search.items, search.steered
    )
    assert found == chosen.trial.recalls.steered


def test_an_index_that_finds_too_little_is_not_taken(search: Search) -> None:
    chosen = choose_index(*search, only("sq8", "ivf", required_recall=1.01))
    assert (chosen.index, chosen.trial.kind) == (None, "flat")
    assert [trial.kind for trial in chosen.trials] == ["sq8", "ivf"]


def test_an_index_must_find_enough_under_filters_too(search: Search) -> None:
    truth = Truth(search.items, search.plain, search.steered)
    index = faiss.index_factory(16, "IVF30,Flat", faiss.METRIC_INNER_PRODUCT)
    vectors = np.ascontiguousarray(search.items[:, :-1])
    index.train(vectors)
    index.add(vectors)
    index.nprobe = 30
    everything = truth.recalls(index, 1.0)
    assert everything.plain == everything.steered == everything.short == 1.0
    assert everything.filtered > 0.97  # chance may let a filter keep fewer than are needed
    index.nprobe = 8
    assert truth.recalls(index, 1.0).filtered < everything.filtered


def test_steered_queries_alone_can_make_the_search_wider(search: Search) -> None:
    on_the_data = np.ascontiguousarray(search.items[::50, :-1])
    easy = choose_index(search.items, on_the_data, on_the_data, only("ivf"))
    hard = choose_index(search.items, on_the_data, search.steered, only("ivf"))
    # Queries between the clusters have their best items in many cells: more of them must be looked
    # at.
    assert hard.trial.kind == "flat" or hard.trial.effort > easy.trial.effort


@pytest.mark.parametrize("kind", ["ivf-pq4", "hnsw"])
def test_the_same_items_give_the_same_index(search: Search, kind: str) -> None:
    first, second = (choose_index(*search, only(kind)) for _ in range(2))
    np.testing.assert_array_equal(
        faiss.serialize_index(first.index), faiss.serialize_index(second.index)
    )


def test_vectors_of_odd_width_and_on_disk_are_indexed(search: Search, tmp_path: Path) -> None:
    np.save(tmp_path / "items.npy", with_bias(search.items[:, :15]))
    items = np.load(tmp_path / "items.npy", mmap_mode="r")
    queries = np.ascontiguousarray(search.plain[:, :15])
    chosen = choose_index(items, queries, queries, only("ivf-pq4"))
    assert chosen.trial.kind == "ivf-pq4"
    assert chosen.index.d == 16


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"index kind: expected flat, pq4, .*, found 'annoy'"):
        IndexOptions(kinds=("annoy",))


def test_items_that_tie_with_the_last_of_the_exact_list_count_as_found() -> None:
    vectors = np.ones((300, 4), np.float32)
    index = faiss.IndexFlatIP(4)
    index.add(vectors)
    queries = np.ones((3, 4), np.float32)
    assert rounded_recall(FaissIndex(index), with_bias(vectors), queries) == 1.0


def test_items_that_are_missing_from_an_index_count_as_not_found(search: Search) -> None:
    index = faiss.IndexFlatIP(16)
    index.add(np.ascontiguousarray(search.items[:50, :-1]))
    assert rounded_recall(FaissIndex(index), search.items, search.plain) < 0.6
