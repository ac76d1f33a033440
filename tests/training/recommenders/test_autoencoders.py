"""Compares Mult-DAE, Mult-VAE and ELSA with their papers' formulas, on dense matrices."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import normalize

from training.checkpoint import Checkpoints
from training.errors import ConfigError
from training.histories import Histories
from training.loop import EpochReport
from training.losses import elsa_loss, kl_from_standard_normal, linear_elsa_loss, multinomial_loss
from training.pooling import Bags, masked_sum
from training.recommenders import FitContext
from training.recommenders.elsa import Elsa
from training.recommenders.fitting.autoencoders import (
    HistoryBatch,
    MultDaeOptions,
    MultDaeTask,
    MultVaeOptions,
    MultVaeTask,
    pooled,
    train_multvae,
)
from training.recommenders.fitting.elsa import ElsaOptions, ElsaTask
from training.recommenders.multvae import MultDae, MultVae

HISTORIES = Histories(np.array([0, 3, 3, 5]), np.array([4, 0, 2, 1, 4]))
N_ITEMS = 6


@pytest.fixture
def x() -> Tensor:
    return torch.from_numpy(HISTORIES.matrix(N_ITEMS).toarray())


@pytest.fixture
def vae() -> MultVae:
    torch.manual_seed(4)
    return MultVae(N_ITEMS, d=3, p=5)


def test_sums_over_bags_and_over_padded_histories_are_those_of_the_dense_matrix(x: Tensor) -> None:
    W = torch.randn(N_ITEMS, 4)
    bags = Bags.of(HISTORIES)
    torch.testing.assert_close(bags.sum(W), x @ W)
    torch.testing.assert_close(masked_sum(W, *HISTORIES.padded()), x @ W)
    assert bags.lengths.tolist() == [3, 0, 2]
    assert bags.rows.tolist() == [0, 0, 0, 2, 2]


def test_a_bag_of_nothing_sums_to_0() -> None:
    empty = Histories(np.zeros(3, np.int64), np.zeros(0, np.int64))
    assert torch.equal(Bags.of(empty).sum(torch.ones(4, 2)), torch.zeros(2, 2))
    assert torch.equal(masked_sum(torch.ones(4, 2), *empty.padded()), torch.zeros(2, 2))


def test_multvae_is_the_papers_network(vae: MultVae, x: Tensor) -> None:
    normalised = x / x.norm(dim=1, keepdim=True).clamp_min(1)
    h = torch.tanh(normalised @ vae.E + vae.b_E)
    mean = h @ vae.to_mean.weight.T + vae.to_mean.bias
    z = vae.encode(*HISTORIES.padded())
    torch.testing.assert_close(z, mean)
    q = torch.tanh(mean @ vae.to_query.weight.T + vae.to_query.bias)
    torch.testing.assert_close(vae.scores(z), q @ vae.V.T + vae.b)
    torch.testing.assert_close(vae.logits(z), q @ vae.V.T + vae.b)


def test_multdae_is_the_papers_network(x: Tensor) -> None:
    dae = MultDae(N_ITEMS, d=3)
    with torch.no_grad():
        dae.b_E.normal_(), dae.b.normal_()
    normalised = x / x.norm(dim=1, keepdim=True).clamp_min(1)
    z = dae.encode(*HISTORIES.padded())
    torch.testing.assert_close(
        dae.scores(z), torch.tanh(normalised @ dae.E + dae.b_E) @ dae.V.T + dae.b
    )


def test_the_multinomial_loss_is_that_of_the_dense_target(x: Tensor) -> None:
    logits = torch.randn(3, N_ITEMS)
    dense = -(x * torch.log_softmax(logits, dim=-1)).sum(dim=-1).mean()
    torch.testing.assert_close(multinomial_loss(logits, Bags.of(HISTORIES)), dense)


def test_the_divergence_is_that_of_normal_distributions() -> None:
    mean = torch.randn(7, 3)
    log_variance = torch.randn(7, 3)
    expected = (
        kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).sum(dim=-1).mean()
    )
    torch.testing.assert_close(kl_from_standard_normal(mean, log_variance), expected)


def test_samples_have_the_posteriors_moments(vae: MultVae) -> None:
    torch.manual_seed(0)
    posterior = vae.posterior(torch.randn(1, 5))
    samples = posterior._replace(mean=posterior.mean.expand(20_000, -1)).sample()
    torch.testing.assert_close(samples.mean(dim=0), posterior.mean[0], atol=0.05, rtol=0.05)
    torch.testing.assert_close(
        samples.var(dim=0), posterior.log_variance[0].exp(), atol=0.05, rtol=0.05
    )


def test_dropout_on_the_input_keeps_its_expectation(context: FitContext) -> None:
    model = MultDae(context.split.n_items, d=3)
    task = MultDaeTask(model, MultDaeOptions(d=3, input_dropout=0.5, batch_size=10_000), context)
    rng = np.random.default_rng(0)
    shown = torch.zeros(3)
    whole = torch.zeros(3)
    for _ in range(50):
        (batch,) = task.batches(rng)
        shown += pooled(model.E, batch, 0.5).detach().mean(dim=0)
        whole += pooled(model.E, HistoryBatch(batch.whole, batch.whole), 0.0).detach().mean(dim=0)
    torch.testing.assert_close(shown, whole, atol=0.02 * float(whole.abs().max()), rtol=0.02)


def test_the_divergences_weight_rises_linearly_and_then_stays(context: FitContext) -> None:
    options = MultVaeOptions(d=3, batch_size=10_000, kl_weight=0.4, anneal_epochs=4)
    task = MultVaeTask(MultVae(context.split.n_items, 3, options.p()), options, context)
    weights = []
    for epoch in range(6):
        for batch in task.batches(np.random.default_rng(epoch)):
            task.loss(batch)
            weights.append(task.kl_weight())
    assert weights == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])


def test_an_interrupted_training_of_multvae_ends_in_the_same_bytes(
    context: FitContext, tmp_path: Path
) -> None:
    class Interrupted(Exception):
        pass

    def interrupt(report: EpochReport) -> None:
        if report.epoch == 3:
            raise Interrupted

    options = MultVaeOptions(d=4, epochs=6, anneal_epochs=4)

    def fitted(context: FitContext) -> MultVae:
        torch.manual_seed(context.seed)
        model = MultVae(context.split.n_items, 4, options.p())
        train_multvae(model, options, context)
        return model

    whole = fitted(context)
    halves = context._replace(checkpoints=Checkpoints(tmp_path / "halves", every_s=0))
    with pytest.raises(Interrupted):
        fitted(halves._replace(report=interrupt))
    resumed = fitted(halves).state_dict()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.state_dict().items())


@pytest.mark.parametrize(
    "wrong", [{"d": 0}, {"input_dropout": 1.0}, {"kl_weight": -0.1}, {"hidden": -1}]
)
def test_multvae_refuses_settings_without_meaning(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="Mult-VAE"):
        MultVaeOptions(**wrong)  # type: ignore[arg-type]


def dense_elsa_loss(A: Tensor, x: Tensor, x_shown: Tensor, rectified: bool) -> Tensor:
    """Computes ELSA's loss as in the paper, up to the factor n_items."""
    A = normalize(A, dim=-1)
    s = x_shown @ A @ A.T - x_shown
    if rectified:
        s = s.relu()
    return (normalize(s, dim=-1) - normalize(x, dim=-1)).square().sum(dim=-1).mean()


@pytest.mark.parametrize("loss", ["exact", "linear"])
def test_elsas_loss_and_gradient_are_those_of_dense_matrices(
    loss: Literal["exact", "linear"], context: FitContext
) -> None:
    torch.manual_seed(3)
    model = Elsa(context.split.n_items, 8)
    dense = Elsa(context.split.n_items, 8)
    dense.load_state_dict(model.state_dict())
    task = ElsaTask(model, ElsaOptions(d=8, loss=loss, batch_size=100), context)
    rng = np.random.default_rng(1)
    part = task.histories.rows(rng.permutation(task.histories.size)[:100])
    shown = part.thinned(rng, 0.3, 0.3)
    task_loss = task.loss(HistoryBatch(Bags.of(part), Bags.of(shown)))
    task_loss.backward()
    task.before_step()
    x, x_shown = (torch.from_numpy(rows.matrix(model.n_items).toarray()) for rows in (part, shown))
    expected = dense_elsa_loss(dense.A, x, x_shown, rectified=loss == "exact")
    expected.backward()
    torch.testing.assert_close(task_loss, expected)
    torch.testing.assert_close(model.A.grad, dense.A.grad, atol=1e-7, rtol=1e-4)


def test_elsas_gradient_is_right_to_first_order() -> None:
    torch.manual_seed(0)
    A = torch.randn(N_ITEMS, 3, dtype=torch.float64).requires_grad_()
    whole = Bags.of(HISTORIES.rows(np.array([0, 2])))
    shown = Bags(whole.items[[0, 1, 3]], torch.tensor([0, 2]))
    for loss in (elsa_loss, linear_elsa_loss):
        assert torch.autograd.gradcheck(
            lambda A, loss=loss: loss(shown.sum(A), A, whole, shown), (A,)
        )


def test_elsas_rows_keep_unit_norm(context: FitContext) -> None:
    task = ElsaTask(Elsa(context.split.n_items, 8), ElsaOptions(d=8, epochs=3), context)
    context.optimise(task, task.options.schedule())
    torch.testing.assert_close(task.module.A.norm(dim=1), torch.ones(context.split.n_items))


def test_elsa_refuses_a_loss_that_there_is_not() -> None:
    with pytest.raises(ConfigError, match="loss: expected 'exact' or 'linear', found 'cosine'"):
        ElsaOptions(loss="cosine")  # type: ignore[arg-type]
