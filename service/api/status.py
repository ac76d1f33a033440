"""Translates errors to gRPC status codes, in one place."""

import logging
import secrets
from typing import NamedTuple

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from service.errors import InvalidRequest, ServiceError, shortened

_log = logging.getLogger(__name__)


class WireError(NamedTuple):
    """An error as gRPC sends it."""

    code: grpc.StatusCode
    message: str
    metadata: tuple[tuple[str, bytes], ...] = ()


def to_wire(error: Exception) -> WireError:
    """The status that a caller sees for an exception."""
    if isinstance(error, InvalidRequest):
        return WireError(
            error.code, str(error), (("grpc-status-details-bin", _bad_request(error)),)
        )
    if isinstance(error, ServiceError):
        return WireError(error.code, shortened(str(error)))
    fault_id = secrets.token_hex(4)
    _log.error("internal fault %s", fault_id, exc_info=error)
    return WireError(grpc.StatusCode.INTERNAL, f"internal fault {fault_id}: see the server's log")


def _bad_request(error: InvalidRequest) -> bytes:
    violation = error_details_pb2.BadRequest.FieldViolation(
        field=error.field, description=error.description
    )
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    status = status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message=str(error), details=[detail])
    encoded: bytes = status.SerializeToString()
    return encoded
