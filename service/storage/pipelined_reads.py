"""Combines concurrent reads from Redis into pipelines.

Each round trip takes an iteration of the event loop on either side, and under load an iteration is
long: many reads on separate connections would time out although Redis answers at once.
"""

import asyncio
from collections import deque
from contextlib import suppress
from typing import Any

MAX_READS = 256
"""Reads in one pipeline. More would delay the first of them."""


class SharedReads:
    """Sends MGETs of one client: those requested while a pipeline is under way form the next one.

    Args:
        client: A redis.asyncio client.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._waiting: deque[tuple[tuple[str, ...], asyncio.Future[Any]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def mget(self, *keys: str) -> list[bytes | None]:
        """Returns the values of keys of one user; raises what redis-py raises."""
        answer: asyncio.Future[list[bytes | None]] = asyncio.get_running_loop().create_future()
        self._waiting.append((keys, answer))
        if self._task is None:
            self._task = asyncio.create_task(self._send())
        return await answer

    async def close(self) -> None:
        """Cancels the pipeline that is under way; its callers are gone."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _send(self) -> None:
        """Sends pipelines until no read waits."""
        try:
            while self._waiting:
                count = min(len(self._waiting), MAX_READS)
                batch = [self._waiting.popleft() for _ in range(count)]
                results = await self._execute([keys for keys, _ in batch])
                for (_, answer), result in zip(batch, results, strict=True):
                    if answer.done():  # its caller has left
                        continue
                    if isinstance(result, Exception):
                        answer.set_exception(result)
                    else:
                        answer.set_result(result)
        finally:
            self._task = None

    async def _execute(self, batch: list[tuple[str, ...]]) -> list[Any]:
        """Runs one pipeline: for each read its values, or the exception that it raised."""
        try:
            async with self._client.pipeline(transaction=False) as pipeline:
                for keys in batch:
                    pipeline.mget(*keys)
                results: list[Any] = await pipeline.execute(raise_on_error=False)
                return results
        except Exception as error:
            return [error] * len(batch)
