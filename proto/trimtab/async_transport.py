"""Transport of the asynchronous client: channels of grpc.aio, closing, streams and concurrency."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from trimtab import recording
from trimtab.argument_types import InteractionLike
from trimtab.connection import (
    Connection,
    Stubs,
    authorization,
    channel_options,
    check_timeout,
    round_robin,
    stubs,
)
from trimtab.errors import from_rpc_error
from trimtab.recording import RecordTotals

_Response = TypeVar("_Response")


class AsyncTransport:
    """Sends calls over a pool of channels, which belong to the event loop of the first call."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._metadata = authorization(connection.token)
        self._channels: list[grpc.aio.Channel] = []
        self._turns: Iterator[Stubs] = iter(())

    def stubs(self) -> Stubs:
        """Returns the stubs of the next channel. Opens the channels at the first call."""
        if not self._channels:  # only here is it certain that their event loop is running
            count = self.connection.channels
            self._channels = [_open(self.connection, index) for index in range(count)]
            self._turns = round_robin([stubs(channel) for channel in self._channels])
        return next(self._turns)

    async def call(
        self,
        rpc: Callable[..., _Response],
        request: Message | Iterable[Message],
        timeout_s: float | None,
    ) -> _Response:
        """Sends one call and returns its reply; None is the connection's default timeout.

        Raises:
            TrimtabError: the call failed.
        """
        deadline_s = self._deadline(timeout_s)
        try:
            # The stubs are typed as the sync ones; over an aio channel a call is awaited.
            pending: Any = rpc(request, timeout=deadline_s, metadata=self._metadata)
            reply: _Response = await pending
        except grpc.RpcError as error:
            raise from_rpc_error(
                error,
                target=self.connection.target,
                timeout_s=deadline_s,
                request_id=getattr(request, "request_id", ""),
            ) from error
        return reply

    async def stream(
        self, rpc: Callable[..., Iterator[_Response]], request: Message, timeout_s: float | None
    ) -> AsyncGenerator[_Response, None]:
        """Sends one call and yields its replies as they arrive.

        Raises:
            TrimtabError: the call failed.
        """
        deadline_s = self._deadline(timeout_s)
        try:
            call: Any = rpc(request, timeout=deadline_s, metadata=self._metadata)
            async for reply in call:
                yield reply
        except grpc.RpcError as error:
            raise from_rpc_error(
                error, target=self.connection.target, timeout_s=deadline_s
            ) from error

    async def record(
        self, interactions: Iterable[InteractionLike], options: recording.RecordOptions
    ) -> RecordTotals:
        """Sends interactions in several calls at a time; see `AsyncClient.record`.

        Messages are built on the event loop, but not more at a time than are sent together, so that
        other tasks do not wait long.
        """
        totals = RecordTotals()
        permits = asyncio.Semaphore(options.calls_in_flight)
        window_events = options.call_events * options.calls_in_flight
        try:
            for window in recording.windows(interactions, window_events):
                # One window after the other, because two windows may contain the same user.
                async with asyncio.TaskGroup() as group:
                    for job in recording.jobs(window, options.call_events):
                        group.create_task(self._record_job(job, permits, totals, options))
        except BaseExceptionGroup as errors:
            # The first error is the cause; it cancelled the other tasks.
            error = errors.exceptions[0]
            recording.note_totals(error, totals)
            raise error from error.__cause__
        return totals

    async def sleep(self, duration_s: float) -> None:
        """Waits without blocking the event loop."""
        await asyncio.sleep(duration_s)

    async def close(self) -> None:
        """Closes the channels and ends calls that are under way."""
        await asyncio.gather(*(channel.close() for channel in self._channels))

    def _deadline(self, timeout_s: float | None) -> float:
        return self.connection.timeout_s if timeout_s is None else check_timeout(timeout_s)

    async def _record_job(
        self,
        job: recording.Job,
        permits: asyncio.Semaphore,
        totals: RecordTotals,
        options: recording.RecordOptions,
    ) -> None:
        async with permits:
            for request in job:
                rpc = self.stubs().recommendation.RecordInteractions
                reply = await self.call(rpc, request, options.timeout_s)
                totals.add_call(len(request.interactions), reply)
                if options.progress is not None:
                    options.progress(totals)


def _open(connection: Connection, index: int) -> grpc.aio.Channel:
    options = channel_options(index)
    if connection.credentials is None:
        return grpc.aio.insecure_channel(connection.target, options)
    return grpc.aio.secure_channel(connection.target, connection.credentials, options)
