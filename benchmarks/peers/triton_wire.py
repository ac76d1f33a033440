"""Turns JSON requests, one a line on standard input, into Triton's; runs in its environment.

write FILE puts them into a file for load.py; ask TARGET prints the list that a server gives for
each.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient import grpc
from tritonclient.grpc import service_pb2
from tritonclient.utils import serialize_byte_tensor

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks.serving.load import Request, write_requests


def tensors(asked: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Yields name, type and values of a batch of one."""
    names, strengths = zip(*asked["edits"], strict=True)
    yield "user_id", "BYTES", np.array([[asked["user_id"].encode()]], np.object_)
    yield "targets", "BYTES", np.array([[name.encode() for name in names]], np.object_)
    yield "strengths", "FP32", np.array([strengths], np.float32)


def message(asked: dict[str, Any]) -> bytes:
    request = service_pb2.ModelInferRequest(model_name="recommend")
    for name, kind, values in tensors(asked):
        request.inputs.add(name=name, datatype=kind, shape=values.shape)
        raw = serialize_byte_tensor(values).item() if kind == "BYTES" else values.tobytes()
        request.raw_input_contents.append(raw)
    return bytes(request.SerializeToString())


def ask(client: grpc.InferenceServerClient, asked: dict[str, Any]) -> list[str]:
    inputs = []
    for name, kind, values in tensors(asked):
        inputs.append(grpc.InferInput(name, values.shape, kind))
        inputs[-1].set_data_from_numpy(values)
    return [item.decode() for item in client.infer("recommend", inputs).as_numpy("item_ids")[0]]


def main() -> None:
    what, where = sys.argv[1:]
    requests = map(json.loads, sys.stdin)
    if what == "write":
        write_requests(Path(where), (Request(0, message(asked)) for asked in requests))
    else:
        client = grpc.InferenceServerClient(where)
        for asked in requests:
            print(json.dumps(ask(client, asked)))


if __name__ == "__main__":
    main()
