"""Defines the errors of the service: one tree, free of gRPC.

`service.api.status` translates them to gRPC status codes. Messages name what was expected and what
was found. An exception that is not in the tree is a defect of the server: it is logged with its
trace, and the caller sees an id, never the text.
"""

from collections.abc import Iterable
from enum import Enum

MAX_MESSAGE = 400
"""Characters; gRPC sends them percent-encoded and, in details, twice more, in 8 KiB."""

MAX_QUOTED = 100
"""Characters of a caller's text that a message repeats."""


class Code(Enum):
    """Kinds of refusal; each has the name of its gRPC status code."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    UNAVAILABLE = "UNAVAILABLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    INTERNAL = "INTERNAL"


class ServiceError(Exception):
    """Base of the errors whose message a caller may see."""

    code = Code.INTERNAL


class InvalidRequest(ServiceError):
    """The request has a value that is not allowed.

    Attributes:
        field: Path of the field at fault, for instance "steering.edits[0].strength".
        description: What was expected and what was found.
    """

    code = Code.INVALID_ARGUMENT

    def __init__(self, field: str, description: str) -> None:
        self.field = field
        self.description = shortened(description)
        super().__init__(f"{field}: {self.description}" if field else self.description)


def unexpected(field: str, expected: object, found: object) -> InvalidRequest:
    """Returns the refusal of a field's value, in the one pattern of all refusals."""
    return InvalidRequest(field, f"expected {expected}, found {found}")


class Misfit(ServiceError):
    """A value of the request does not fit the bundle; the decoder adds the field's path."""

    code = Code.INVALID_ARGUMENT


class UnknownBundle(Misfit):
    """No loaded bundle has this id, prefix of an id, or label."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        bundles = ", ".join(known) or "none"
        super().__init__(
            f"expected a label or an id of a loaded bundle ({bundles}), found {quoted(name)}"
        )


class UnknownAttribute(Misfit):
    """The bundle's items have no attribute of this name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        attributes = ", ".join(known) or "none"
        super().__init__(f"expected one of: {attributes}; found {quoted(name)}")


class UnfitCondition(Misfit):
    """A condition does not fit its attribute's kind."""


class EditsOutOfRange(Misfit):
    """The edits together move the user embedding beyond float32."""

    def __init__(self) -> None:
        super().__init__(
            "expected a finite change, found edits that together leave the range of numbers"
        )


class NotFound(ServiceError):
    """The request names something that does not exist."""

    code = Code.NOT_FOUND


class PreconditionFailed(ServiceError):
    """The request needs a state of the server that it is not in."""

    code = Code.FAILED_PRECONDITION


class Unsupported(ServiceError):
    """The request uses a part of the API that this release does not serve."""

    code = Code.UNIMPLEMENTED


class Overloaded(ServiceError):
    """No permit is left, and nothing was done."""

    code = Code.RESOURCE_EXHAUSTED


class StoreUnavailable(ServiceError):
    """Redis did not answer, and the call needs it."""

    code = Code.UNAVAILABLE


class DeadlineExpired(ServiceError):
    """The caller's deadline passed before the work was done."""

    code = Code.DEADLINE_EXCEEDED


class StartError(Exception):
    """The server cannot start, for the reason that the message gives in one line."""


def shortened(text: str) -> str:
    """Returns a message that fits into gRPC's metadata, whatever text of the caller it quotes."""
    return text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]}..."


def quoted(text: str) -> str:
    """Returns a text of the caller in quotation marks, cut after 100 characters."""
    return repr(text) if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]!r}..."
