"""How this service talks to Redis: connections, and faults by one name."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from service.errors import StoreUnavailable

MAX_CONNECTIONS = 1_000
"""More than calls in flight; redis-py's own limit of 100 would turn a slow Redis into one that seems gone."""


def connect(url: str, timeout_s: float) -> Any:  # the stubs cannot tell bytes from str replies
    """A client for redis://, rediss:// or unix://; it connects when it is first used."""
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
    await asyncio.sleep(0)  # redis-py closes its sockets without waiting for the loop to do so


@contextmanager
def answering() -> Iterator[None]:
    """What Redis or the way to it does wrong inside becomes StoreUnavailable."""
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        raise StoreUnavailable(f"Redis: {type(error).__name__}: {error}") from error
