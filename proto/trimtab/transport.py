"""Transport of the synchronous client: channels of grpc, closing, streams and threads."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import TypeVar

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


class Transport:
    """Sends calls over a pool of channels. Threads may share it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._metadata = authorization(connection.token)
        self._channels = [_open(connection, index) for index in range(connection.channels)]
        self._turns = round_robin([stubs(channel) for channel in self._channels])

    def stubs(self) -> Stubs:
        """Returns the stubs of the next channel."""
        return next(self._turns)

    def call(
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
            return rpc(request, timeout=deadline_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise from_rpc_error(
                error,
                target=self.connection.target,
                timeout_s=deadline_s,
                request_id=getattr(request, "request_id", ""),
            ) from error

    def stream(
        self, rpc: Callable[..., Iterator[_Response]], request: Message, timeout_s: float | None
    ) -> Generator[_Response, None, None]:
        """Sends one call and yields its replies as they arrive.

        Raises:
            TrimtabError: the call failed.
        """
        deadline_s = self._deadline(timeout_s)
        try:
            yield from rpc(request, timeout=deadline_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise from_rpc_error(
                error, target=self.connection.target, timeout_s=deadline_s
            ) from error

    def record(
        self, interactions: Iterable[InteractionLike], options: recording.RecordOptions
    ) -> RecordTotals:
        """Sends interactions in several calls at a time; see `Client.record`."""
        totals = RecordTotals()
        pending: list[Future[RecordTotals]] = []
        with ThreadPoolExecutor(options.calls_in_flight, "trimtab-record") as pool:
            try:
                for window in recording.windows(interactions):
                    jobs = list(recording.jobs(window, options.call_events))
                    # One window after the other, because two windows may contain the same user.
                    _drain(pending, totals, options)
                    pending = [pool.submit(self._record_job, job, options) for job in jobs]
                _drain(pending, totals, options)
            except BaseException as error:
                pool.shutdown(wait=False, cancel_futures=True)
                recording.note_totals(error, totals)
                raise
        return totals

    def sleep(self, duration_s: float) -> None:
        """Waits."""
        time.sleep(duration_s)

    def close(self) -> None:
        """Closes the channels and ends calls that are under way."""
        for channel in self._channels:
            channel.close()

    def _deadline(self, timeout_s: float | None) -> float:
        return self.connection.timeout_s if timeout_s is None else check_timeout(timeout_s)

    def _record_job(self, job: recording.Job, options: recording.RecordOptions) -> RecordTotals:
        totals = RecordTotals()
        for request in job:
            rpc = self.stubs().recommendation.RecordInteractions
            reply = self.call(rpc, request, options.timeout_s)
            totals.add_call(len(request.interactions), reply)
        return totals


def _open(connection: Connection, index: int) -> grpc.Channel:
    options = channel_options(index)
    if connection.credentials is None:
        return grpc.insecure_channel(connection.target, options)
    return grpc.secure_channel(connection.target, connection.credentials, options)


def _drain(
    pending: list[Future[RecordTotals]], totals: RecordTotals, options: recording.RecordOptions
) -> None:
    for future in as_completed(pending):
        totals.add(future.result())
        if options.progress is not None:
            options.progress(totals)
