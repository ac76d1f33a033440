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
from service.steering import SparseCode
from service.userstate import UserStore

MODEL = "0123456789ab"
N_NEURONS = 4_096


async def measure(users: int, d: int, k: int) -> tuple[float, int]:
    """Bytes a user by the growth of used_memory, and by MEMORY USAGE of one key."""
    draw = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        async with embedded_valkey(Path(folder)) as url, redis.Redis.from_url(url) as client:
            store = UserStore(url, max_history=100, history_ttl_s=0, embedding_ttl_s=604_800, timeout_s=10)
            names = [f"user-{user:08d}" for user in range(users)]
            await store.record({name: [RecordedEvent(1, 1, 1, True)] for name in names})
            before = (await client.info("memory"))["used_memory"]
            for name in names:
                neurons = np.sort(draw.choice(N_NEURONS, k, replace=False))
                z = draw.normal(size=d).astype(np.float32)
                state = UserState(z, SparseCode(neurons, draw.random(k).astype(np.float32)))
                stamp = (await store.read(name, None)).stamp
                await store.remember(name, MODEL, stamp, CachedEmbedding(state, 0))
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
    grown, one = asyncio.run(measure(arguments.users, arguments.d, arguments.k))
    size = f"d {arguments.d}, k {arguments.k}, {arguments.users:,} users"
    print(f"{size}: {grown:.0f} bytes a user, one key {one} bytes")


if __name__ == "__main__":
    main()
