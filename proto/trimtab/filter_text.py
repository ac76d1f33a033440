"""Reads conditions from text: "genres=Comedy,Drama", "year=1990..1999", "year=..1960".

A comma inside a value is written "\\,". A range includes both ends; either end may be omitted.
"""

import re

from trimtab.v1.recommendation_pb2 import Condition

# A number does not end with a dot: "1..5" is a range from 1 to 5.
_NUMBER = r"[+-]?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_RANGE = re.compile(rf"\s*({_NUMBER})?\s*\.\.\s*({_NUMBER})?\s*")
_COMMA = re.compile(r"(?<!\\),")


class FilterTextError(ValueError):
    """A text that is not a condition; the message names what was expected and what was found."""


def parse_condition(text: str) -> Condition:
    """Reads one condition from a text.

    Raises:
        FilterTextError: the attribute, values or both ends are missing, or low is above high.
    """
    attribute, equals, right = text.partition("=")
    attribute = attribute.strip()
    if not equals or not attribute:
        raise FilterTextError(
            f"expected 'attribute=value,value' or 'attribute=low..high', found {text!r}"
        )
    match = _RANGE.fullmatch(right)
    if match:
        return _range(attribute, match[1], match[2], text)
    values = [value.replace("\\,", ",").strip() for value in _COMMA.split(right)]
    if not all(values):
        raise FilterTextError(f"{text!r}: expected 'attribute=value,value', found an empty value")
    return Condition(attribute=attribute, values=values)


def _range(attribute: str, low: str | None, high: str | None, text: str) -> Condition:
    if low is None and high is None:
        raise FilterTextError(
            f"{text!r}: expected a number before or after '..', found a range without ends"
        )
    condition = Condition(attribute=attribute)
    if low is not None:
        condition.min = float(low)
    if high is not None:
        condition.max = float(high)
    if low is not None and high is not None and condition.min > condition.max:
        raise FilterTextError(f"{text!r}: expected low..high, found low {low} above high {high}")
    return condition
