"""Translates errors of the service to gRPC status codes, in one place."""

import logging
import secrets
from typing import NamedTuple

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from service.errors import InvalidRequest, ServiceError, shortened

_log = logging.getLogger(__name__)


class WireError(NamedTuple):
    """An error as gRPC sends it: status code, message, and trailing metadata."""

    code: grpc.StatusCode
    message: str
    metadata: tuple[tuple[str, bytes], ...] = ()


def to_wire(error: Exception) -> WireError:
    """Returns the status that a caller sees for an exception.

    An exception outside the tree of service.errors is logged with its trace under an id.
    """
    if isinstance(error, InvalidRequest):
        details = (("grpc-status-details-bin", _bad_request(error)),)
        return WireError(_status_code(error), str(error), details)
    if isinstance(error, ServiceError):
        return WireError(_status_code(error), shortened(str(error)))
    fault_id = secrets.token_hex(4)
    _log.error("internal fault %s", fault_id, exc_info=error)
    return WireError(grpc.StatusCode.INTERNAL, f"internal fault {fault_id}: see the server's log")


def _status_code(error: ServiceError) -> grpc.StatusCode:
    return grpc.StatusCode[error.code.name]


def _bad_request(error: InvalidRequest) -> bytes:
    """Encodes a google.rpc.Status whose detail is a BadRequest that names the field."""
    violation = error_details_pb2.BadRequest.FieldViolation(
        field=error.field, description=error.description
    )
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    status = status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message=str(error), details=[detail])
    encoded: bytes = status.SerializeToString()
    return encoded
