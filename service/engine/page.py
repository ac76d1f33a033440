"""Describes where a page of a list begins."""

from typing import NamedTuple

from service.arrays import Hashes
from service.steering.plan import Applied


class Page(NamedTuple):
    """Where a page begins.

    Attributes:
        request_digest: Of the request that it belongs to.
        applied: How far the first page's steering went; None on the first page.
        returned: Hashes of the items returned so far.
    """

    request_digest: bytes
    applied: Applied | None
    returned: Hashes
