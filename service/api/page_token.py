"""Packs a page into a token of text, and unpacks it.

A token holds hashes of item ids, not positions: it stays right when the user's history or the
bundle changes between two pages. It holds the strengths that the first page's steering was solved
for, so that later pages continue the same list.
"""

import base64
import binascii
import hashlib
import struct

import numpy as np

from service.engine.page import Page
from service.steering.plan import Applied, TargetStrength

MAX_RETURNED = 10_000
"""Items that all pages of one request return together; a token has 11 bytes of text for each."""

_HEADER = struct.Struct("<1s8sfB")
"""Version, digest of the request, applied fraction, number of targets."""

_STRENGTH = struct.Struct("<ff")
"""Fraction and lift of one target."""

_CHECKSUM_BYTES = 4

_VERSION = b"2"


class BadToken(ValueError):
    """A text that is not a page token; the message says what was expected."""


def encode_token(page: Page) -> str:
    """Returns the token of a page; a page without applied steering cannot have one."""
    if page.applied is None:
        raise ValueError("expected a page with its applied steering, found none")
    targets = page.applied.targets
    header = _HEADER.pack(_VERSION, page.request_digest, page.applied.fraction, len(targets))
    strengths = b"".join(_STRENGTH.pack(*strength) for strength in targets)
    body = header + strengths + page.returned.astype("<u8").tobytes()
    return base64.urlsafe_b64encode(body + _checksum(body)).decode()


def decode_token(token: str) -> Page:
    """Returns the page of a token.

    Raises:
        BadToken: the text is not a token of this version, or was altered.
    """
    try:
        data = base64.urlsafe_b64decode(token)
        body = data[:-_CHECKSUM_BYTES]
        version, digest, fraction, target_count = _HEADER.unpack_from(body)
        start = _HEADER.size + target_count * _STRENGTH.size
        strengths = _STRENGTH.iter_unpack(body[_HEADER.size : start])
        applied = Applied(fraction, tuple(TargetStrength(*strength) for strength in strengths))
        returned = np.frombuffer(body, "<u8", offset=start)
    except (ValueError, binascii.Error, struct.error):
        raise BadToken("expected a page token, found another text") from None
    is_whole = data[-_CHECKSUM_BYTES:] == _checksum(body)
    if version != _VERSION or not is_whole or len(returned) > MAX_RETURNED:
        raise BadToken("expected a page token, found a damaged one")
    return Page(digest, applied, returned)


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECKSUM_BYTES).digest()
