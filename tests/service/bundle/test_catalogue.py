"""Items by id, by hash and by index, few or many, and the bitmaps of filters."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.arrays import Bools
from service.bundle.attributes import BitmapCache
from service.bundle.catalogue import Catalogue, item_hash
from service.bundle.text_column import PackedTexts, read_texts
from service.retrieval.filter import Condition, Filter

N_ITEMS = 500
IDS = [f"item-{row}" if row % 3 else f"\N{SNOWMAN}{row}" for row in range(N_ITEMS)]
TABLE = pa.table(
    {
        "item_id": IDS,
        "title": [f"Title {row}" if row % 5 else None for row in range(N_ITEMS)],
        "popularity": pa.array([row * 7 % 50 for row in range(N_ITEMS)], pa.int32()),
        "genre": [f"genre {row % 4}" for row in range(N_ITEMS)],
        "year": [1950.0 + row % 70 for row in range(N_ITEMS)],
    }
)


@pytest.fixture(params=["few", "many"])
def catalogue(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Catalogue:
    """Makes the same items as a small and as a large catalogue holds them."""
    if request.param == "many":
        monkeypatch.setattr("service.bundle.text_column.MANY", 1)
        monkeypatch.setattr("service.bundle.catalogue.MANY", 1)
    made = Catalogue(TABLE.__getitem__, ["genre", "year"])
    assert isinstance(made.item_ids, PackedTexts) == (request.param == "many")
    return made


@given(st.lists(st.lists(st.none() | st.text(max_size=9), max_size=6), min_size=1, max_size=4))
def test_packed_texts_are_the_columns_texts(chunks: list[list[str | None]]) -> None:
    column = pa.chunked_array([pa.array(chunk, pa.string()) for chunk in chunks])
    expected = [text or "" for chunk in chunks for text in chunk]
    packed = PackedTexts(column)
    assert len(packed) == len(expected)
    assert list(packed) == packed[:] == expected
    assert packed[1:-1:2] == expected[1:-1:2]
    if expected:
        assert packed[-1] == expected[-1]
        assert packed[np.int64(0)] == expected[0]  # type: ignore[call-overload]


def test_packed_texts_of_a_part_of_a_column_are_of_that_part() -> None:
    column = pa.chunked_array([pa.array(["a", None, "bc", "def", "g"])])
    assert list(PackedTexts(column[1:4])) == ["", "bc", "def"]


@pytest.mark.parametrize("place", [3, -4])
def test_a_packed_text_that_is_not_there_is_an_index_error(place: int) -> None:
    with pytest.raises(IndexError):
        PackedTexts(pa.chunked_array([pa.array(["a", "b", "c"])]))[place]


def test_packed_texts_take_about_four_bytes_more_than_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.bundle.text_column.MANY", N_ITEMS)
    packed = read_texts(TABLE["item_id"])
    assert isinstance(packed, PackedTexts)
    assert packed.size_bytes == sum(len(item_id.encode()) for item_id in IDS) + 4 * (N_ITEMS + 1)


def test_items_are_found_by_id_and_by_hash(catalogue: Catalogue) -> None:
    assert [catalogue.index_of(item_id) for item_id in IDS] == list(range(N_ITEMS))
    assert catalogue.index_of("item-0") is None
    asked = [IDS[7], "nothing", IDS[499], "", IDS[7]]
    assert catalogue.find(asked).tolist() == [7, -1, 499, -1, 7]
    hashes = np.array([item_hash(item_id) for item_id in asked], np.uint64)
    assert catalogue.find_hashes(hashes).tolist() == [7, -1, 499, -1, 7]
    assert catalogue.find_hashes(hashes).dtype == catalogue.find(asked).dtype == np.int64
    assert catalogue.hashes.tolist() == [item_hash(item_id) for item_id in IDS]


def test_ids_with_the_same_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.bundle.catalogue.MANY", 1)
    monkeypatch.setattr(
        "service.bundle.catalogue._hashes", lambda ids: np.full(len(ids), 5, np.uint64)
    )
    monkeypatch.setattr("service.bundle.catalogue.item_hash", lambda _: 5)
    alike = Catalogue(TABLE.__getitem__, [])
    assert [alike.index_of(item_id) for item_id in IDS[:20]] == list(range(20))
    assert alike.index_of("nothing") is None


def test_titles_and_popularity_are_in_index_order(catalogue: Catalogue) -> None:
    assert [catalogue.titles[row] for row in (0, 1, 499)] == ["", "Title 1", "Title 499"]
    popularity = [row * 7 % 50 for row in range(N_ITEMS)]
    assert catalogue.popularity.tolist() == popularity
    assert catalogue.by_popularity.tolist() == sorted(
        range(N_ITEMS), key=lambda row: (-popularity[row], row)
    )


def _expected(rows: Sequence[int]) -> list[bool]:
    mask: list[bool] = np.isin(np.arange(N_ITEMS), rows).tolist()
    return mask


def test_a_filter_allows_what_all_its_conditions_allow(catalogue: Catalogue) -> None:
    new = Condition("year", minimum=2000.0)
    first = Condition("genre", ("genre 1",))
    second = Condition("genre", ("genre 2",))
    rows = [row for row in range(N_ITEMS) if row % 70 >= 50 and row % 4 != 2]
    for _ in range(2):  # from the cache too
        allowed = catalogue.allowed(Filter(all_of=(new,), none_of=(second,)))
        assert allowed is not None
        assert allowed.tolist() == _expected(rows)
    listed = catalogue.allowed(
        Filter(all_of=(first,), item_ids=(IDS[1], IDS[2], IDS[5], "nothing"))
    )
    assert listed is not None
    assert listed.tolist() == _expected([1, 5])
    assert catalogue.allowed(Filter()) is None


def _bitmap(value: bool = True) -> Bools:
    return np.full(10_000, value)


def test_bitmaps_stay_within_their_memory_and_the_least_used_goes_first() -> None:
    cache = BitmapCache(limit_bytes=60_000)
    made: list[int] = []

    def make(key: int) -> Bools:
        made.append(key)
        return _bitmap()

    for key in (0, 1, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0):
        assert cache.get(key, partial(make, key)).all()
        assert cache.size_bytes <= 60_000
    assert made == [0, 1, 2, 3, 4, 5, 6]  # 0 was in use all the time
    cache.get(1, lambda: make(1))
    assert made[-1] == 1


def test_a_bitmap_beyond_the_cache_is_made_each_time() -> None:
    cache = BitmapCache(limit_bytes=5_000)
    for _ in range(2):
        assert cache.get("large", _bitmap).all()
        assert cache.size_bytes == 0


def test_a_cached_bitmap_cannot_be_changed() -> None:
    bitmap = BitmapCache(10**6).get("key", _bitmap)
    with pytest.raises(ValueError, match="read-only"):
        bitmap[0] = False
