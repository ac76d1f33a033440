"""From a publisher's rows to indices."""

import polars as pl
import pytest

from training.errors import DataError
from training.interactions import EVENT_SCHEMA, AttributeKind, Prepared, RawData, prepare

Event = tuple[str | None, str, float | None, int | None]


def prepared(*events: Event, items: pl.DataFrame | None = None) -> Prepared:
    frame = pl.DataFrame(list(events), schema=EVENT_SCHEMA, orient="row")
    if items is None:
        items = pl.DataFrame({"item_id": ["a"], "title": ["A"]})
    return prepare(RawData("test", frame, items, None))


def pairs(result: Prepared, min_value: float | None = None) -> dict[str, list[str]]:
    events = result.interactions
    positives = events.positives(min_value)
    rows = zip(events.user_ids, positives.batches(1), strict=True)
    return {user: [events.item_ids[item] for item in row.items] for user, row in rows}


def test_repeated_pairs_are_counted_and_the_latest_kept() -> None:
    result = prepared(
        ("u", "a", 5.0, 30), ("u", "b", 4.0, 20), ("u", "a", 1.0, 40), ("u", "a", 2.0, 10)
    )
    assert result.interactions.duplicate_count == 2
    assert pairs(result) == {"u": ["b", "a"]}
    assert result.interactions.value.tolist() == [4.0, 1.0]
    assert any("2 repeated user-item pairs" in note for note in result.notes)


def test_without_times_the_publishers_order_counts() -> None:
    result = prepared(
        ("u", "c", None, None),
        ("v", "a", None, None),
        ("u", "a", None, None),
        ("u", "c", None, None),
    )
    assert pairs(result) == {"u": ["a", "c"], "v": ["a"]}


def test_positive_means_at_least_the_threshold_and_unknown_values_are_not() -> None:
    result = prepared(
        ("u", "a", 4.0, 1), ("u", "b", 3.5, 2), ("u", "c", None, 3), ("v", "a", 1.0, 1)
    )
    assert pairs(result, 4.0) == {"u": ["a"], "v": []}
    assert pairs(result) == {"u": ["a", "b", "c"], "v": ["a"]}
    assert result.interactions.positive_matrix(4.0).toarray().tolist() == [[1, 0, 0], [0, 0, 0]]


def test_an_item_without_metadata_is_kept_with_null_title_and_attributes() -> None:
    items = pl.DataFrame(
        {"item_id": ["a", "x"], "title": ["A", "X"], "tags": [["t"], ["t"]], "year": [1999.0, 2000]}
    )
    result = prepared(("u", "a", None, 1), ("u", "b", None, 2), items=items)
    rows = result.catalogue.items.to_dicts()
    assert [row["item_id"] for row in rows] == ["a", "b"]
    assert rows[1] == {"item_id": "b", "title": None, "popularity": 0, "tags": None, "year": None}
    assert result.catalogue.attributes == {"tags": AttributeKind.TAGS, "year": AttributeKind.NUMBER}
    assert any("1 items have no metadata" in note for note in result.notes)


def test_ids_stay_as_the_publisher_wrote_them() -> None:
    result = prepared(("042", "a", None, 1), ("42", "a", None, 1))
    assert result.interactions.user_ids == ("042", "42")


def test_no_events_at_all_are_refused() -> None:
    with pytest.raises(DataError, match="test: expected at least one interaction, found none"):
        prepared()


def test_an_event_without_a_user_is_refused() -> None:
    with pytest.raises(DataError, match="1 interactions have no user_id"):
        prepared((None, "a", None, 1), ("u", "a", None, 1))
