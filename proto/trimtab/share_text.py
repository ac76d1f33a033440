"""Target shares as a person writes them: "Film-Noir>=0.3", "Drama<=0.5", "Comedy=0.2..0.4".

A share is the part of the items that are of the concept, from 0 to 1. The split is at the last sign, so
that names may hold "=", "<" and ">".
"""

import re

from trimtab.steer_text import SteerTextError
from trimtab.v1.steering_pb2 import TargetShare

# No dot at the end: "0..1" is a range from 0 to 1.
_NUMBER = r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
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
        return _share(bound[1], least, most, text)
    if both := _RANGE.fullmatch(stripped):
        return _share(both[1], both[2], both[3], text)
    raise SteerTextError(
        f"{text!r} found, expected 'concept>=share', 'concept<=share' or 'concept=low..high',"
        " shares from 0 to 1"
    )


def _share(concept: str, least: str | None, most: str | None, text: str) -> TargetShare:
    low, high = (None if part is None else float(part) for part in (least, most))
    for share in (low, high):
        if share is not None and share > 1.0:
            raise SteerTextError(f"{text!r}: share {share:g} found, expected 0 to 1")
    if low is not None and high is not None and low > high:
        raise SteerTextError(f"{text!r}: low end {low:g} above high end {high:g} found, expected low..high")
    return TargetShare(concept=concept, min_share=low, max_share=high)
