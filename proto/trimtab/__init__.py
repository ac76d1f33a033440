"""The client of Trimtab, and the modules that client and server share.

from trimtab import Client

with Client("127.0.0.1:50051") as client:
    reply = client.recommend(42, n=10, steer={"Film-Noir": 1, "#123": -0.5}, explain=True)
"""

from trimtab.argument_types import RecommendOptions, SimilarItemsOptions
from trimtab.async_client import AsyncClient
from trimtab.client import Client
from trimtab.connection import ServerStatus
from trimtab.errors import (
    Aborted,
    AlreadyExists,
    Cancelled,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    FieldViolation,
    Internal,
    InvalidArgument,
    NotFound,
    OutOfRange,
    PermissionDenied,
    ResourceExhausted,
    TrimtabError,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    Unknown,
    from_element_error,
)
from trimtab.event_messages import interaction
from trimtab.filter_text import FilterTextError, parse_condition
from trimtab.recording import RecordTotals
from trimtab.request_messages import recommend_request
from trimtab.rows import to_rows
from trimtab.share_text import parse_share
from trimtab.steer_text import SteerTextError, format_edit, parse_edit
from trimtab.steering_messages import steering

__all__ = [
    "Aborted",
    "AlreadyExists",
    "AsyncClient",
    "Cancelled",
    "Client",
    "DataLoss",
    "DeadlineExceeded",
    "FailedPrecondition",
    "FieldViolation",
    "FilterTextError",
    "Internal",
    "InvalidArgument",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "RecommendOptions",
    "RecordTotals",
    "ResourceExhausted",
    "ServerStatus",
    "SimilarItemsOptions",
    "SteerTextError",
    "TrimtabError",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Unknown",
    "format_edit",
    "from_element_error",
    "interaction",
    "parse_condition",
    "parse_edit",
    "parse_share",
    "recommend_request",
    "steering",
    "to_rows",
]
