"""Reads target shares from text: "Film-Noir>=0.3", "Drama<=0.5", "Comedy=0.2..0.4", "Drama<=0.5x".

A share is the fraction of the list's items that belong to the concept, from 0 to 1. With an x it is
a multiple, from 0, of that share in the same list without steering. The text is split at the last
sign, so that names may contain "=", "<" and ">".
"""

import math
import re
from typing import TypeAlias

from trimtab.steer_text import SteerTextError
from trimtab.v1.steering_pb2 import TargetShare

ShareBound: TypeAlias = float | str | None
"""A share, or a multiple such as "0.5x"; None for no bound."""

# A number does not end with a dot: "0..1" is a range from 0 to 1.
_NUMBER = r"([0-9]+(?:\.[0-9]+)?x?|\.[0-9]+x?)"
_BOUND = re.compile(rf"(.*\S)\s*([<>]=)\s*{_NUMBER}\s*", re.DOTALL)
_RANGE = re.compile(rf"(.*\S)\s*=\s*{_NUMBER}\s*\.\.\s*{_NUMBER}\s*", re.DOTALL)


def parse_share(text: str) -> TargetShare:
    """Reads one target share from a text.

    Raises:
        SteerTextError: the text is not a target share, or a share is not from 0 to 1.
    """
    stripped = text.strip()
    if bound := _BOUND.fullmatch(stripped):
        low, high = (bound[3], None) if bound[2] == ">=" else (None, bound[3])
        return _checked(share_between(bound[1], low, high), text)
    if both := _RANGE.fullmatch(stripped):
        return _checked(share_between(both[1], both[2], both[3]), text)
    raise SteerTextError(
        "expected 'concept>=share', 'concept<=share' or 'concept=low..high', with shares from 0"
        f" to 1 or multiples such as 0.5x, found {text!r}"
    )


def share_between(concept: str, low: ShareBound, high: ShareBound) -> TargetShare:
    """Returns a target share with these bounds.

    Raises:
        SteerTextError: a text is neither a share nor a multiple.
    """
    target = TargetShare(concept=concept)
    for end, bound in (("min", low), ("max", high)):
        if isinstance(bound, str):
            if not re.fullmatch(_NUMBER, bound):
                raise SteerTextError(
                    f"expected a share such as '0.3' or a multiple such as '0.5x', found {bound!r}"
                )
            number = bound.removesuffix("x")
            setattr(target, f"{end}_{'share' if number == bound else 'times'}", float(number))
        elif bound is not None:
            setattr(target, f"{end}_share", bound)
    return target


def _checked(target: TargetShare, text: str) -> TargetShare:
    for share in (target.min_share, target.max_share):
        if share > 1.0:
            raise SteerTextError(f"{text!r}: expected a share from 0 to 1, found {share:g}")
    shares = (target.min_share, target.max_share if target.HasField("max_share") else math.inf)
    times = (target.min_times, target.max_times if target.HasField("max_times") else math.inf)
    for low, high in (shares, times):
        if low > high:
            raise SteerTextError(
                f"{text!r}: expected low..high, found low {low:g} above high {high:g}"
            )
    return target
