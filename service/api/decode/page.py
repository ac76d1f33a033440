"""Decodes which page of a list a request asks for."""

import hashlib

import numpy as np
from trimtab.v1 import recommendation_pb2 as wire

from service.api.page_token import BadToken, decode_token
from service.engine.page import Page
from service.errors import InvalidRequest, unexpected


def read_page(request: wire.RecommendRequest) -> Page:
    """Returns the page that a request's token asks for; without a token, the first.

    Raises:
        InvalidRequest: the token is damaged, or was made for another request.
    """
    digest = request_digest(request)
    if not request.page_token:
        return Page(digest, None, np.empty(0, np.uint64))
    try:
        page = decode_token(request.page_token)
    except BadToken as error:
        raise InvalidRequest("page_token", str(error)) from None
    if page.request_digest != digest:
        raise unexpected(
            "page_token",
            "a token of the same user, steering and filter",
            "the token of another request",
        )
    return page


def request_digest(request: wire.RecommendRequest) -> bytes:
    """Returns a digest of what must stay the same from page to page: 8 bytes.

    n may change, and the history may grow.
    """
    same = wire.RecommendRequest(user_id=request.user_id, bundle=request.bundle)
    if request.HasField("steering"):
        same.steering.CopyFrom(request.steering)
    if request.HasField("filter"):
        same.filter.CopyFrom(request.filter)
    return hashlib.blake2b(same.SerializeToString(deterministic=True), digest_size=8).digest()
