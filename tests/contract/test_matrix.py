"""Trains, exports and serves every recommender with every SAE, and compares with torch.

`make matrix` runs them all on the demo's data; `make test` each recommender once and each SAE at
least once, on a small made-up set.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from exporters.determinism import one_thread
from exporters.from_run import contents_of
from exporters.graphs import RecommenderGraphs, export_recommender
from exporters.publish import write_bundle
from service.batching.joint_calls import run_alone
from service.bundle.bundle import Bundle
from service.bundle.history import Event, EventKind
from service.bundle.open import open_bundle
from service.engine.compute import answer
from service.engine.query import Query
from service.engine.reply import Reply
from service.steering.edits import Operation, RawEdit
from service.steering.plan import Mode, Plan
from service.telemetry.timings import Timings
from service.users.state import UNKNOWN_USER
from training.checkpoint import Checkpoints
from training.concepts import fit_concepts
from training.config import TrainConfig
from training.data import Data, load_data
from training.datasets.synthetic import SyntheticOptions
from training.progress import Silent
from training.recommenders import RECOMMENDERS, Recommender
from training.run import Run
from training.saes import SAES
from training.stages import complete_autoencoder, complete_recommender, new_context

N = 20
USERS = 12
MAX_LENGTH = 30
ROUNDED = 5e-3
"""What float16 does to z, a context and the scores that come of them, relative to the largest."""
SAME = 1e-4
"""What float32 does to scores of the same z and context, relative to the largest."""

# Parity needs models, not good ones.
SHORT = {"d": 16, "epochs": 2, "batch_size": 64, "validate_every": 2}
SHORT_SAE = {"k": 4, "expansion": 4, "epochs": 6}
# What an SAE's input and loss can be; each SAE and each recommender meets each of them.
TURNS = [("unit", "l2"), ("standard", "l2"), ("unit", "cosine"), ("none", "cosine")]


def _short(kind: type[Any], **values: Any) -> Any:
    known = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in values.items() if name in known})


def _recommenders() -> dict[str, tuple[str, Any]]:
    """Lists every kind, and its hooks between blocks if any: name -> kind, options."""
    found = {}
    for name, kind in RECOMMENDERS.items():
        found[name] = (name, _short(kind.options, **SHORT))
        if hasattr(found[name][1], "hook_point"):
            found[f"{name} block1"] = (name, _short(kind.options, **SHORT, hook_point="block1"))
    return found


MODELS = _recommenders()
CELLS = [(model, sae) for model in MODELS for sae in SAES]
# Of the models with a hook inside, one will do where time counts.
QUICK = [*RECOMMENDERS, *[model for model in MODELS if model not in RECOMMENDERS][:1]]
DIAGONAL = [(model, list(SAES)[row % len(SAES)]) for row, model in enumerate(QUICK)]


def _config(source: str, model: str, sae: str) -> TrainConfig:
    name, options = MODELS[model]
    row = list(MODELS).index(model)
    column = list(SAES).index(sae)
    normalise, loss = TURNS[(row + column + row // len(TURNS)) % len(TURNS)]
    small = SyntheticOptions(n_users=300, n_items=120, n_concepts=6)
    return TrainConfig(
        data=source,
        max_length=MAX_LENGTH,
        recommender=name,
        recommender_options=options,
        sae=sae,
        sae_options=SAES[sae].options(**SHORT_SAE, normalise=normalise, loss=loss),
        data_options=small if source == "synthetic" else None,
    )


class Trained(NamedTuple):
    recommender: Recommender
    graphs: RecommenderGraphs
    folder: Path


class Cell(NamedTuple):
    run: Run
    bundle: Bundle


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():  # models as small as these lose by sharing
        yield


@pytest.fixture(scope="module")
def make_cell(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str, str], Cell]:
    """Trains, exports and opens a cell; data and recommenders are made once."""

    @cache
    def data(source: str) -> Data:
        return load_data(_config(source, "elsa", "topk"), Silent())

    def context(config: TrainConfig, folder: Path) -> Any:
        folder.mkdir()
        checkpoints = Checkpoints(folder / "checkpoints")
        return new_context(
            config, data(config.data).split, checkpoints, Silent(), torch.device("cpu")
        )

    @cache
    def trained(source: str, model: str) -> Trained:
        config = _config(source, model, "topk")
        folder = tmp_path_factory.mktemp("matrix")
        recommender = complete_recommender(
            config, folder / "model", context(config, folder / "model")
        )
        return Trained(recommender, export_recommender(recommender, recommender.d), folder)

    def cell(source: str, model: str, sae: str) -> Cell:
        config, (recommender, graphs, parent) = _config(source, model, sae), trained(source, model)
        folder = parent / sae
        coder = complete_autoencoder(config, folder, recommender, context(config, folder))
        known = data(source)
        config = dataclasses.replace(
            config, min_value=known.min_value, implicit=known.min_value is None
        )
        fitted = fit_concepts(
            recommender,
            coder,
            known.catalogue,
            known.split,
            MAX_LENGTH,
            config.concepts,
            config.seed,
        )
        run = Run(
            folder, config, {}, known.catalogue, known.split, recommender, coder, fitted.concepts,
            fitted.labels, known.name, "test",
        )  # fmt: skip
        write_bundle(contents_of(run), folder / "bundle", graphs=graphs)
        return Cell(run, open_bundle(folder / "bundle"))

    return cell


@pytest.mark.matrix
@pytest.mark.parametrize(("model", "sae"), CELLS, ids=[" + ".join(cell) for cell in CELLS])
def test_every_combination_serves_torchs_lists(
    make_cell: Callable[[str, str, str], Cell], model: str, sae: str
) -> None:
    _check(make_cell("ml-100k", model, sae))


@pytest.mark.parametrize(("model", "sae"), DIAGONAL, ids=[" + ".join(cell) for cell in DIAGONAL])
def test_every_recommender_and_every_sae_serves_torchs_lists(
    make_cell: Callable[[str, str, str], Cell], model: str, sae: str
) -> None:
    _check(make_cell("synthetic", model, sae))


def test_the_diagonal_holds_every_sae_and_every_turn() -> None:
    options = [_config("synthetic", *cell).sae_options for cell in DIAGONAL]
    assert {model for model, _ in DIAGONAL} > set(RECOMMENDERS)
    assert {sae for _, sae in DIAGONAL} == set(SAES)
    assert {(one.normalise, one.loss) for one in options} == set(TURNS)


@torch.no_grad()
def _check(cell: Cell) -> None:
    split = cell.run.split
    item_ids = cell.bundle.catalogue.item_ids
    labels = cell.bundle.labels
    targets = [labels.neuron_target(0), *(concept.target for concept in labels.concepts[:1])]
    edits = tuple(RawEdit(target, Operation.ADD, target.unit) for target in targets)
    plans = Plan(), Plan(edits), Plan(edits, Mode.RECONSTRUCT)
    histories = split.histories(split.test[:USERS])
    expected = cell.run.recommender.activations(histories, cell.bundle.history_rule.max_length)
    for user, (z, context) in enumerate(zip(*expected, strict=True)):
        history = histories.rows(np.array([user])).items
        events = tuple(Event(item_ids[item], EventKind.LIKE) for item in history)
        for plan in plans:
            reply = run_alone(
                answer(Query(cell.bundle, N, history=events, plan=plan), UNKNOWN_USER, Timings())
            )
            state = reply.audience.state
            _assert_close(state.z, z.numpy(), ROUNDED)
            _assert_close(state.context, context.numpy(), ROUNDED)
            _assert_same_list(reply, _scores(cell.run, reply), history, SAME)
            if not plan.edits:
                own = cell.run.recommender.scores(z[None], context[None])[0].numpy()
                _assert_same_list(reply, own, history, ROUNDED)


def _scores(run: Run, reply: Reply) -> NDArray[np.float32]:
    """Computes torch's scores of every item from the user state that the service read."""
    sae = run.sae
    plan = reply.query.plan
    state = reply.audience.state
    z = torch.from_numpy(state.z)[None]
    context = torch.from_numpy(state.context)[None]
    code = torch.zeros(1, sae.n_neurons)
    code[0, state.code.neurons] = torch.from_numpy(state.code.activations)
    change = torch.zeros(1, sae.n_neurons)
    for edit in plan.edits:
        where = slice(None) if edit.target.neurons is None else edit.target.neurons
        change[0, where] += edit.strength * torch.from_numpy(np.array(edit.target.weights))
    if plan.mode is Mode.RECONSTRUCT:
        moved = sae.scale(z) * sae.decode(code + change) + sae.shift(z)
    else:
        moved = z + sae.scale(z) * (change @ sae.W_dec)
    scores: NDArray[np.float32] = run.recommender.scores(moved, context)[0].numpy()
    return scores


def _assert_close(
    found: NDArray[np.float32], expected: NDArray[np.float32], tolerance: float
) -> None:
    largest = float(np.abs(expected).max(initial=0.0))
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * largest)


def _assert_same_list(
    reply: Reply, scores: NDArray[np.float32], history: NDArray[np.int64], tolerance: float
) -> None:
    """Checks that the list has torch's scores rank by rank: torch's items, except near ties."""
    items = reply.ranking.items
    unseen = np.delete(scores, history)
    best = -np.sort(-unseen)[:N]
    assert len(set(items.tolist())) == len(items) == N
    assert not set(items.tolist()) & set(history.tolist())
    atol = tolerance * float(np.abs(scores).max())
    np.testing.assert_allclose(scores[items], best, rtol=0, atol=atol)
    np.testing.assert_allclose(reply.ranking.scores, best, rtol=0, atol=atol)
