"""A server with its users, and the requests of the load on it."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import Message
from trimtab import Client
from trimtab.v1 import recommendation_pb2 as pb
from trimtab.v1 import recommendation_pb2_grpc
from trimtab.v1.steering_pb2 import Edit, Operation, Steering

from benchmarks.serving.load import Request, write_requests
from benchmarks.serving.servers import Server
from benchmarks.serving.world import World, user_id

N = 20
BATCH_SIZE = 256
REQUESTS = 20_000
ZIPF = 1.0
CONNECTIONS = 16
"""For several workers: the kernel deals connections out, evenly only if there are many."""

Figures = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """A server with its users, and what it is measured with."""

    world: World
    server: Server
    folder: Path
    blocks: int
    """Interleaved blocks of a comparison."""
    seconds: float
    """Length of each block, in seconds."""

    def requests(self, name: str, make: Callable[[str, random.Random], Message]) -> Path:
        """Writes a file of 20,000 requests, users drawn from a Zipf law, alike for every kind."""
        path = self.folder / f"{name}.requests"
        draw = random.Random(0)
        ranks = np.arange(1, self.world.histories.size + 1)
        odds = ranks**-ZIPF / (ranks**-ZIPF).sum()
        users = np.random.default_rng(0).choice(self.world.histories.size, REQUESTS, p=odds)
        bodies = (make(user_id(user), draw).SerializeToString() for user in users.tolist())
        write_requests(path, (Request(0, body) for body in bodies))
        return path

    def interleaved(
        self, sides: Mapping[str, Callable[..., Figures]], times: float = 1.0
    ) -> dict[str, list[Figures]]:
        """Measures blocks of each side in turn, each from another place in the requests.

        times multiplies the length of a block.
        """
        seen: dict[str, list[Figures]] = {name: [] for name in sides}
        for block in range(self.blocks):
            for name, put in sides.items():
                figures = put(offset=block * 1_987, seconds=times * self.seconds, seed=block)
                seen[name].append({key: figures[key] for key in figures if key != "histogram_ms"})
        return seen

    def steered(
        self, user: str, draw: random.Random, edits: int = 2, **steering: Any
    ) -> pb.RecommendRequest:
        """Makes a request that edits one concept and otherwise neurons.

        Strengths are half to one typical unit, up or down.
        """
        made = []
        for place in range(edits):
            strength = draw.choice((-1.0, 1.0)) * draw.uniform(0.5, 1.0)
            if place == 0:
                made.append(Edit(concept=draw.choice(self.world.concepts), strength=strength))
            else:
                made.append(Edit(neuron=draw.randrange(self.world.n_neurons), strength=strength))
        asked = Steering(edits=made, **steering) if made or steering else None
        return pb.RecommendRequest(user_id=user, n=N, steering=asked)

    def boosted(self, user: str, draw: random.Random) -> pb.RecommendRequest:
        """Makes a request with a BOOST of one concept by 0.1 to 0.3, up or down."""
        strength = draw.choice((-1.0, 1.0)) * draw.uniform(0.1, 0.3)
        concept = draw.choice(self.world.concepts)
        edit = Edit(concept=concept, operation=Operation.OPERATION_BOOST, strength=strength)
        return pb.RecommendRequest(user_id=user, n=N, steering=Steering(edits=[edit]))


def fill(world: World, server: Server) -> None:
    """Records every history and caches every embedding, in the store and in the server."""
    histories = world.histories
    with grpc.insecure_channel(server.target) as channel:
        stub = recommendation_pb2_grpc.RecommendationServiceStub(channel)
        known = stub.Recommend(pb.RecommendRequest(user_id=user_id(histories.size - 1), n=1))
        if known.served_by.source != pb.SOURCE_PERSONAL:
            rows = np.repeat(np.arange(histories.size), histories.lengths).tolist()
            pairs = zip(rows, histories.items.tolist(), strict=True)
            with Client(server.target) as client:
                client.record((user_id(row), world.item_ids[item]) for row, item in pairs)
        for start in range(0, histories.size, BATCH_SIZE):
            users = range(start, min(start + BATCH_SIZE, histories.size))
            asked = [pb.RecommendRequest(user_id=user_id(row), n=1) for row in users]
            stub.BatchRecommend(pb.BatchRecommendRequest(requests=asked))
