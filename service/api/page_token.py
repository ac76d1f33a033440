"""Page tokens: what the pages before returned and the strength they used, so that none repeats or jumps.

A token holds hashes of item ids, not positions: it stays right when the user's history or the
bundle changes between two pages.
"""

import base64
import binascii
import hashlib
import struct

import numpy as np
from trimtab.v1 import recommendation_pb2 as wire

from service.arrays import Hashes
from service.engine.page import Page
from service.errors import InvalidRequest
from service.steering.plan import Applied, TargetStrength

MAX_RETURNED = 10_000
"""Items that all pages of one request return together."""


_HEADER = struct.Struct(
    "<1s8sfB"
)  # version, digest of the request, applied fraction, number of targets


_STRENGTH = struct.Struct("<ff")  # fraction and lift of one target


_CHECK_BYTES = 4


_VERSION = b"2"


def first_page(request: wire.RecommendRequest) -> Page:
    """The page of a request without a token."""
    return Page(_digest(request), None, np.empty(0, np.uint64))


def read_page(request: wire.RecommendRequest) -> Page:
    """The page that a request's token asks for.

    Raises:
        InvalidRequest: the token is damaged, or was made for another request.
    """
    if not request.page_token:
        return first_page(request)
    try:
        data = base64.urlsafe_b64decode(request.page_token)
        body, check = data[:-_CHECK_BYTES], data[-_CHECK_BYTES:]
        version, digest, fraction, target_count = _HEADER.unpack_from(body)
        start = _HEADER.size + target_count * _STRENGTH.size
        strengths = _STRENGTH.iter_unpack(body[_HEADER.size : start])
        applied = Applied(fraction, tuple(TargetStrength(*strength) for strength in strengths))
        returned = np.frombuffer(body, "<u8", offset=start)
    except (ValueError, binascii.Error, struct.error):
        raise InvalidRequest("page_token", "found a text that is no page token") from None
    if version != _VERSION or check != _checksum(body) or len(returned) > MAX_RETURNED:
        raise InvalidRequest("page_token", "found a damaged page token")
    if digest != _digest(request):
        raise InvalidRequest(
            "page_token",
            "found the token of another request, expected the same user, steering and filter",
        )
    return Page(digest, applied, returned)


def next_token(page: Page, applied: Applied, listed: Hashes, n: int) -> str:
    """The token of the page after one that listed these items; "" where there is none."""
    returned = np.concatenate([page.returned, listed]) if len(page.returned) else listed
    if len(listed) < n or len(returned) >= MAX_RETURNED:
        return ""
    header = _HEADER.pack(_VERSION, page.request_digest, applied.fraction, len(applied.targets))
    strengths = b"".join(_STRENGTH.pack(*strength) for strength in applied.targets)
    body = header + strengths + returned.astype("<u8").tobytes()
    return base64.urlsafe_b64encode(body + _checksum(body)).decode()


def _digest(request: wire.RecommendRequest) -> bytes:
    """Of what must stay the same from page to page. n may change, and the history may grow."""
    same = wire.RecommendRequest(user_id=request.user_id, bundle=request.bundle)
    if request.HasField("steering"):
        same.steering.CopyFrom(request.steering)
    if request.HasField("filter"):
        same.filter.CopyFrom(request.filter)
    return hashlib.blake2b(same.SerializeToString(deterministic=True), digest_size=8).digest()


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECK_BYTES).digest()
