"""Ragged histories against lists of lists."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.histories import Histories

ROWS = st.lists(st.lists(st.integers(0, 9), unique=True, max_size=6), max_size=8)


def ragged(rows: list[list[int]]) -> Histories:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return Histories(offsets, np.array([item for row in rows for item in row], dtype=np.int64))


def as_lists(histories: Histories) -> list[list[int]]:
    pairs = zip(histories.offsets, histories.offsets[1:], strict=False)
    return [histories.items[start:stop].tolist() for start, stop in pairs]


@given(ROWS, st.integers(1, 4))
def test_the_newest_items_are_the_end_of_each_row(rows: list[list[int]], length: int) -> None:
    assert as_lists(ragged(rows).last(length)) == [row[-length:] for row in rows]


@given(ROWS, st.data())
def test_rows_can_be_picked_in_any_order(rows: list[list[int]], data: st.DataObject) -> None:
    picked = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=6)) if rows else []
    chosen = ragged(rows).rows(np.array(picked, dtype=np.int64))
    assert as_lists(chosen) == [rows[row] for row in picked]


@given(ROWS, st.integers(1, 3))
def test_batches_put_together_are_the_whole(rows: list[list[int]], size: int) -> None:
    parts = [as_lists(part) for part in ragged(rows).batches(size)]
    assert [row for part in parts for row in part] == rows
    assert all(len(part) <= size for part in parts)


@given(ROWS)
def test_padding_comes_at_the_end_under_mask_0(rows: list[list[int]]) -> None:
    items, mask = ragged(rows).padded()
    width = max((len(row) for row in rows), default=0)
    assert items.tolist() == [row + [0] * (width - len(row)) for row in rows]
    assert mask.tolist() == [[1.0] * len(row) + [0.0] * (width - len(row)) for row in rows]
    assert items.dtype == torch.int64
    assert mask.dtype == torch.float32


@given(ROWS, st.integers(0, 2**32), st.floats(0.01, 1), st.floats(0.01, 1))
def test_a_sub_history_keeps_order_and_at_least_one_item(
    rows: list[list[int]], seed: int, one: float, other: float
) -> None:
    low, high = sorted((one, other))
    thinned = as_lists(ragged(rows).thinned(np.random.default_rng(seed), low, high))
    for row, kept in zip(rows, thinned, strict=True):
        assert kept == [item for item in row if item in kept]
        assert bool(kept) == bool(row)


def test_keep_rates_are_uniform_between_the_bounds(rng: np.random.Generator) -> None:
    rows = ragged([list(range(500)) for _ in range(400)])
    shares = rows.thinned(rng, 0.2, 1.0).lengths / 500
    assert abs(shares.mean() - 0.6) < 0.03
    assert shares.min() < 0.25
    assert shares.max() > 0.95
    assert abs((shares < 0.4).mean() - 0.25) < 0.07


def test_the_matrix_has_a_one_where_a_row_holds_an_item() -> None:
    matrix = ragged([[2, 0], [], [1]]).matrix(3)
    assert matrix.toarray().tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
