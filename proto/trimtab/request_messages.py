"""Builds request messages from Python values; `Client` and `AsyncClient` send them."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Unpack

from trimtab.argument_types import (
    HistoryLike,
    Id,
    RecommendOptions,
    SimilarItemsOptions,
    Values,
    Where,
)
from trimtab.event_messages import history_message
from trimtab.steering_messages import steering_message
from trimtab.v1.concept_pb2 import ContrastRequest, ContrastSet, InspectUserRequest
from trimtab.v1.recommendation_pb2 import (
    Condition,
    Filter,
    ForgetUserRequest,
    History,
    Priority,
    RecommendRequest,
    SimilarItemsRequest,
)
from trimtab.wire_values import enum_value, id_text, id_texts

DEFAULT_N = 10


def recommend_request(
    user_id: Id | None = None, **options: Unpack[RecommendOptions]
) -> RecommendRequest:
    """Builds one request for recommendations.

    Args:
        user_id: id of the user; may be None if a history is given.
        options: the fields of `trimtab.RecommendOptions`.

    Raises:
        SteerTextError: a text is not an edit or not a target share.
        ValueError, TypeError: an argument has no place in the request.
    """
    _check_names("recommend_request", options, RecommendOptions.__annotations__)
    return RecommendRequest(
        user_id=_optional_id(user_id),
        history=_optional_history(options.get("history")),
        n=options.get("n", DEFAULT_N),
        steering=steering_message(
            options.get("steer"),
            options.get("mode"),
            options.get("shares", ()),
            options.get("max_relevance_loss"),
        ),
        filter=filter_message(options.get("filter"), options.get("filter_out")),
        exclude_item_ids=id_texts(options.get("exclude", ()), "exclude"),
        context=options.get("context"),
        unit_id=options.get("unit_id", ""),
        explain=options.get("explain", False),
        include_unsteered=options.get("include_unsteered", False),
        include_report=options.get("include_report", False),
        bundle=options.get("bundle", ""),
        request_id=options.get("request_id", ""),
        page_token=options.get("page_token", ""),
        priority=enum_value(Priority, "PRIORITY", options.get("priority")),
    )


def similar_items_request(
    item_id: Id, **options: Unpack[SimilarItemsOptions]
) -> SimilarItemsRequest:
    """Builds one request for similar items.

    Args:
        item_id: id of the item.
        options: the fields of `trimtab.SimilarItemsOptions`.
    """
    _check_names("similar_items_request", options, SimilarItemsOptions.__annotations__)
    return SimilarItemsRequest(
        item_id=id_text(item_id, "item_id"),
        n=options.get("n", DEFAULT_N),
        filter=filter_message(options.get("filter"), options.get("filter_out")),
        steering=steering_message(options.get("steer")),
        bundle=options.get("bundle", ""),
    )


def inspect_user_request(
    user_id: Id | None = None, *, history: HistoryLike | None = None, bundle: str = ""
) -> InspectUserRequest:
    """Builds one request for the active neurons of a user.

    Args:
        user_id: id of the user; may be None if a history is given.
        history: item ids or events, oldest first, instead of the stored history.
        bundle: id or label of a bundle; the default bundle if empty.
    """
    return InspectUserRequest(
        user_id=_optional_id(user_id), history=_optional_history(history), bundle=bundle
    )


def contrast_request(
    left: Iterable[Id], right: Iterable[Id], *, items: bool = False, n: int = 20, bundle: str = ""
) -> ContrastRequest:
    """Builds one request for the neurons and concepts that differ between two sets.

    Args:
        left: ids of users, or of items.
        right: ids of the same kind.
        items: true if the ids are item ids.
        n: number of neurons, and number of concepts.
        bundle: id or label of a bundle; the default bundle if empty.
    """
    kind = "item_ids" if items else "user_ids"
    return ContrastRequest(
        left=ContrastSet(**{kind: id_texts(left, "left")}),
        right=ContrastSet(**{kind: id_texts(right, "right")}),
        n=n,
        bundle=bundle,
    )


def forget_user_request(user_id: Id) -> ForgetUserRequest:
    """Builds one request to remove everything that is stored about a user."""
    return ForgetUserRequest(user_id=id_text(user_id, "user_id"))


def filter_message(
    all_of: Where | None, none_of: Mapping[str, Values] | None = None
) -> Filter | None:
    """Builds a filter from conditions by attribute; None allows all items.

    Raises:
        TypeError: the values of a condition are neither texts nor a range.
    """
    if all_of is None and none_of is None:
        return None
    if isinstance(all_of, Filter):
        message = Filter()
        message.CopyFrom(all_of)
    else:
        message = Filter(all_of=[_condition(*item) for item in (all_of or {}).items()])
    message.none_of.extend(_condition(*item) for item in (none_of or {}).items())
    return message


def _check_names(function: str, options: Mapping[str, object], known: Mapping[str, object]) -> None:
    """Refuses keyword arguments that the TypedDict does not have: Python does not check them."""
    if options.keys() <= known.keys():
        return
    name = min(options.keys() - known.keys())
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f" (nearest: {nearest[0]})" if nearest else ""
    raise TypeError(
        f"{function}: expected arguments {', '.join(sorted(known))}, found {name!r}{hint}"
    )


def _optional_id(user_id: Id | None) -> str:
    return "" if user_id is None else id_text(user_id, "user_id")


def _optional_history(history: HistoryLike | None) -> History | None:
    return None if history is None else history_message(history)


def _condition(attribute: str, values: Values) -> Condition:
    if isinstance(values, str):
        return Condition(attribute=attribute, values=[values])
    if isinstance(values, int | float):
        return Condition(attribute=attribute, min=values, max=values)
    several = tuple(values)
    if all(isinstance(value, str) for value in several) and several:
        return Condition(attribute=attribute, values=several)  # type: ignore[arg-type]
    is_range = len(several) == 2 and all(
        value is None or isinstance(value, int | float) for value in several
    )
    if not is_range or several == (None, None):
        raise TypeError(
            f"filter: {attribute}: expected texts or a pair of numbers (low, high),"
            f" found {values!r}"
        )
    return Condition(attribute=attribute, min=several[0], max=several[1])  # type: ignore[arg-type]
