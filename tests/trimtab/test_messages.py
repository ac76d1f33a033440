from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab import interaction, parse_share, recommend_request, steering
from trimtab.event_messages import interaction_message
from trimtab.request_messages import filter_message
from trimtab.steering_messages import edits_messages
from trimtab.v1.recommendation_pb2 import (
    EVENT_KIND_HIDE,
    EVENT_KIND_RATING,
    Condition,
    Event,
    Filter,
    History,
    Interaction,
)
from trimtab.v1.steering_pb2 import (
    MODE_RECONSTRUCT,
    MODE_RESIDUAL,
    OPERATION_ADD,
    UNIT_TYPICAL,
    Edit,
    Steering,
)

NOIR = Edit(concept="Film-Noir", operation=OPERATION_ADD, strength=1, unit=UNIT_TYPICAL)
DIMMED = Edit(neuron=123, operation=OPERATION_ADD, strength=-0.5, unit=UNIT_TYPICAL)


@pytest.mark.parametrize(
    "steer",
    [
        {"Film-Noir": 1, "#123": -0.5},
        {"Film-Noir": 1, 123: -0.5},
        {"Film-Noir": np.float32(1), np.int64(123): np.float64(-0.5)},
        ["Film-Noir=+1", "#123=-0.5"],
        ("Film-Noir=1", DIMMED),
        iter([NOIR, DIMMED]),
        Steering(edits=[NOIR, DIMMED]),
    ],
    ids=["names", "index", "numpy", "texts", "mixed", "iterator", "message"],
)
def test_edits_may_be_given_in_every_form(steer: Any) -> None:
    assert list(recommend_request(42, steer=steer).steering.edits) == [NOIR, DIMMED]


def test_one_text_is_one_edit() -> None:
    assert edits_messages("Film-Noir=+1") == [NOIR]


def test_without_steering_the_request_has_none() -> None:
    assert not recommend_request(42).HasField("steering")
    assert not recommend_request(42).HasField("filter")
    assert not recommend_request(42).HasField("history")


def test_an_empty_history_is_sent_as_a_cold_start() -> None:
    request = recommend_request(history=[])
    assert request.HasField("history")
    assert request.user_id == ""


def test_a_mode_overrides_that_of_a_steering_message_in_a_copy() -> None:
    asked = Steering(edits=[NOIR], mode=MODE_RESIDUAL)
    assert recommend_request(1, steer=asked, mode="reconstruct").steering.mode == MODE_RECONSTRUCT
    assert asked.mode == MODE_RESIDUAL
    assert recommend_request(1, mode=MODE_RECONSTRUCT).steering == Steering(mode=MODE_RECONSTRUCT)


@pytest.mark.parametrize(
    "shares",
    [
        {"Film-Noir": (0.25, None), "Drama": (None, 0.5)},
        ["Film-Noir>=0.25", "Drama<=0.5"],
        (parse_share("Film-Noir>=0.25"), "Drama<=.5"),
    ],
    ids=["numbers", "texts", "mixed"],
)
def test_shares_and_a_budget_are_added_to_edits_in_every_form(shares: Any) -> None:
    asked = recommend_request(
        1, steer="Film-Noir=+1", shares=shares, max_relevance_loss=0.5
    ).steering
    assert list(asked.edits) == [NOIR]
    noir, drama = asked.targets
    assert (noir.concept, noir.min_share, noir.HasField("max_share")) == ("Film-Noir", 0.25, False)
    assert (drama.concept, drama.max_share, drama.HasField("min_share")) == ("Drama", 0.5, False)
    assert asked.budget.max_relevance_loss == 0.5
    whole = Steering(edits=[NOIR], targets=[noir])
    assert (
        recommend_request(1, steer=whole, shares="Drama<=0.5", max_relevance_loss=0.5).steering
        == asked
    )
    assert not whole.HasField("budget")


def test_every_field_of_steering_has_an_argument() -> None:
    asked = steering(
        "Film-Noir=+1",
        mode="residual",
        shares={"Drama": (0.1, None)},
        max_relevance_loss=0.0,
        policy="p",
        label_set="l",
        required=True,
    )
    assert {field.name for field, _ in asked.ListFields()} == set(
        Steering.DESCRIPTOR.fields_by_name
    )
    assert asked.HasField("budget")
    assert asked.targets[0].HasField("min_share")
    assert not asked.targets[0].HasField("max_share")


def test_filters_distinguish_texts_numbers_and_ranges() -> None:
    message = filter_message(
        {"genres": ["Comedy", "Drama"], "studio": "A24", "year": (1990, None), "stars": 5},
        {"genres": {"Horror"}},
    )
    assert message == Filter(
        all_of=[
            Condition(attribute="genres", values=["Comedy", "Drama"]),
            Condition(attribute="studio", values=["A24"]),
            Condition(attribute="year", min=1990),
            Condition(attribute="stars", min=5, max=5),
        ],
        none_of=[Condition(attribute="genres", values=["Horror"])],
    )


def test_a_filter_message_is_extended_in_a_copy() -> None:
    given_filter = Filter(item_ids=["1"])
    both = recommend_request(1, filter=given_filter, filter_out={"genres": "Horror"}).filter
    assert both.item_ids == ["1"]
    assert both.none_of[0].values == ["Horror"]
    assert not given_filter.none_of


@pytest.mark.parametrize("values", [(1, "a"), (None, None), (1, 2, 3), [], (1,)])
def test_a_filter_without_meaning_is_refused(values: object) -> None:
    with pytest.raises(TypeError, match=r"filter: year: expected .* found"):
        filter_message({"year": values})  # type: ignore[dict-item]


def test_a_history_may_mix_ids_and_events() -> None:
    event = Event(item_id="3", kind=EVENT_KIND_HIDE)
    expected = History(events=[Event(item_id="1"), Event(item_id="2"), event])
    history: list[Any] = ["1", np.int32(2), event]
    assert recommend_request(history=history).history == expected
    assert recommend_request(history=expected).history == expected


@pytest.mark.parametrize(
    "arguments",
    [
        {"user_id": 42.0},
        {"user_id": True},
        {"history": "123"},
        {"history": [None]},
        {"exclude": "123"},
        {"exclude": [1.5]},
    ],
    ids=str,
)
def test_ids_of_the_wrong_kind_are_refused_by_name(arguments: dict[str, object]) -> None:
    (field,) = arguments
    with pytest.raises(TypeError, match=f"^{field}: expected .* found"):
        recommend_request(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("arguments", [{"mode": "sideways"}, {"priority": "urgent"}], ids=str)
def test_an_unknown_name_is_refused_with_the_known_ones(arguments: dict[str, str]) -> None:
    with pytest.raises(
        ValueError, match=r"expected one of (residual, reconstruct|low, normal, high), found "
    ):
        recommend_request(1, **arguments)  # type: ignore[arg-type]


def test_an_interaction_has_all_given_fields() -> None:
    message = interaction(42, 50, kind="rating", value=4.5, time=881250949.25, event_id="e")
    assert (message.user_id, message.event.item_id, message.event.event_id) == ("42", "50", "e")
    assert (message.event.kind, message.event.value) == (EVENT_KIND_RATING, 4.5)
    assert (message.event.time.seconds, message.event.time.nanos) == (881250949, 250_000_000)


def test_an_interaction_leaves_other_fields_unset() -> None:
    assert interaction(1, 2) == Interaction(user_id="1", event=Event(item_id="2"))
    assert interaction(1, 2, value=0, time=0).event.HasField("value")
    assert interaction(1, 2, value=0, time=0).event.HasField("time")


@pytest.mark.parametrize(
    "like",
    [Interaction(user_id="1", event=Event(item_id="2")), (1, 2), {"user_id": 1, "item_id": 2}],
)
def test_interactions_may_be_given_in_every_form(like: object) -> None:
    assert interaction_message(like) == interaction(1, 2)  # type: ignore[arg-type]


@given(
    st.datetimes(min_value=datetime(1905, 1, 1), max_value=datetime(2200, 1, 1)),
    st.integers(-12, 12),
)
def test_a_datetime_comes_back_to_the_microsecond(naive: datetime, hours: int) -> None:
    moment = naive.replace(tzinfo=timezone(timedelta(hours=hours)))
    assert interaction(1, 2, time=moment).event.time.ToDatetime(UTC) == moment


@given(st.floats(-2e9, 4e9))
def test_seconds_with_a_fraction_come_back(seconds: float) -> None:
    stamp = interaction(1, 2, time=seconds).event.time
    assert 0 <= stamp.nanos < 10**9
    assert stamp.seconds + stamp.nanos / 1e9 == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize(
    "time", [881250949000, 1.7e12, float("nan"), float("inf"), datetime(2020, 1, 1)], ids=str
)
def test_a_time_that_is_not_in_seconds_or_has_no_zone_is_refused(time: float) -> None:
    with pytest.raises(ValueError, match=r"^time: expected .* found"):
        interaction(1, 2, time=time)


def test_an_unknown_argument_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(TypeError, match=r"found 'steering' \(nearest: steer\)$"):
        recommend_request(1, steering="#1=+1")  # type: ignore[call-arg]
