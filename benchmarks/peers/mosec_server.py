"""Serves the pipeline on mosec; sides.py sets PREPARED and STORE in the environment."""

import os
from pathlib import Path
from typing import Any

from mosec import Server, Worker
from redis import Redis

from benchmarks.peers.pipeline import Asked, Pipeline

WORKERS = 2
MAX_BATCH = 32
MAX_WAIT_MS = 1


class Recommend(Worker):  # type: ignore[misc]  # mosec has no types
    """Batches of requests, JSON on both sides, which is mosec's default."""

    def __init__(self) -> None:
        self._pipeline = Pipeline(Path(os.environ["PREPARED"]))
        self._store = Redis.from_url(os.environ["STORE"], protocol=3)

    def forward(self, data: list[dict[str, Any]]) -> list[dict[str, Any]]:
        many = [Asked(one["user_id"], one["edits"]) for one in data]
        blobs = self._store.mget([key for asked in many for key in self._pipeline.keys(asked)])
        return [listed._asdict() for listed in self._pipeline.recommend(many, blobs)]


if __name__ == "__main__":
    server = Server()
    server.append_worker(
        Recommend, num=WORKERS, max_batch_size=MAX_BATCH, max_wait_time=MAX_WAIT_MS
    )
    server.run()
