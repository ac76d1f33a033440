"""Defines where a page of a list begins."""

from typing import NamedTuple

from service.arrays import Hashes
from service.steering.plan import Applied


class Page(NamedTuple):
    """The beginning of a page.

    Attributes:
        request_digest: Digest of the request that it belongs to.
        applied: How far the first page's steering went; None on the first page.
        returned: Hashes of the items on earlier pages, uint64 [m].
    """

    request_digest: bytes
    applied: Applied | None
    returned: Hashes
