"""Tests target shares on the demo's bundle: the promised share is that of the items returned."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from trimtab import Client, recommend_request
from trimtab.v1.recommendation_pb2 import History

from tests.support.servers import StartServer
from training.run import load_run

N = 20
USERS = 40


@pytest.fixture(scope="module")
def client(
    demo_dir: Path, start_server: StartServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    with (
        start_server(demo_dir / "bundle", tmp_path_factory.mktemp("promises")) as served,
        Client(served.target, timeout=60) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def histories(demo_dir: Path) -> list[list[str]]:
    """Reads the histories of held-out users."""
    run = load_run(demo_dir / "run")
    item_ids = run.catalogue.items["item_id"].to_list()
    seen = run.split.histories(run.split.test)
    bounds = zip(seen.offsets[:USERS], seen.offsets[1:], strict=False)
    return [[item_ids[item] for item in seen.items[start:stop]] for start, stop in bounds]


def unseen_items(name: str, values: dict[str, set[str]], history: History) -> int:
    """Counts the items of a concept that are not in a history."""
    seen = sum(name in values.get(event.item_id, ()) for event in history.events)
    return sum(name in own for own in values.values()) - seen


@pytest.mark.parametrize("least", [0.2, 0.5])
def test_every_concepts_share_is_in_every_users_list(
    client: Client, histories: list[list[str]], demo_dir: Path, least: float
) -> None:
    rows = pq.read_table(demo_dir / "bundle" / "items.parquet").to_pylist()
    concepts = list(client.list_concepts())
    attributes = {concept.attribute for concept in concepts}
    values = {
        row["item_id"]: {value for name in attributes for value in row[name] or ()} for row in rows
    }
    asked = [
        (
            concept.name,
            recommend_request(history=history, n=N, shares={concept.name: (least, None)}),
        )
        for history in histories
        for concept in concepts
    ]
    for request in (request for _, request in asked):
        request.include_report = True
    replies = client.batch_recommend(request for _, request in asked).results
    promised = []
    kept = []
    for (name, request), result in zip(asked, replies, strict=True):
        reply = result.response
        (share,) = reply.report.concepts
        promised.append(share.item_share)
        kept.append(np.mean([name in values[item.item_id] for item in reply.items]))
        if unseen_items(name, values, request.history) >= least * N:
            assert reply.report.targets[0].met
            assert kept[-1] >= least - 1e-6
    assert len(kept) == USERS * len(concepts)
    np.testing.assert_allclose(promised, kept, atol=1e-6)
