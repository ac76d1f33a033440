"""One error tree, translated to gRPC status codes in one place.

Messages say what was found and what was expected. An exception that is not in the tree is a fault of ours: it
is logged with its trace, and the caller sees an id, never the text.
"""

import logging
import secrets
from typing import NamedTuple

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

MAX_MESSAGE = 400
"""Characters; gRPC sends them percent-encoded and, in details, twice more, in 8 KiB."""

_log = logging.getLogger(__name__)


class ServiceError(Exception):
    """Base of everything that a caller may be told."""

    code = grpc.StatusCode.INTERNAL


class InvalidRequest(ServiceError):
    """The request cannot be served as it is.

    Attributes:
        field: Path of the field at fault, for instance "steering.edits[0].strength".
    """

    code = grpc.StatusCode.INVALID_ARGUMENT

    def __init__(self, field: str, description: str) -> None:
        self.field = field
        self.description = shortened(description)
        super().__init__(f"{field}: {self.description}" if field else self.description)


class NotFound(ServiceError):
    """Something that the request names is not there."""

    code = grpc.StatusCode.NOT_FOUND


class PreconditionFailed(ServiceError):
    """The request asks for a state of the server that it is not in."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class Unsupported(ServiceError):
    """Part of the API that this release does not serve."""

    code = grpc.StatusCode.UNIMPLEMENTED


class Overloaded(ServiceError):
    """No permit is left; nothing was done."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class StoreUnavailable(ServiceError):
    """Redis did not answer, and the call cannot do without."""

    code = grpc.StatusCode.UNAVAILABLE


class DeadlineExpired(ServiceError):
    """The caller's deadline passed before the work was done."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


def shortened(text: str) -> str:
    """A message that fits into gRPC's metadata, whatever the caller sent that it quotes."""
    return text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]}..."


class WireError(NamedTuple):
    """An error as gRPC sends it."""

    code: grpc.StatusCode
    message: str
    metadata: tuple[tuple[str, bytes], ...] = ()


def to_wire(error: Exception) -> WireError:
    """The status that a caller sees for an exception."""
    if isinstance(error, InvalidRequest):
        return WireError(error.code, str(error), (("grpc-status-details-bin", _bad_request(error)),))
    if isinstance(error, ServiceError):
        return WireError(error.code, shortened(str(error)))
    fault_id = secrets.token_hex(4)
    _log.error("internal fault %s", fault_id, exc_info=error)
    return WireError(grpc.StatusCode.INTERNAL, f"internal fault {fault_id}: see the server's log")


def _bad_request(error: InvalidRequest) -> bytes:
    violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.description)
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    status = status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message=str(error), details=[detail])
    encoded: bytes = status.SerializeToString()
    return encoded
