"""Compares ALS, BPR, logistic factorisation and LightGCN with their formulas."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from training.checkpoint import Checkpoints
from training.errors import ConfigError
from training.histories import Histories
from training.loop import EpochReport
from training.recommenders import FitContext
from training.recommenders.als import Als
from training.recommenders.factorisation import Factorisation, FoldIn
from training.recommenders.fitting.als import AlsOptions, build_als, objective, solve_als
from training.recommenders.fitting.bpr import BprOptions, build_bpr, train_bpr
from training.recommenders.fitting.factors import Factors
from training.recommenders.fitting.lightgcn import GraphFactors, LightGcnOptions
from training.recommenders.fitting.logistic import LogisticOptions, LogisticTask
from training.recommenders.fitting.pairs import PairBatch, Pairs, bpr_loss
from training.recommenders.foldin import fold_in
from training.recommenders.lightgcn import Graph, LightGcn

HISTORIES = Histories(np.array([0, 3, 5, 5, 9]), np.array([1, 4, 2, 0, 4, 5, 1, 0, 3]))
N_ITEMS = 6


@pytest.fixture
def vectors() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(N_ITEMS, 4)


def test_enough_steps_solve_every_system_whatever_its_neighbours() -> None:
    torch.manual_seed(0)
    v = torch.randn(5, 7, 4)
    weights = torch.rand(5, 7)
    r = torch.randn(5, 4)
    B = torch.randn(4, 4)
    A = B @ B.T + torch.eye(4)
    z = fold_in(v, weights, r, A, torch.linalg.inv(A), steps=6)
    systems = A + torch.einsum("bl,blc,bld->bcd", weights, v, v)
    torch.testing.assert_close(z, torch.linalg.solve(systems, r), rtol=1e-3, atol=1e-4)
    alone = fold_in(v[2:3], weights[2:3], r[2:3], A, torch.linalg.inv(A), steps=6)
    torch.testing.assert_close(z[2:3], alone)


def test_a_solved_row_stays_where_it_is() -> None:
    v = torch.ones(2, 1, 3)
    r = torch.tensor([[0.0, 0, 0], [1.0, 2, 3]])
    z = fold_in(v, torch.tensor([[1.0], [0.0]]), r, torch.eye(3), torch.eye(3), steps=50)
    assert z.tolist() == [[0, 0, 0], [1, 2, 3]]


def test_als_gives_a_user_the_factors_that_minimise_its_objective(vectors: Tensor) -> None:
    options = AlsOptions(d=4, confidence=3.0, penalty=0.5, steps=8)
    model = build_als(options, N_ITEMS, 10)
    model.set_items(vectors)
    users = model.encode(*HISTORIES.padded()).requires_grad_()
    P = torch.from_numpy(HISTORIES.matrix(N_ITEMS).toarray())
    loss = ((1 + 3 * P) * (P - users @ vectors.T).square()).sum()
    loss = loss + 0.5 * (users.square().sum() + vectors.square().sum())
    (gradient,) = torch.autograd.grad(loss, users)
    assert gradient.abs().max() < 1e-3
    assert users[2].tolist() == [0, 0, 0, 0]
    found = objective(HISTORIES.matrix(N_ITEMS), users.detach(), vectors, options)
    assert found == pytest.approx(loss.item() / len(HISTORIES.items), rel=1e-5)


def test_every_sweep_of_als_lowers_its_objective(context: FitContext) -> None:
    reports: list[EpochReport] = []
    options = AlsOptions(d=8, sweeps=6, steps=10)
    torch.manual_seed(0)
    solve_als(
        build_als(options, context.split.n_items, 50),
        options,
        context._replace(report=reports.append),
    )
    losses = [report.loss for report in reports]
    assert len(losses) == 6
    assert losses == sorted(losses, reverse=True)


def test_an_interrupted_als_ends_in_the_same_bytes(context: FitContext, tmp_path: Path) -> None:
    class Interrupted(Exception):
        pass

    def stop(report: EpochReport) -> None:
        if report.epoch == 4:
            raise Interrupted

    options = AlsOptions(d=8, sweeps=6)
    models: list[Als] = []
    checkpoints = Checkpoints(tmp_path / "stopped", every_s=0)
    for part in (
        context,
        context._replace(report=stop, checkpoints=checkpoints),
        context._replace(checkpoints=checkpoints),
    ):
        torch.manual_seed(1)
        models.append(build_als(options, context.split.n_items, 50))
        try:
            result = solve_als(models[-1], options, part)
        except Interrupted:
            assert len(list(checkpoints.folder.iterdir())) == 1
    assert result.epochs == 6
    whole, _, resumed = (model.state_dict() for model in models)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_new_users_factors_are_the_first_newton_step_of_the_logistic_loss(
    vectors: Tensor,
) -> None:
    b = torch.linspace(-1, 1, N_ITEMS)
    negatives = 3.0
    penalty = 0.2
    model = Factorisation(N_ITEMS, 4, FoldIn(negatives, penalty, steps=12))
    model.set_items(vectors, b)
    found = model.encode(*HISTORIES.padded())

    def loss(z_and_a: Tensor, items: Tensor) -> Tensor:
        scores = vectors.double() @ z_and_a[:4] + b + z_and_a[4]
        squares = penalty * z_and_a[:4].square().sum() + 1e-4 * z_and_a[4].square()
        return (
            -logsigmoid(scores[items]).mean() - negatives * logsigmoid(-scores).mean() + squares / 2
        )

    start = torch.zeros(5, dtype=torch.float64)
    for row in (0, 1, 3):
        items = torch.from_numpy(HISTORIES.rows(np.array([row])).items)
        gradient = torch.autograd.functional.jacobian(lambda x, items=items: loss(x, items), start)
        hessian = torch.autograd.functional.hessian(lambda x, items=items: loss(x, items), start)
        expected = -torch.linalg.solve(hessian, gradient)[:4]
        torch.testing.assert_close(found[row], expected.float(), rtol=1e-3, atol=1e-4)
    assert found[2].tolist() == [0, 0, 0, 0]


def test_the_logistic_loss_is_that_of_the_formula(context: FitContext) -> None:
    options = LogisticOptions(d=4, batch_size=5, sample_size=7, negatives=2.0, penalty=0.1)
    split = context.split
    task = LogisticTask(
        Factors(Factorisation(split.n_items, 4, options.fold_in()), len(split.train)),
        options,
        context,
    )
    torch.nn.init.normal_(task.module.item_biases)
    torch.nn.init.normal_(task.module.user_biases)
    batch = next(task.batches(np.random.default_rng(0)))
    x, y, a, b = (
        values.double()
        for values in (
            task.module.users,
            task.module.items,
            task.module.user_biases,
            task.module.item_biases,
        )
    )
    histories = split.histories(split.train)
    terms = []
    for user in batch.users:
        items = histories.rows(np.array([int(user)])).items
        unknown = [int(item) for item in batch.sample if item not in items]
        against = -logsigmoid(-(y[unknown] @ x[user] + a[user] + b[unknown])).mean()
        for item in items:
            squares = x[user].square().sum() + y[item].square().sum()
            squares = squares + 2.0 * y[batch.sample].square().sum(dim=1).mean()
            terms.append(
                -logsigmoid(x[user] @ y[item] + a[user] + b[item]) + 2.0 * against + 0.05 * squares
            )
    torch.testing.assert_close(
        task.loss(batch).double(), torch.stack(terms).mean(), rtol=1e-4, atol=1e-5
    )


def test_a_pairs_negatives_are_other_items_that_its_user_does_not_have() -> None:
    rng = np.random.default_rng(0)
    pairs = Pairs(HISTORIES, N_ITEMS)
    seen = []
    matrix = HISTORIES.matrix(N_ITEMS).toarray()
    for batch in pairs.batches(rng, size=5, negatives=3):
        seen += list(zip(batch.users.tolist(), batch.items.tolist(), strict=True))
        for shift, unknown in zip(batch.shifts, batch.unknown, strict=True):
            others = batch.items.roll(shift)
            assert unknown.tolist() == (1 - matrix[batch.users, others]).tolist()
    assert sorted(seen) == sorted(zip(pairs.users.tolist(), pairs.items.tolist(), strict=True))


def test_the_pairwise_loss_is_that_of_the_formula(vectors: Tensor) -> None:
    unknown = torch.tensor([[1.0, 0, 1], [1, 1, 0]])
    batch = PairBatch(torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5]), (1, 2), unknown)
    users = vectors[:3]
    items = vectors[3:]
    biases = torch.tensor([0.1, 0.2, 0.3])
    terms = []
    for row, shift in enumerate(batch.shifts):
        for place in range(3):
            other = (place - shift) % 3
            x = users[place] @ (items[place] - items[other]) + biases[place] - biases[other]
            if unknown[row, place]:
                terms.append(-logsigmoid(x))
    torch.testing.assert_close(bpr_loss(users, items, biases, batch), torch.stack(terms).mean())


def test_lightgcns_layers_are_products_with_the_normalised_adjacency_and_so_is_their_gradient() -> (
    None
):
    X = torch.from_numpy(HISTORIES.matrix(N_ITEMS).toarray()).double()
    adjacency = torch.zeros(10, 10, dtype=torch.float64)
    adjacency[:4, 4:] = X
    adjacency[4:, :4] = X.T
    scale = adjacency.sum(dim=1).clamp(min=1).rsqrt()
    adjacency = scale[:, None] * adjacency * scale
    torch.manual_seed(0)
    E = torch.randn(10, 3, dtype=torch.float64, requires_grad=True)
    expected = [E, adjacency @ E, adjacency @ adjacency @ E]
    start = E.detach().float().requires_grad_()
    layers = Graph(HISTORIES, N_ITEMS).layers(start[:4], start[4:], 2)
    for layer, whole in zip(layers, expected, strict=True):
        torch.testing.assert_close(torch.cat(layer), whole.float())
    torch.stack([torch.cat(layer).square().sum() for layer in layers]).sum().backward()
    torch.stack([whole.square().sum() for whole in expected]).sum().backward()
    assert start.grad is not None
    assert E.grad is not None
    torch.testing.assert_close(start.grad, E.grad.float(), rtol=1e-4, atol=1e-5)


def test_propagation_gives_a_new_user_the_layers_it_would_have_beside_the_trained_graph() -> None:
    torch.manual_seed(0)
    model = LightGcn(N_ITEMS, 3, FoldIn(1.0, 0.1, 5), propagation=True)
    module = GraphFactors(model, Graph(HISTORIES, N_ITEMS), 4, n_layers=2)
    module.hand_over()
    new = torch.tensor([[0, 5]])
    popularity = torch.from_numpy(np.bincount(HISTORIES.items, minlength=N_ITEMS))
    layers = [layer.items for layer in module.layers()]
    expected = sum(
        layer[item] / (2 * popularity[item]) ** 0.5 for layer in layers[:2] for item in new[0]
    )
    torch.testing.assert_close(
        model.encode(new, torch.ones(1, 2))[0], torch.as_tensor(expected) / 3
    )
    torch.testing.assert_close(model.item_matrix().V, torch.stack(layers).mean(dim=0))


def test_after_training_the_model_holds_what_was_best_on_the_validation_users(
    context: FitContext,
) -> None:
    """Its parts for folding in come from the same epoch as its items."""
    options = BprOptions(d=8, epochs=12, lr=0.2, batch_size=2048, validate_every=2)
    torch.manual_seed(0)
    model = build_bpr(options, context.split.n_items, 50)
    result = train_bpr(model, options, context)
    assert result.best == context.validate(model)
    again = build_bpr(options, context.split.n_items, 50)
    again.set_items(*model.item_matrix())
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (AlsOptions, {"d": 0}),
        (AlsOptions, {"confidence": 0.0}),
        (AlsOptions, {"penalty": float("nan")}),
        (BprOptions, {"negatives": 0}),
        (BprOptions, {"penalty": -1.0}),
        (BprOptions, {"fold_in_penalty": 0.0}),
        (LogisticOptions, {"sample_size": 0}),
        (LogisticOptions, {"negatives": 0.0}),
        (LightGcnOptions, {"layers": 0}),
        (LightGcnOptions, {"batch_size": 0}),
        (LightGcnOptions, {"lr": 0.0}),
    ],
)
def test_settings_without_meaning_are_refused(kind: type[Any], wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        kind(**wrong)
