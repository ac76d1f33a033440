"""Reads from Redis that are asked for at about the same time go there together.

Each round trip costs a turn of the event loop at either end, and under load a turn is long: many
reads on connections of their own would time out while Redis answers at once.
"""

import asyncio
from collections import deque
from contextlib import suppress
from typing import Any

MOST_TOGETHER = 256


class SharedReads:
    """MGETs of one client: those asked for while others are under way become the next pipeline.

    Args:
        client: A redis.asyncio client.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._waiting: deque[tuple[tuple[str, ...], asyncio.Future[Any]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def mget(self, *keys: str) -> list[bytes | None]:
        """The values of keys of one user; raises what redis-py raises."""
        answer: asyncio.Future[list[bytes | None]] = asyncio.get_running_loop().create_future()
        self._waiting.append((keys, answer))
        if self._task is None:
            self._task = asyncio.create_task(self._read())
        return await answer

    async def close(self) -> None:
        """Ends what is under way: nobody waits for it any more."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _read(self) -> None:
        try:
            while self._waiting:
                count = min(len(self._waiting), MOST_TOGETHER)
                batch = [self._waiting.popleft() for _ in range(count)]
                found = await self._answers([keys for keys, _ in batch])
                for (_, answer), values in zip(batch, found, strict=True):
                    if answer.done():  # nobody waits for it any more
                        continue
                    if isinstance(values, Exception):
                        answer.set_exception(values)
                    else:
                        answer.set_result(values)
        finally:
            self._task = None

    async def _answers(self, batch: list[tuple[str, ...]]) -> list[Any]:
        try:
            async with self._client.pipeline(transaction=False) as pipeline:
                for keys in batch:
                    pipeline.mget(*keys)
                found: list[Any] = await pipeline.execute(raise_on_error=False)
                return found
        except Exception as error:
            return [error] * len(batch)
