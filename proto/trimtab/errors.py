"""One error tree for everything that the server, or the way to it, can say no with."""

from typing import NamedTuple

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from trimtab.v1.recommendation_pb2 import ElementError


class FieldViolation(NamedTuple):
    """What is wrong with one field of a request."""

    field: str
    """Path of the field, for instance "steering.edits[0].strength"."""
    description: str
    """What was found and what was expected."""

    def __str__(self) -> str:
        return f"{self.field}: {self.description}" if self.field else self.description


class TrimtabError(Exception):
    """A call that got no answer.

    Attributes:
        code: gRPC's status code.
        message: one readable line.
        request_id: the caller's own, or the one that the server gave; empty if there is none.
    """

    code = grpc.StatusCode.UNKNOWN

    def __init__(self, message: str, request_id: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.request_id = request_id

    def __str__(self) -> str:
        return f"{self.message} (request {self.request_id})" if self.request_id else self.message


class InvalidArgument(TrimtabError):
    """The request makes no sense to the server.

    Attributes:
        violations: the fields at fault; empty if the server named none.
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
    """An error of no stated kind."""

    code = grpc.StatusCode.UNKNOWN


class DeadlineExceeded(TrimtabError):
    """No answer came in time."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class NotFound(TrimtabError):
    """What the request names does not exist."""

    code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(TrimtabError):
    """What the request would make exists."""

    code = grpc.StatusCode.ALREADY_EXISTS


class PermissionDenied(TrimtabError):
    """The caller may not do this."""

    code = grpc.StatusCode.PERMISSION_DENIED


class Unauthenticated(TrimtabError):
    """The server does not know the caller: no token, or a wrong one."""

    code = grpc.StatusCode.UNAUTHENTICATED


class ResourceExhausted(TrimtabError):
    """The server is full; it refused at once rather than let the request wait."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class FailedPrecondition(TrimtabError):
    """The request makes sense, but not in the server's present state."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class Aborted(TrimtabError):
    """Another call was in the way."""

    code = grpc.StatusCode.ABORTED


class OutOfRange(TrimtabError):
    """Past the end of something."""

    code = grpc.StatusCode.OUT_OF_RANGE


class Unimplemented(TrimtabError):
    """This server does not do that (yet)."""

    code = grpc.StatusCode.UNIMPLEMENTED


class Internal(TrimtabError):
    """A fault of the server; its log has the trace under the request id."""

    code = grpc.StatusCode.INTERNAL


class Unavailable(TrimtabError):
    """The server cannot be reached, or is starting or stopping; retried before it is raised."""

    code = grpc.StatusCode.UNAVAILABLE


class DataLoss(TrimtabError):
    """Data is lost or broken."""

    code = grpc.StatusCode.DATA_LOSS


ERRORS: dict[grpc.StatusCode, type[TrimtabError]] = {
    kind.code: kind for kind in TrimtabError.__subclasses__()
}
_CODES = {code.value[0]: code for code in grpc.StatusCode}


def from_rpc_error(
    error: grpc.RpcError, *, target: str, timeout_s: float, request_id: str = ""
) -> TrimtabError:
    """The readable form of a failed call, sync or async.

    Args:
        error: what gRPC raised.
        target: the address that was called.
        timeout_s: the deadline that the call had, in seconds.
        request_id: the request's, if it carries one.
    """
    code = error.code()
    message = error.details() or code.name.lower().replace("_", " ")
    details = _read_details(error)
    violations, request_id = details.violations, details.request_id or request_id
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return InvalidArgument(message, request_id, violations)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED and message.lower() == "deadline exceeded":
        message = f"{target} gave no answer within {timeout_s:g} s"
    elif code is grpc.StatusCode.UNAVAILABLE:
        message = f"{target} is unavailable: {message}"
    return ERRORS.get(code, TrimtabError)(message, request_id)


def from_element_error(element: ElementError) -> TrimtabError:
    """The error of one element of a batch, as the same request alone would have raised it."""
    code = _CODES.get(element.code, grpc.StatusCode.UNKNOWN)
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        named = (FieldViolation(element.field, element.message),) if element.field else ()
        return InvalidArgument(element.message, violations=named)
    return ERRORS.get(code, TrimtabError)(element.message)


class _Details(NamedTuple):
    violations: tuple[FieldViolation, ...]
    request_id: str


def _read_details(error: grpc.RpcError) -> _Details:
    """The google.rpc details of a status, as far as they can be read."""
    violations: list[FieldViolation] = []
    request_id = ""
    try:
        status: status_pb2.Status | None = rpc_status.from_call(error)
        for detail in status.details if status else ():
            bad_request, request_info = (
                error_details_pb2.BadRequest(),
                error_details_pb2.RequestInfo(),
            )
            if detail.Unpack(bad_request):
                violations += [
                    FieldViolation(v.field, v.description) for v in bad_request.field_violations
                ]
            elif detail.Unpack(request_info):
                request_id = request_info.request_id
    except (
        ValueError,
        DecodeError,
    ):  # details that contradict the status, or are none: some proxy's
        return _Details((), "")
    return _Details(tuple(violations), request_id)
