"""The choice of the events that the encoder reads."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.bundle.history import Event, EventKind, HistoryRule, encoder_input, in_time_order

RULE = HistoryRule(max_length=5, min_value=4.0)


def read(items: list[int], positive: list[bool]) -> tuple[list[int], int]:
    chosen = encoder_input(np.array(items, np.int64), np.array(positive, bool), RULE)
    return chosen.items.tolist(), chosen.ignored_count


@pytest.mark.parametrize(
    ("event", "positive"),
    [
        (Event("a", EventKind.RATING, 4.0), True),
        (Event("a", EventKind.RATING, 3.5), False),
        (Event("a", EventKind.UNSPECIFIED, 2.0), False),
        (Event("a", EventKind.UNSPECIFIED), True),
        (Event("a", EventKind.PURCHASE, 1.0), True),
        (Event("a", EventKind.DISLIKE, 5.0), False),
        (Event("a", EventKind.HIDE), False),
    ],
)
def test_kind_and_value_decide_whether_feedback_is_positive(event: Event, positive: bool) -> None:
    assert RULE.is_positive(event) is positive


def test_only_the_last_positive_items_are_read() -> None:
    assert read([1, 2, 3, 4, 5, 6, 7], [True] * 7) == ([3, 4, 5, 6, 7], 0)


def test_a_repeated_item_counts_once_at_its_last_place() -> None:
    assert read([1, 2, 1, 3], [True] * 4) == ([2, 1, 3], 0)
    assert read([1, 1, 2, 3, 4, 5, 1], [True] * 7) == ([2, 3, 4, 5, 1], 0)


def test_negative_feedback_takes_back_what_came_before_it_and_not_after() -> None:
    assert read([1, 2, 1], [True, True, False]) == ([2], 0)
    assert read([1, 1, 2], [False, True, True]) == ([1, 2], 0)


def test_unknown_items_are_ignored_and_counted() -> None:
    assert read([-1, 2, -1], [True, True, False]) == ([2], 1)
    assert read([], []) == ([], 0)


@given(st.lists(st.tuples(st.integers(-1, 6), st.booleans()), max_size=30))
def test_what_is_read_equals_a_naive_walk(events: list[tuple[int, bool]]) -> None:
    kept: list[int] = []
    for item, positive in events:
        if item >= 0:
            kept = [other for other in kept if other != item]
            if positive:
                kept.append(item)
    assert read([e[0] for e in events], [e[1] for e in events])[0] == kept[-5:]


def test_events_are_sorted_by_time_only_if_all_have_one() -> None:
    late = Event("late", EventKind.VIEW, time_ms=9)
    early = Event("early", EventKind.VIEW, time_ms=1)
    timeless = Event("timeless", EventKind.VIEW)
    assert list(in_time_order([late, early])) == [early, late]
    assert list(in_time_order([late, timeless, early])) == [late, timeless, early]
