"""What one cached user embedding takes in Redis: python benchmarks/memory.py [--users N] [--d D] [--k K].

Fills an embedded Valkey through the service's own store, and divides the growth of used_memory, which holds
keys, expiry and the server's own tables, by the number of users.
"""

import argparse
import asyncio
import tempfile
from pathlib import Path

import numpy as np
import redis.asyncio as redis

from service.blobs import CachedEmbedding, RecordedEvent
from service.embedded import embedded_valkey
from service.encoding import UserState
from service.precision import Precision
from service.steering import SparseCode
from service.userstate import UserStore

MODEL = "0123456789ab"
N_NEURONS = 4_096
AT_ONCE = 200


async def measure(users: int, d: int, k: int, precision: Precision) -> tuple[float, int]:
    """Bytes a user by the growth of used_memory, and by MEMORY USAGE of one key."""
    draw = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        async with embedded_valkey(Path(folder)) as url, redis.Redis.from_url(url) as client:
            store = UserStore(
                url,
                max_history=100,
                history_ttl_s=0,
                embedding_ttl_s=604_800,
                timeout_s=10,
                precision=precision,
            )

            async def cache(name: str) -> None:
                neurons = np.sort(draw.choice(N_NEURONS, k, replace=False))
                code = SparseCode(neurons, precision.rounded(draw.random(k).astype(np.float32)))
                state = UserState(precision.rounded(draw.normal(size=d).astype(np.float32)), code)
                stamp = (await store.read(name, None)).stamp
                await store.remember(name, MODEL, stamp, CachedEmbedding(state, 0))

            names = [f"user-{user:08d}" for user in range(users)]
            parts = [names[start : start + AT_ONCE] for start in range(0, users, AT_ONCE)]
            for part in parts:
                await store.record({name: [RecordedEvent(1, 1, 1, True)] for name in part})
            before = (await client.info("memory"))["used_memory"]
            for part in parts:
                await asyncio.gather(*map(cache, part))
            after = (await client.info("memory"))["used_memory"]
            one = await client.memory_usage(f"tt:{{{names[0]}}}:e:{MODEL}")
            await store.close()
    return (after - before) / users, one


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--d", type=int, default=512)
    parser.add_argument("--k", type=int, default=32)
    arguments = parser.parse_args()
    print(f"d {arguments.d}, k {arguments.k}, {arguments.users:,} users")
    for precision in Precision:
        grown, one = asyncio.run(measure(arguments.users, arguments.d, arguments.k, precision))
        print(f"{precision.value}: {grown:.0f} bytes a user, one key {one} bytes")


if __name__ == "__main__":
    main()
