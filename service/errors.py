"""One error tree, translated to gRPC status codes in one place.

Messages say what was found and what was expected. An exception that is not in the tree is a fault
of ours: it is logged with its trace, and the caller sees an id, never the text.
"""

import grpc

MAX_MESSAGE = 400
"""Characters; gRPC sends them percent-encoded and, in details, twice more, in 8 KiB."""


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
