"""Decodes the requests of ConceptService."""

from collections.abc import AsyncIterator
from typing import NamedTuple

from trimtab.v1 import concept_pb2 as wire

from service.api.decode.checks import read_user_id
from service.api.decode.events import read_history
from service.bundle.bundle import Bundle
from service.bundle.history import Event, EventKind
from service.bundle.label_set import LabelSet
from service.engine.query import Query
from service.errors import InvalidRequest, NotFound, quoted, unexpected
from service.labels.sync import unknown_label_set

MAX_RESULTS = 1_000
"""Concepts, neurons or search results of one reply."""

DEFAULT_PAGE = 100
"""Concepts of a page where the request gives no size."""

DEFAULT_RESULTS = 20
"""Results of a search or a contrast where the request gives no number."""

MAX_SEARCH_TEXT = 256
"""Characters of a text search; a longer text takes longer to compare."""

MAX_MEMBERS = 1_000
"""Users and items in either set of a contrast; each is one pass through the encoder."""

MAX_IMPORT_BYTES = 256 * 2**20
"""Bytes of all records of one import, which are held in memory together."""

_MAX_POSITION_DIGITS = 9


class Import(NamedTuple):
    """A stream of label records, read to its end."""

    bundle: str
    records: list[wire.LabelRecord]
    current: bool


def read_page_size(request: wire.ListConceptsRequest) -> int:
    """Returns the number of concepts of a page."""
    return _read_limit(request.page_size, "page_size", DEFAULT_PAGE)


def read_result_count(request: wire.SearchConceptsRequest | wire.ContrastRequest) -> int:
    """Returns the number of results asked for."""
    return _read_limit(request.n, "n", DEFAULT_RESULTS)


def read_page_start(request: wire.ListConceptsRequest, labels: LabelSet) -> int:
    """Returns the position of a page's first concept; a token is "label set:position"."""
    if not request.page_token:
        return 0
    version, _, position = request.page_token.partition(":")
    is_position = position.isdecimal() and len(position) <= _MAX_POSITION_DIGITS
    if version != labels.version or not is_position:
        raise unexpected(
            "page_token", f"a token of label set {labels.version}", quoted(request.page_token)
        )
    return int(position)


def read_search_text(request: wire.SearchConceptsRequest) -> str:
    """Returns the text to search for."""
    if not request.query.strip() or len(request.query) > MAX_SEARCH_TEXT:
        raise unexpected(
            "query", f"a text of 1 to {MAX_SEARCH_TEXT} characters", f"{len(request.query)}"
        )
    return request.query


def read_inspection(request: wire.InspectUserRequest, bundle: Bundle) -> Query:
    """Returns a query for the user whose activations are asked for."""
    if request.HasField("history"):
        history = read_history(request.history)
        return Query(bundle=bundle, n=1, user_id=request.user_id, history=history)
    return Query(bundle=bundle, n=1, user_id=read_user_id(request.user_id))


def read_members(message: wire.ContrastSet, bundle: Bundle, field: str) -> list[Query]:
    """Returns a query for each user, then for each item, of one set of a contrast."""
    user_ids = dict.fromkeys(message.user_ids)
    item_ids = dict.fromkeys(message.item_ids)
    count = len(user_ids) + len(item_ids)
    if not 1 <= count <= MAX_MEMBERS:
        raise unexpected(field, f"1 to {MAX_MEMBERS:,} users and items", count)
    for user_id in user_ids:
        read_user_id(user_id, f"{field}.user_ids")
    users = [Query(bundle=bundle, n=1, user_id=user_id) for user_id in user_ids]
    items = [
        Query(bundle=bundle, n=1, history=(Event(item_id, EventKind.LIKE),)) for item_id in item_ids
    ]
    return users + items


def check_side(member_count: int, field: str) -> None:
    """Checks that at least one member of a contrast's set can be compared."""
    if not member_count:
        raise unexpected(
            field,
            "a user with a history or an item that the bundle knows",
            "neither",
        )


async def read_import(requests: AsyncIterator[wire.ImportLabelsRequest]) -> Import:
    """Reads a stream of label records to its end; the first request names the bundle."""
    first: wire.ImportLabelsRequest | None = None
    records: list[wire.LabelRecord] = []
    size_bytes = 0
    async for request in requests:
        first = first or request
        size_bytes += request.ByteSize()
        if size_bytes > MAX_IMPORT_BYTES:
            limit = f"{MAX_IMPORT_BYTES // 2**20} MiB"
            raise InvalidRequest("", f"expected at most {limit} of records, found more")
        records.append(request.record)
    if first is None:
        raise unexpected("record", "at least one record", "no record")
    return Import(bundle=first.bundle, records=records, current=not first.pinned_only)


def read_label_set(request: wire.ExportLabelsRequest, bundle: Bundle) -> LabelSet:
    """Returns the label set of the version asked for; "" is the current one.

    Raises:
        NotFound: the bundle has no label set of this version.
    """
    if request.label_set and request.label_set not in bundle.label_sets:
        raise NotFound(unknown_label_set(request.label_set, bundle))
    return bundle.pinned(request.label_set).labels


def _read_limit(count: int, field: str, default: int) -> int:
    if count > MAX_RESULTS:
        raise unexpected(field, f"at most {MAX_RESULTS}", count)
    return count or default
