"""Serves the pipeline as a model of Triton; sides.py sets PREPARED and STORE."""

import os
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = os.environ["PYTHONPATH"].split(":")  # Triton's own Python does not look there

import numpy as np
import triton_python_backend_utils as triton
from redis import Redis

from benchmarks.peers.pipeline import Asked, Pipeline


class TritonPythonModel:
    """Requests that Triton put together; each has a batch of one."""

    def initialize(self, args: dict[str, str]) -> None:  # noqa: ARG002  Triton passes it by name
        self._pipeline = Pipeline(Path(os.environ["PREPARED"]))
        self._store = Redis.from_url(os.environ["STORE"], protocol=3)

    def execute(self, requests: list[Any]) -> list[Any]:
        many = [_asked(request) for request in requests]
        blobs = self._store.mget([key for asked in many for key in self._pipeline.keys(asked)])
        return [_response(listed) for listed in self._pipeline.recommend(many, blobs)]


def _asked(request: Any) -> Asked:
    user_id, targets, strengths = (
        triton.get_input_tensor_by_name(request, name).as_numpy()[0]
        for name in ("user_id", "targets", "strengths")
    )
    return Asked(
        user_id[0].decode(),
        [(target.decode(), x) for target, x in zip(targets, strengths, strict=True)],
    )


def _response(listed: Any) -> Any:
    item_ids = np.array([listed.item_ids], np.object_)
    scores = np.array([listed.scores], np.float32)
    return triton.InferenceResponse(
        [triton.Tensor("item_ids", item_ids), triton.Tensor("scores", scores)]
    )
