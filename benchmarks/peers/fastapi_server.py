"""Serves the pipeline on FastAPI; sides.py sets PREPARED and STORE in the environment."""

import os
from pathlib import Path

from fastapi import FastAPI
from pydantic import BaseModel
from redis.asyncio import Redis

from benchmarks.peers.pipeline import Asked, Pipeline

app = FastAPI()
pipeline = Pipeline(Path(os.environ["PREPARED"]))
store = Redis.from_url(os.environ["STORE"], protocol=3, max_connections=1_000)


class Request(BaseModel):
    user_id: str
    edits: list[tuple[str, float]]


class Reply(BaseModel):
    item_ids: list[str]
    scores: list[float]


@app.post("/inference")  # type: ignore[untyped-decorator]  # FastAPI is in its own environment
async def recommend(request: Request) -> Reply:
    asked = Asked(request.user_id, request.edits)
    blobs = await store.mget(pipeline.keys(asked))
    (listed,) = pipeline.recommend([asked], blobs)
    return Reply(item_ids=listed.item_ids, scores=listed.scores)
