"""Target shares as a person writes them: "Film-Noir>=0.3", "Drama<=0.5", "Comedy=0.2..0.4", "Drama<=0.5x".

A share is the part of the items that are of the concept, from 0 to 1; with an x it is a multiple,
from 0, of what the same list has without steering. The split is at the last sign, so that names may
hold "=", "<" and ">".
"""

import math
import re
from typing import TypeAlias

from trimtab.steer_text import SteerTextError
from trimtab.v1.steering_pb2 import TargetShare

ShareBound: TypeAlias = float | str | None
"""A share, or a multiple such as "0.5x"; None for no bound."""

# No dot at the end: "0..1" is a range from 0 to 1.
_NUMBER = r"([0-9]+(?:\.[0-9]+)?x?|\.[0-9]+x?)"
_BOUND = re.compile(rf"(.*\S)\s*([<>]=)\s*{_NUMBER}\s*", re.DOTALL)
_RANGE = re.compile(rf"(.*\S)\s*=\s*{_NUMBER}\s*\.\.\s*{_NUMBER}\s*", re.DOTALL)


def parse_share(text: str) -> TargetShare:
    """Reads one target share.

    Raises:
        SteerTextError: the text does not fit, or a share is no number from 0 to 1.
    """
    stripped = text.strip()
    if bound := _BOUND.fullmatch(stripped):
        least, most = (bound[3], None) if bound[2] == ">=" else (None, bound[3])
        return _checked(share_between(bound[1], least, most), text)
    if both := _RANGE.fullmatch(stripped):
        return _checked(share_between(both[1], both[2], both[3]), text)
    raise SteerTextError(
        f"{text!r} found, expected 'concept>=share', 'concept<=share' or 'concept=low..high',"
        " with shares from 0 to 1 or multiples such as 0.5x"
    )


def share_between(concept: str, least: ShareBound, most: ShareBound) -> TargetShare:
    """A target share with these bounds.

    Raises:
        SteerTextError: a text that is neither a share nor a multiple.
    """
    target = TargetShare(concept=concept)
    for end, bound in (("min", least), ("max", most)):
        if isinstance(bound, str):
            if not re.fullmatch(_NUMBER, bound):
                raise SteerTextError(
                    f"{bound!r} found, expected a share as '0.3' or a multiple as '0.5x'"
                )
            number = bound.removesuffix("x")
            setattr(target, f"{end}_{'share' if number == bound else 'times'}", float(number))
        elif bound is not None:
            setattr(target, f"{end}_share", bound)
    return target


def _checked(target: TargetShare, text: str) -> TargetShare:
    for share in (target.min_share, target.max_share):
        if share > 1.0:
            raise SteerTextError(f"{text!r}: share {share:g} found, expected 0 to 1")
    shares = (target.min_share, target.max_share if target.HasField("max_share") else math.inf)
    times = (target.min_times, target.max_times if target.HasField("max_times") else math.inf)
    for low, high in (shares, times):
        if low > high:
            raise SteerTextError(
                f"{text!r}: low end {low:g} above high end {high:g} found, expected low..high"
            )
    return target
