"""How a method meets the wire: bytes in, permit, deadline, metrics, and errors as status codes.

Messages are parsed here and not by grpc.aio, whose own deserialiser answers UNKNOWN with the exception's text
before any handler runs.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from trimtab.v1.recommendation_pb2 import ElementError

from service.admission import Admission, Priority
from service.errors import InvalidRequest, Overloaded, Unsupported, to_wire
from service.metrics import Metrics

BATCH_PARALLEL = 8
"""Elements of a batch that are answered at once."""


class Call(Protocol):
    """What a method may ask about its call."""

    def remaining_s(self) -> float:
        """Seconds until the caller's deadline; infinite if there is none."""


Method = Callable[[Any, Call], Awaitable[Message]]


@dataclass(frozen=True)
class Gate:
    """What every call passes."""

    admission: Admission
    metrics: Metrics


class _Call:
    def __init__(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        self._context = context

    def remaining_s(self) -> float:
        remaining = self._context.time_remaining()
        return float("inf") if remaining is None else remaining


def handlers(service: ServiceDescriptor, methods: Mapping[str, Method], gate: Gate) -> grpc.GenericRpcHandler:
    """Handlers for all methods of a service; those without an implementation answer UNIMPLEMENTED."""
    made: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for method in service.methods:
        implementation = methods.get(method.name) or _unimplemented(f"{service.name}.{method.name}")
        request_type = GetMessageClass(method.input_type)
        if method.client_streaming or method.server_streaming:
            continue  # grpc answers UNIMPLEMENTED
        made[method.name] = grpc.unary_unary_rpc_method_handler(
            _behaviour(method.name, implementation, request_type, gate)
        )
    return grpc.method_handlers_generic_handler(service.full_name, made)


def _behaviour(
    name: str, implementation: Method, request_type: type[Message], gate: Gate
) -> Callable[[bytes, grpc.aio.ServicerContext[Any, Any]], Awaitable[bytes]]:
    seconds = gate.metrics.request_seconds
    in_time = seconds.labels(name, grpc.StatusCode.OK.name)

    async def behave(data: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        start = time.perf_counter()
        gate.metrics.in_flight.inc()
        try:
            request = _parse(data, request_type)
            with gate.admission.permit(_priority(request), _size(request)):
                response = (await implementation(request, _Call(context))).SerializeToString()
            in_time.observe(time.perf_counter() - start)
        except asyncio.CancelledError:
            # grpc cancels a call when its deadline passes, too: that is the server's to answer for.
            late = _Call(context).remaining_s() <= 0
            code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
            seconds.labels(name, code.name).observe(time.perf_counter() - start)
            raise
        except Exception as error:
            if isinstance(error, Overloaded):
                gate.metrics.rejected.labels("permits").inc()
            status = to_wire(error)
            seconds.labels(name, status.code.name).observe(time.perf_counter() - start)
            await context.abort(status.code, status.message, status.metadata)
        finally:
            gate.metrics.in_flight.dec()
        return response

    return behave


def element_error(error: Exception) -> ElementError:
    """The status of one element of a batch."""
    code, message, _ = to_wire(error)
    if isinstance(error, InvalidRequest):
        return ElementError(code=code.value[0], message=error.description, field=error.field)
    return ElementError(code=code.value[0], message=message)


def _parse(data: bytes, request_type: type[Message]) -> Message:
    try:
        return request_type.FromString(data)
    except DecodeError:
        raise InvalidRequest(
            "",
            f"found {len(data)} bytes that are no {request_type.DESCRIPTOR.name}, or text that is not UTF-8",
        ) from None


def _priority(request: Message) -> Priority:
    wanted = getattr(request, "priority", 0)
    return {1: Priority.LOW, 3: Priority.HIGH}.get(wanted, Priority.NORMAL)


def _size(request: Message) -> int:
    """How many permits a request takes."""
    return max(1, min(BATCH_PARALLEL, len(getattr(request, "requests", ()))))


def _unimplemented(name: str) -> Method:
    async def refuse(request: Message, call: Call) -> Message:
        raise Unsupported(f"{name} is not served yet")

    return refuse
