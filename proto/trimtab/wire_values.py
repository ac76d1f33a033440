"""Converts ids, times and names of enum values to the values of message fields."""

import operator
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from trimtab.argument_types import Id, Time

_LATEST_S = 1e11
"""Largest time that is accepted as seconds since 1970 (the year 5138). Larger numbers are probably
milliseconds or finer."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def id_text(value: object, field: str) -> str:
    """Returns an id as text.

    Raises:
        TypeError: the id is neither a text nor an integer; names the field.
    """
    if isinstance(value, str):
        return value
    # Floats are refused, because 42.0 would silently become another id than 42. NumPy's integers
    # have __index__, too.
    if hasattr(value, "__index__") and not isinstance(value, bool):
        return str(operator.index(value))
    raise TypeError(f"{field}: expected a text or a whole number, found {value!r}")


def id_texts(values: Iterable[Id], field: str) -> list[str]:
    """Returns a list of ids as texts.

    Raises:
        TypeError: a single text instead of a list, or an id of another type; names the field.
    """
    if isinstance(values, str):
        raise TypeError(f"{field}: expected a list of ids, found the text {values!r}")
    return [id_text(value, field) for value in values]


def enum_value(enum: Any, prefix: str, value: str | int | None) -> Any:
    """Returns the number of a generated enum's value by its short name, 0 for None.

    Example: "reconstruct" is MODE_RECONSTRUCT with the prefix MODE. Numbers are returned unchanged.

    Raises:
        ValueError: no value has this name; lists the names.
    """
    if value is None or isinstance(value, int):
        return value or 0
    try:
        return enum.Value(f"{prefix}_{value.upper()}")
    except ValueError:
        names = [name.removeprefix(f"{prefix}_").lower() for name, number in enum.items() if number]
        kind = prefix.rpartition("_")[2].lower()
        raise ValueError(f"{kind}: expected one of {', '.join(names)}, found {value!r}") from None


def timestamp_fields(time: Time) -> dict[str, int]:
    """Returns the fields of a Timestamp message.

    Raises:
        ValueError: no time zone, or a number that is not in seconds since 1970.
    """
    if isinstance(time, datetime):
        if time.tzinfo is None:
            raise ValueError(
                f"time: expected a time zone, found {time.isoformat()} without a time zone"
            )
        return {
            "seconds": (time - _EPOCH) // timedelta(seconds=1),
            "nanos": time.microsecond * 1000,
        }
    if isinstance(time, int) and -_LATEST_S < time < _LATEST_S:
        return {"seconds": time}
    if not -_LATEST_S < time < _LATEST_S:
        raise ValueError(f"time: expected seconds since 1970, found {time!r}")
    # A float of a present time has a precision of about one microsecond.
    seconds, microseconds = divmod(round(time * 1e6), 10**6)
    return {"seconds": seconds, "nanos": microseconds * 1000}
