"""Connects to Redis, and turns its errors into StoreUnavailable."""

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import MaxConnectionsError, NoScriptError, RedisError, ResponseError

from service.errors import StoreUnavailable

MAX_CONNECTIONS = 1_000
"""Connections of one client; above the calls in flight.

redis-py's default of 100 would make a slow Redis look like one that is gone.
"""

PAUSE_S = 1.0
"""Seconds without calls after an outage, so that requests do not each wait for a timeout."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


def connect(url: str, timeout_s: float) -> Any:  # the stubs cannot tell bytes from str replies
    """Makes a client for a redis://, rediss:// or unix:// URL; it connects when it is first used.

    Args:
        url: Where Redis is.
        timeout_s: Longest time to connect, and to wait for an answer.
    """
    return redis.Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 1),
        max_connections=MAX_CONNECTIONS,
        protocol=3,
    )


async def disconnect(*clients: Any) -> None:
    """Closes the clients' connections."""
    for client in clients:
        await client.aclose()
    await asyncio.sleep(0)  # redis-py closes its sockets in the loop's next iteration


@contextmanager
def answering() -> Iterator[None]:
    """Turns errors of Redis, and of the way to it, into StoreUnavailable."""
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        raise StoreUnavailable(f"Redis: {type(error).__name__}: {error}") from error


class CircuitBreaker:
    """Stops calls to Redis for a moment after an outage.

    Args:
        on_recovery: Called when Redis answers again.
    """

    def __init__(self, on_recovery: Callable[[], None]) -> None:
        self._on_recovery = on_recovery
        self._open_until = 0.0

    async def run(self, call: Awaitable[T]) -> T:
        """Awaits a call to Redis.

        Raises:
            StoreUnavailable: the call failed, or was not made because of a recent outage.
        """
        if time.monotonic() < self._open_until:
            if asyncio.iscoroutine(call):
                call.close()
            raise StoreUnavailable("Redis did not answer a moment ago")
        try:
            with answering():
                result = await call
        except StoreUnavailable as error:
            if _is_outage(error.__cause__):
                self._open(error.__cause__)
            raise
        if self._open_until:
            _log.info("Redis answers again")
            self._open_until = 0.0
            self._on_recovery()
        return result

    def _open(self, error: BaseException | None) -> None:
        if not self._open_until:
            _log.warning(
                "Redis is gone, lists go on without it: %s: %s", type(error).__name__, error
            )
        self._open_until = time.monotonic() + PAUSE_S


class ScriptCall(NamedTuple):
    """The keys and arguments of one call of a Lua script."""

    keys: Sequence[str]
    arguments: Sequence[object]


async def run_script(client: Any, script: str, calls: Sequence[ScriptCall]) -> list[object]:
    """Runs a Lua script for each of several calls, in one pipeline.

    Args:
        client: A redis.asyncio client.
        script: The source; loaded if the server does not know it.
        calls: At least one.

    Returns:
        The script's result for each call; raises the first error of redis-py.
    """
    digest = hashlib.sha1(script.encode()).hexdigest()
    for _ in range(2):
        async with client.pipeline(transaction=False) as pipeline:
            for call in calls:
                pipeline.evalsha(digest, len(call.keys), *call.keys, *call.arguments)
            results = await pipeline.execute(raise_on_error=False)
        if not any(isinstance(result, NoScriptError) for result in results):
            break
        await client.script_load(script)
    for result in results:
        if isinstance(result, Exception):
            raise result
    return list(results)


def _is_outage(error: BaseException | None) -> bool:
    """Returns whether an error means that Redis is gone.

    An error reply, for instance about full memory, is an answer. A busy connection pool says
    nothing about the server.
    """
    return error is not None and not isinstance(error, ResponseError | MaxConnectionsError)
