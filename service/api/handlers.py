"""Turns methods into gRPC handlers: bytes in and out, permit, deadline, metrics, and status codes.

Messages are parsed here and not by grpc.aio, whose own deserialiser answers UNKNOWN with the
exception's text before any handler runs.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NoReturn, Protocol

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from trimtab.v1.recommendation_pb2 import (
    PRIORITY_HIGH,
    PRIORITY_LOW,
    PRIORITY_UNSPECIFIED,
    ElementError,
)

from service.admission.permits import Admission, Priority
from service.api.status import to_wire
from service.errors import InvalidRequest, Overloaded, Unsupported, unexpected
from service.telemetry.metrics import Metrics

BATCH_PARALLEL = 8
"""Elements of a batch that are answered at once; a batch takes as many permits."""

_PRIORITIES = {PRIORITY_LOW: Priority.LOW, PRIORITY_HIGH: Priority.HIGH}


class Call(Protocol):
    """Gives a method information about its call."""

    def remaining_s(self) -> float:
        """Returns the seconds until the caller's deadline; infinite if there is none."""


Context = grpc.aio.ServicerContext[Any, Any]

Method = Callable[[Any, Call], Awaitable[Message]]
"""Answers one message with one.

Where the .proto file has a stream of requests, it gets an AsyncIterator.
"""

StreamingMethod = Callable[[Any, Call], AsyncIterator[Message]]
"""Answers one message with a stream."""

_UnaryBehaviour = Callable[[Any, Context], Awaitable[bytes]]

_StreamBehaviour = Callable[[bytes, Context], AsyncIterator[bytes]]


@dataclass(frozen=True)
class Gate:
    """The permits and metrics that all methods share."""

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
    """Returns handlers for all methods of a service.

    A method without an implementation answers UNIMPLEMENTED.
    """
    return grpc.method_handlers_generic_handler(
        service.full_name,
        {
            method.name: _handler(service, method, methods.get(method.name), gate)
            for method in service.methods
        },
    )


def _handler(
    service: ServiceDescriptor, method: MethodDescriptor, implementation: Any, gate: Gate
) -> "grpc.RpcMethodHandler[Any, Any]":
    if implementation is None:
        implementation = _unimplemented(f"{service.name}.{method.name}")
    monitor = _Monitor(method.name, gate)
    request_type = GetMessageClass(method.input_type)
    if method.client_streaming:
        read_stream = partial(_parse_stream, request_type)
        return grpc.stream_unary_rpc_method_handler(
            _unary_behaviour(implementation, read_stream, monitor)
        )
    if method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(
            _stream_behaviour(implementation, request_type, monitor)
        )
    return grpc.unary_unary_rpc_method_handler(
        _unary_behaviour(implementation, partial(_parse, request_type), monitor)
    )


class _Monitor:
    """Counts and times the calls of one method, and ends failed calls with a status code."""

    def __init__(self, method_name: str, gate: Gate) -> None:
        self.admission = gate.admission
        self._metrics = gate.metrics
        self._seconds = cache(partial(gate.metrics.request_seconds.labels, method_name))
        self._increase = gate.metrics.in_flight.inc
        self._decrease = gate.metrics.in_flight.dec

    def begin(self) -> float:
        """Counts a call that begins; returns its start by time.perf_counter()."""
        self._increase()
        return time.perf_counter()

    def end(self, start: float, code: grpc.StatusCode = grpc.StatusCode.OK) -> None:
        """Counts a call that ends."""
        self._decrease()
        self._seconds(code.name).observe(time.perf_counter() - start)

    async def fail(self, error: BaseException, context: Context, start: float) -> NoReturn:
        """Ends a call with the status of an exception."""
        if not isinstance(error, Exception):
            # grpc cancels a call when its deadline passes, too, and then the server was too slow.
            is_late = _Call(context).remaining_s() <= 0
            code = grpc.StatusCode.DEADLINE_EXCEEDED if is_late else grpc.StatusCode.CANCELLED
            self.end(start, code)
            raise error
        if isinstance(error, Overloaded):
            self._metrics.rejected.labels("permits").inc()
        status = to_wire(error)
        self.end(start, status.code)
        await context.abort(status.code, status.message, status.metadata)
        raise AssertionError("abort raises")


def _unary_behaviour(
    implementation: Method, read: Callable[[Any], Any], monitor: _Monitor
) -> _UnaryBehaviour:
    """Returns gRPC's behaviour of a method with one reply.

    Args:
        implementation: The method.
        read: Makes the request of a message's bytes, or of a stream of them.
        monitor: Counts the calls.
    """

    async def behave(data: Any, context: Context) -> bytes:
        start = monitor.begin()
        try:
            request = read(data)
            with monitor.admission.permit(_priority(request), _permit_count(request)):
                response = await implementation(request, _Call(context))
            encoded = response.SerializeToString()
        except BaseException as error:
            await monitor.fail(error, context, start)
        monitor.end(start)
        return encoded

    return behave


def _stream_behaviour(
    implementation: StreamingMethod, request_type: type[Message], monitor: _Monitor
) -> _StreamBehaviour:
    """Returns gRPC's behaviour of a method with a stream of replies."""

    async def behave(data: bytes, context: Context) -> AsyncIterator[bytes]:
        start = monitor.begin()
        try:
            request = _parse(request_type, data)
            with monitor.admission.permit(_priority(request), 1):
                async for response in implementation(request, _Call(context)):
                    yield response.SerializeToString()
        except BaseException as error:
            await monitor.fail(error, context, start)
        monitor.end(start)

    return behave


def element_error(error: Exception) -> ElementError:
    """Returns the status of one element of a batch."""
    status = to_wire(error)
    code = status.code.value[0]
    if isinstance(error, InvalidRequest):
        return ElementError(code=code, message=error.description, field=error.field)
    return ElementError(code=code, message=status.message)


def _parse_stream(
    request_type: type[Message], stream: AsyncIterator[bytes]
) -> AsyncIterator[Message]:
    return (_parse(request_type, data) async for data in stream)


def _parse(request_type: type[Message], data: bytes) -> Message:
    try:
        return request_type.FromString(data)
    except DecodeError:
        name = request_type.DESCRIPTOR.name
        found = f"{len(data)} bytes that cannot be parsed"
        raise unexpected("", f"a {name} with text in UTF-8", found) from None


def _priority(request: object) -> Priority:
    """Returns a request's priority; that of a stream is normal."""
    return _PRIORITIES.get(getattr(request, "priority", PRIORITY_UNSPECIFIED), Priority.NORMAL)


def _permit_count(request: object) -> int:
    """Returns the number of permits that a request, or a stream of requests, takes."""
    return max(1, min(BATCH_PARALLEL, len(getattr(request, "requests", ()))))


def _unimplemented(name: str) -> Method:
    async def refuse(_request: Message, _call: Call) -> Message:
        raise Unsupported(f"{name} is not served yet")

    return refuse
