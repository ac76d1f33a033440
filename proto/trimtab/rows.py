"""Converts replies to rows of plain Python values, for instance for pandas or polars."""

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.message import Message

Row = dict[str, Any]


def to_rows(messages: Iterable[Message]) -> list[Row]:
    """Converts each message, for instance of `response.items`, to a dictionary.

    Data frames accept the list. Every row has every field of the message, in the schema's order. An
    optional field that is not set, and the fields of a oneof that are not chosen, are None. Enums
    are names, nested messages are dictionaries.
    """
    return [_row(message) for message in messages]


def _row(message: Message) -> Row:
    return {field.name: _value(message, field) for field in message.DESCRIPTOR.fields}


def _value(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    if isinstance(value, Mapping):
        return dict(value)
    if field.is_repeated:
        return [_scalar(element, field) for element in value]
    if field.has_presence and not message.HasField(field.name):
        return None
    return _scalar(value, field)


def _scalar(value: Any, field: Any) -> Any:
    if field.message_type is not None:
        return _row(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else value
    return value
