"""Conditions as a person writes them: "genres=Comedy,Drama", "year=1990..1999", "year=..1960".

A comma inside a value is written "\\,". A range has both ends inclusive; either may be left out.
"""

import re

from trimtab.v1.recommendation_pb2 import Condition

# No dot at the end: "1..5" is a range from 1 to 5.
_NUMBER = r"[+-]?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_RANGE = re.compile(rf"\s*({_NUMBER})?\s*\.\.\s*({_NUMBER})?\s*")
_COMMA = re.compile(r"(?<!\\),")


class FilterTextError(ValueError):
    """A text that is no condition; the message says what was found and what was expected."""


def parse_condition(text: str) -> Condition:
    """Reads one condition.

    Raises:
        FilterTextError: no attribute, no values, or a range without ends or with its ends crossed.
    """
    attribute, equals, right = text.partition("=")
    attribute = attribute.strip()
    if not equals or not attribute:
        raise FilterTextError(
            f"{text!r} found, expected 'attribute=value,value' or 'attribute=low..high'"
        )
    match = _RANGE.fullmatch(right)
    if match:
        return _range(attribute, match[1], match[2], text)
    values = [value.replace("\\,", ",").strip() for value in _COMMA.split(right)]
    if not all(values):
        raise FilterTextError(f"{text!r}: an empty value found, expected 'attribute=value,value'")
    return Condition(attribute=attribute, values=values)


def _range(attribute: str, low: str | None, high: str | None, text: str) -> Condition:
    if low is None and high is None:
        raise FilterTextError(
            f"{text!r}: a range without ends found, expected a number before or after '..'"
        )
    condition = Condition(attribute=attribute)
    if low is not None:
        condition.min = float(low)
    if high is not None:
        condition.max = float(high)
    if low is not None and high is not None and condition.min > condition.max:
        raise FilterTextError(
            f"{text!r}: low end {low} above high end {high} found, expected low..high"
        )
    return condition
