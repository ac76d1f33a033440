"""Decodes filters of items, and lists of item ids."""

from collections.abc import Iterator, Sequence

from trimtab.v1 import recommendation_pb2 as wire

from service.api.decode.checks import check_count
from service.bundle.bundle import Bundle
from service.errors import InvalidRequest, UnfitCondition, UnknownAttribute
from service.retrieval.filter import Condition, Filter

MAX_ITEM_IDS = 10_000
"""Ids in exclude_item_ids, and in a filter's item_ids."""

MAX_CONDITIONS = 64
"""Conditions in all_of, and in none_of; each is a pass over a bitmap of the items."""

MAX_VALUES = 1_000
"""Values of one condition."""


def read_filter(message: wire.Filter, bundle: Bundle, field: str = "filter") -> Filter:
    """Returns a filter whose conditions fit the bundle's attributes."""
    return Filter(
        all_of=tuple(_conditions(message.all_of, bundle, f"{field}.all_of")),
        none_of=tuple(_conditions(message.none_of, bundle, f"{field}.none_of")),
        item_ids=read_item_ids(message.item_ids, f"{field}.item_ids"),
    )


def read_item_ids(item_ids: Sequence[str], field: str) -> tuple[str, ...]:
    """Returns a list of item ids; ids that the bundle does not know are allowed."""
    check_count(item_ids, MAX_ITEM_IDS, "ids", field)
    return tuple(item_ids)


def _conditions(
    messages: Sequence[wire.Condition], bundle: Bundle, field: str
) -> Iterator[Condition]:
    check_count(messages, MAX_CONDITIONS, "conditions", field)
    for position, message in enumerate(messages):
        yield _condition(message, bundle, f"{field}[{position}]")


def _condition(message: wire.Condition, bundle: Bundle, field: str) -> Condition:
    check_count(message.values, MAX_VALUES, "values", f"{field}.values")
    condition = Condition(
        attribute=message.attribute,
        values=tuple(message.values),
        minimum=message.min if message.HasField("min") else None,
        maximum=message.max if message.HasField("max") else None,
    )
    try:
        bundle.catalogue.check(condition)
    except UnknownAttribute as error:
        raise InvalidRequest(f"{field}.attribute", str(error)) from None
    except UnfitCondition as error:
        raise InvalidRequest(field, str(error)) from None
    return condition
