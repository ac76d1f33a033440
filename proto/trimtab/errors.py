"""Defines the errors of failed calls and converts gRPC's errors to them."""

from typing import NamedTuple

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from trimtab.v1.recommendation_pb2 import ElementError


class FieldViolation(NamedTuple):
    """The reason why the server refused one field of a request."""

    field: str
    """Path of the field, for instance "steering.edits[0].strength"."""
    description: str
    """Description of what was expected and what was found."""

    def __str__(self) -> str:
        return f"{self.field}: {self.description}" if self.field else self.description


class TrimtabError(Exception):
    """A call that failed.

    Attributes:
        code: gRPC's status code.
        message: the reason in one line.
        request_id: the caller's own id, or the one that the server created; empty if unknown.
    """

    code = grpc.StatusCode.UNKNOWN

    def __init__(self, message: str, request_id: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.request_id = request_id

    def __str__(self) -> str:
        return f"{self.message} (request {self.request_id})" if self.request_id else self.message


class InvalidArgument(TrimtabError):
    """The request is invalid.

    Attributes:
        violations: the invalid fields; empty if the server named none.
    """

    code = grpc.StatusCode.INVALID_ARGUMENT

    def __init__(
        self, message: str, request_id: str = "", violations: tuple[FieldViolation, ...] = ()
    ) -> None:
        named = "; ".join(map(str, violations))
        super().__init__(named or message, request_id)
        self.violations = violations


class Cancelled(TrimtabError):
    """The call was cancelled."""

    code = grpc.StatusCode.CANCELLED


class Unknown(TrimtabError):
    """An error of an unknown kind."""

    code = grpc.StatusCode.UNKNOWN


class DeadlineExceeded(TrimtabError):
    """The server did not answer before the deadline."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class NotFound(TrimtabError):
    """Something that the request names does not exist."""

    code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(TrimtabError):
    """Something that the request would create exists already."""

    code = grpc.StatusCode.ALREADY_EXISTS


class PermissionDenied(TrimtabError):
    """The caller may not do this."""

    code = grpc.StatusCode.PERMISSION_DENIED


class Unauthenticated(TrimtabError):
    """The token is missing or wrong."""

    code = grpc.StatusCode.UNAUTHENTICATED


class ResourceExhausted(TrimtabError):
    """The server is full; it refuses at once instead of letting the request wait."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class FailedPrecondition(TrimtabError):
    """The request is valid, but the server's present state does not allow it."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class Aborted(TrimtabError):
    """The call conflicted with another one."""

    code = grpc.StatusCode.ABORTED


class OutOfRange(TrimtabError):
    """A position is past the end."""

    code = grpc.StatusCode.OUT_OF_RANGE


class Unimplemented(TrimtabError):
    """The server does not implement this call."""

    code = grpc.StatusCode.UNIMPLEMENTED


class Internal(TrimtabError):
    """An error inside the server; its log has the trace under the request id."""

    code = grpc.StatusCode.INTERNAL


class Unavailable(TrimtabError):
    """The server cannot be reached, is starting or is stopping. The call was retried before."""

    code = grpc.StatusCode.UNAVAILABLE


class DataLoss(TrimtabError):
    """Data is lost or damaged."""

    code = grpc.StatusCode.DATA_LOSS


ERRORS: dict[grpc.StatusCode, type[TrimtabError]] = {
    kind.code: kind for kind in TrimtabError.__subclasses__()
}
_CODES = {code.value[0]: code for code in grpc.StatusCode}


def from_rpc_error(
    error: grpc.RpcError, *, target: str, timeout_s: float, request_id: str = ""
) -> TrimtabError:
    """Converts the error of a failed call, sync or async.

    Args:
        error: what gRPC raised.
        target: the address that was called.
        timeout_s: the deadline of the call, in seconds.
        request_id: id of the request, if it has one.
    """
    code = error.code()
    message = error.details() or code.name.lower().replace("_", " ")
    details = _read_details(error)
    request_id = details.request_id or request_id
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return InvalidArgument(message, request_id, details.violations)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED and message.lower() == "deadline exceeded":
        message = f"{target} gave no answer within {timeout_s:g} s"
    elif code is grpc.StatusCode.UNAVAILABLE:
        message = f"{target} is unavailable: {message}"
    return ERRORS.get(code, TrimtabError)(message, request_id)


def from_element_error(element: ElementError) -> TrimtabError:
    """Converts the error of one element of a batch to the one that a single request would raise."""
    code = _CODES.get(element.code, grpc.StatusCode.UNKNOWN)
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        named = (FieldViolation(element.field, element.message),) if element.field else ()
        return InvalidArgument(element.message, violations=named)
    return ERRORS.get(code, TrimtabError)(element.message)


class _Details(NamedTuple):
    violations: tuple[FieldViolation, ...]
    request_id: str


def _read_details(error: grpc.RpcError) -> _Details:
    """Reads the google.rpc details of a status; empty if they are unreadable."""
    violations: list[FieldViolation] = []
    request_id = ""
    try:
        status: status_pb2.Status | None = rpc_status.from_call(error)
        for detail in status.details if status else ():
            bad_request = error_details_pb2.BadRequest()
            request_info = error_details_pb2.RequestInfo()
            if detail.Unpack(bad_request):
                violations += [
                    FieldViolation(v.field, v.description) for v in bad_request.field_violations
                ]
            elif detail.Unpack(request_info):
                request_id = request_info.request_id
    except (ValueError, DecodeError):
        # A proxy may send details that contradict the status or have another format.
        return _Details((), "")
    return _Details(tuple(violations), request_id)
