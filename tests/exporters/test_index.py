"""The index's kind is chosen by what it finds, for plain and for steered queries."""

from __future__ import annotations

from typing import NamedTuple

import faiss
import numpy as np
import pytest

from exporters.index import choose_index, measure_recall
from exporters.models import Floats


class Search(NamedTuple):
    vectors: Floats
    plain: Floats
    steered: Floats


@pytest.fixture(scope="module")
def search() -> Search:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(30, 16))
    vectors = (centres[rng.integers(30, size=3000)] + 0.5 * rng.normal(size=(3000, 16))).astype(np.float32)
    plain = vectors[rng.integers(3000, size=(64, 5))].sum(axis=1)
    steered = (
        plain
        + rng.normal(size=plain.shape).astype(np.float32) * np.linalg.norm(plain, axis=1, keepdims=True) / 4
    )
    return Search(vectors, plain, steered.astype(np.float32))


def _recall(index: faiss.Index, vectors: Floats, queries: Floats) -> float:
    _, found = index.search(queries, 100)
    exact = np.argsort(-(queries @ vectors.T), axis=1)[:, :100]
    return float(np.mean([len(set(a) & set(b)) / 100 for a, b in zip(found, exact, strict=True)]))


def test_a_small_catalogue_gets_a_flat_index_that_finds_everything(search: Search) -> None:
    chosen = choose_index(*search)
    assert chosen.kind == "flat"
    assert chosen.recall_plain == chosen.recall_steered == 1.0


def test_a_large_catalogue_gets_an_approximate_index_that_finds_enough_of_both(search: Search) -> None:
    chosen = choose_index(*search, flat_limit=1000)
    assert chosen.kind in ("ivf", "hnsw")
    assert chosen.index.ntotal == 3000
    for queries, stated in ((search.plain, chosen.recall_plain), (search.steered, chosen.recall_steered)):
        assert stated >= 0.95
        assert _recall(chosen.index, search.vectors, queries) == pytest.approx(stated, abs=2e-3)


def test_the_search_effort_that_was_measured_is_stored_with_the_index(search: Search) -> None:
    chosen = choose_index(*search, flat_limit=1000)
    stored = faiss.deserialize_index(faiss.serialize_index(chosen.index))
    assert measure_recall(stored, search.vectors, search.steered) == chosen.recall_steered


def test_an_index_that_finds_too_little_is_not_taken(search: Search) -> None:
    chosen = choose_index(*search, flat_limit=1000, required_recall=1.01)
    assert chosen.kind == "flat"


def test_steered_queries_alone_can_make_the_search_wider(search: Search) -> None:
    on_the_data = search.vectors[::50]
    easy = choose_index(search.vectors, on_the_data, on_the_data, flat_limit=1000)
    hard = choose_index(search.vectors, on_the_data, search.steered, flat_limit=1000)
    assert easy.kind == "ivf"
    # Queries between the clusters have their best items in many cells: more of them must be looked at.
    assert hard.kind != "ivf" or hard.index.nprobe > easy.index.nprobe


def test_the_same_items_give_the_same_index(search: Search) -> None:
    first, second = (choose_index(*search, flat_limit=1000) for _ in range(2))
    np.testing.assert_array_equal(faiss.serialize_index(first.index), faiss.serialize_index(second.index))


def test_items_that_tie_with_the_last_of_the_exact_list_count_as_found() -> None:
    vectors = np.ones((300, 4), np.float32)
    index = faiss.IndexFlatIP(4)
    index.add(vectors)
    assert measure_recall(index, vectors, np.ones((3, 4), np.float32)) == 1.0


def test_items_that_are_missing_from_an_index_count_as_not_found(search: Search) -> None:
    index = faiss.IndexFlatIP(16)
    index.add(search.vectors[:50])
    assert measure_recall(index, search.vectors, search.plain) < 0.6
