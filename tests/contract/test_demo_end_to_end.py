"""Trains, exports and serves the demo by its own commands, and checks its promises by gRPC."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from trimtab import Client
from trimtab.v1 import recommendation_pb2 as pb

from tests.support.servers import StartServer
from training.recommenders import Recommender
from training.run import Run, load_run

N = 20
SAME_SCORE = 1e-3
"""Scores this close, relative to the larger, may be in either order: z is rounded to float16."""


class Demo(NamedTuple):
    run: Run
    client: Client
    histories: list[list[str]]


@pytest.fixture(scope="module")
def demo(
    demo_dir: Path, start_server: StartServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Demo]:
    run = load_run(demo_dir / "run")
    item_ids = run.catalogue.items["item_id"].to_list()
    inputs = run.split.histories(run.split.test)
    histories = [
        [item_ids[item] for item in inputs.items[start:stop]]
        for start, stop in zip(inputs.offsets[:-1], inputs.offsets[1:], strict=True)
    ]
    data_dir = tmp_path_factory.mktemp("demo-data")
    with start_server(demo_dir / "bundle", data_dir) as served, Client(served.target) as client:
        yield Demo(run, client, histories)


def torch_scores(recommender: Recommender, run: Run) -> np.ndarray[Any, Any]:
    inputs = run.split.histories(run.split.test)
    with torch.no_grad():
        scores = recommender.scores(recommender.embed(inputs, run.config.max_length)).numpy()
    scores[run.split.input_matrix(run.split.test).nonzero()] = -np.inf
    return scores


def test_every_test_users_list_equals_torchs_own(demo: Demo) -> None:
    scores = torch_scores(demo.run.recommender, demo.run)
    index = {
        item_id: row for row, item_id in enumerate(demo.run.catalogue.items["item_id"].to_list())
    }
    for history, expected in zip(demo.histories, scores, strict=True):
        items = demo.client.recommend(history=history, n=N).items
        listed = expected[[index[item.item_id] for item in items]]
        best = np.sort(expected)[::-1][:N]
        # Position by position the served item has torch's score of that position, up to rounding;
        # so the lists hold the same items, and only items of the same score may have changed
        # places.
        assert np.abs(listed - best).max() <= SAME_SCORE * np.abs(best).max()
        assert np.allclose([item.score for item in items], listed, rtol=SAME_SCORE, atol=1e-4)


def test_steering_a_genre_at_strength_one_raises_its_share_for_nine_genres_of_ten(
    demo: Demo,
) -> None:
    frequent = sorted(demo.run.concepts, key=lambda concept: -concept.item_count)[:10]
    raised = 0
    for concept in frequent:
        before = []
        after = []
        for history in demo.histories:
            reply = demo.client.recommend(
                history=history, n=N, steer={concept.name: 1.0}, include_report=True
            )
            (share,) = reply.report.concepts
            before.append(share.unsteered_share)
            after.append(share.share)
        raised += float(np.mean(after)) > float(np.mean(before))
    assert raised >= 9


def test_steering_down_lowers_what_steering_up_raises(demo: Demo) -> None:
    concept = max(demo.run.concepts, key=lambda concept: concept.unsteered_share)
    shares = []
    for strength in (-1.0, 0.0, 1.0):
        replies = [
            demo.client.recommend(
                history=history, n=N, steer={concept.name: strength}, include_report=True
            )
            for history in demo.histories[:40]
        ]
        shares.append(float(np.mean([reply.report.concepts[0].share for reply in replies])))
    assert shares[0] < shares[1] < shares[2]


def test_the_autoencoders_reconstruction_costs_at_most_five_percent_of_ndcg(demo: Demo) -> None:
    assert demo.run.metrics["reconstruct_ndcg_loss@20"] <= 0.05


def test_residual_steering_costs_nothing_where_it_changes_nothing(demo: Demo) -> None:
    for history in demo.histories[:20]:
        plain = demo.client.recommend(history=history, n=N)
        same = demo.client.recommend(history=history, n=N, steer={"Drama": 0.0, "#3": 0.0})
        assert [(i.item_id, i.score) for i in plain.items] == [
            (i.item_id, i.score) for i in same.items
        ]


def test_a_recorded_user_gets_what_the_same_history_gives(demo: Demo) -> None:
    history = demo.histories[0]
    demo.client.record(("someone", item) for item in history)
    stored = demo.client.recommend(user_id="someone", n=N)
    given = demo.client.recommend(history=history, n=N)
    assert stored.served_by.source == pb.SOURCE_PERSONAL
    assert [(i.item_id, i.score) for i in stored.items] == [
        (i.item_id, i.score) for i in given.items
    ]
