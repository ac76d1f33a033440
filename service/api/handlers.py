"""How a method meets the wire: bytes in, permit, deadline, metrics, and errors as status codes.

Messages are parsed here and not by grpc.aio, whose own deserialiser answers UNKNOWN with the
exception's text before any handler runs.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NoReturn, Protocol

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from trimtab.v1.recommendation_pb2 import ElementError

from service.admission.permits import Admission, Priority
from service.api.status import to_wire
from service.errors import InvalidRequest, Overloaded, Unsupported
from service.telemetry.metrics import Metrics

BATCH_PARALLEL = 8
"""Elements of a batch that are answered at once."""


_PRIORITIES = {1: Priority.LOW, 3: Priority.HIGH}


class Call(Protocol):
    """What a method may ask about its call."""

    def remaining_s(self) -> float:
        """Seconds until the caller's deadline; infinite if there is none."""


Context = grpc.aio.ServicerContext[Any, Any]


Method = Callable[[Any, Call], Awaitable[Message]]
"""Answers one message with one; where the .proto file has a stream of requests, it gets an AsyncIterator."""


StreamingMethod = Callable[[Any, Call], AsyncIterator[Message]]
"""Answers one message with a stream."""


@dataclass(frozen=True)
class Gate:
    """What every call passes."""

    admission: Admission
    metrics: Metrics


class _Call:
    def __init__(self, context: Context) -> None:
        self._context = context

    def remaining_s(self) -> float:
        remaining = self._context.time_remaining()
        return float("inf") if remaining is None else remaining


def handlers(
    service: ServiceDescriptor, methods: Mapping[str, Method | StreamingMethod], gate: Gate
) -> grpc.GenericRpcHandler:
    """Handlers for all methods of a service; those without an implementation answer UNIMPLEMENTED."""
    made: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for method in service.methods:
        implementation: Any = methods.get(method.name) or _unimplemented(
            f"{service.name}.{method.name}"
        )
        passage = _Passage(method.name, gate)
        request_type = GetMessageClass(method.input_type)
        if method.client_streaming:
            behave = _behaviour(implementation, partial(_parse_stream, request_type), passage)
            made[method.name] = grpc.stream_unary_rpc_method_handler(behave)
        elif method.server_streaming:
            stream = _writing_stream(implementation, request_type, passage)
            made[method.name] = grpc.unary_stream_rpc_method_handler(stream)
        else:
            behave = _behaviour(implementation, partial(_parse, request_type), passage)
            made[method.name] = grpc.unary_unary_rpc_method_handler(behave)
    return grpc.method_handlers_generic_handler(service.full_name, made)


class _Passage:
    """What is around every call of one method: permit, metrics, and errors as status codes."""

    def __init__(self, name: str, gate: Gate) -> None:
        self.admission = gate.admission
        self._metrics = gate.metrics
        self._seconds = cache(partial(gate.metrics.request_seconds.labels, name))
        self._enter, self._leave = gate.metrics.in_flight.inc, gate.metrics.in_flight.dec

    def enter(self) -> float:
        """Counts a call that begins; returns when that was."""
        self._enter()
        return time.perf_counter()

    def leave(self, start: float, code: grpc.StatusCode = grpc.StatusCode.OK) -> None:
        """Counts a call that ends."""
        self._leave()
        self._seconds(code.name).observe(time.perf_counter() - start)

    async def fail(self, error: BaseException, context: Context, start: float) -> NoReturn:
        """Ends a call with the status of what was raised."""
        if not isinstance(error, Exception):
            # grpc cancels a call when its deadline passes, too: that is the server's to answer for.
            late = _Call(context).remaining_s() <= 0
            self.leave(
                start, grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
            )
            raise error
        if isinstance(error, Overloaded):
            self._metrics.rejected.labels("permits").inc()
        status = to_wire(error)
        self.leave(start, status.code)
        await context.abort(status.code, status.message, status.metadata)
        raise AssertionError("abort raises")


def _behaviour(
    implementation: Method, read: Callable[[Any], Any], passage: _Passage
) -> Callable[[Any, Context], Awaitable[bytes]]:
    """Read makes the request of what grpc gives: of a message's bytes, or of a stream of them."""

    async def behave(data: Any, context: Context) -> bytes:
        start = passage.enter()
        try:
            request = read(data)
            with passage.admission.permit(_priority(request), _size(request)):
                response = await implementation(request, _Call(context))
            answer = response.SerializeToString()
        except BaseException as error:
            await passage.fail(error, context, start)
        passage.leave(start)
        return answer

    return behave


def _writing_stream(
    implementation: StreamingMethod, request_type: type[Message], passage: _Passage
) -> Callable[[bytes, Context], AsyncIterator[bytes]]:
    async def behave(data: bytes, context: Context) -> AsyncIterator[bytes]:
        start = passage.enter()
        try:
            request = _parse(request_type, data)
            with passage.admission.permit(_priority(request), 1):
                async for response in implementation(request, _Call(context)):
                    yield response.SerializeToString()
        except BaseException as error:
            await passage.fail(error, context, start)
        passage.leave(start)

    return behave


def element_error(error: Exception) -> ElementError:
    """The status of one element of a batch."""
    code, message, _ = to_wire(error)
    if isinstance(error, InvalidRequest):
        return ElementError(code=code.value[0], message=error.description, field=error.field)
    return ElementError(code=code.value[0], message=message)


def _parse_stream(
    request_type: type[Message], stream: AsyncIterator[bytes]
) -> AsyncIterator[Message]:
    return (_parse(request_type, data) async for data in stream)


def _parse(request_type: type[Message], data: bytes) -> Message:
    try:
        return request_type.FromString(data)
    except DecodeError:
        raise InvalidRequest(
            "",
            f"found {len(data)} bytes that are no {request_type.DESCRIPTOR.name}, or text that is not UTF-8",
        ) from None


def _priority(request: object) -> Priority:
    """A request's own; a stream's is the normal one."""
    return _PRIORITIES.get(getattr(request, "priority", 0), Priority.NORMAL)


def _size(request: object) -> int:
    """How many permits a request, or a stream of them, takes."""
    return max(1, min(BATCH_PARALLEL, len(getattr(request, "requests", ()))))


def _unimplemented(name: str) -> Method:
    async def refuse(request: Message, call: Call) -> Message:
        raise Unsupported(f"{name} is not served yet")

    return refuse
