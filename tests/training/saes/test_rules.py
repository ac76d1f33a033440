"""The parts of sparse autoencoders beside their naive formulas."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from torch import Tensor

from training.histories import Histories
from training.recommenders import FitContext, Recommender
from training.recommenders.puresvd import PureSvd, singular_vectors
from training.saes import SAES
from training.saes.auxk import auxk_loss
from training.saes.base import SparseAutoencoder, SparseCode
from training.saes.batchtopk import BatchTopK
from training.saes.fitting import SaeTask
from training.saes.jumprelu import JumpRelu
from training.saes.matryoshka import nested
from training.saes.options import MatryoshkaOptions, TiedOptions, TopKOptions
from training.saes.penalised import PenalisedTask
from training.saes.relu import Relu
from training.saes.subhistories import SubHistories
from training.saes.topk import TopK

BATCH = 5
N = 8
pre_activations = arrays(
    np.float32, (BATCH, N), elements=st.floats(-3, 3, width=32), unique=True
).filter(lambda pre: bool((pre > 0).any()))


def dense(code: Tensor | SparseCode) -> Tensor:
    if isinstance(code, SparseCode):
        return torch.zeros(len(code.neurons), N).scatter(1, code.neurons, code.activations)
    return code


@given(pre_activations, st.integers(1, N))
def test_topk_keeps_the_k_largest_of_each_row(pre: NDArray[np.float32], k: int) -> None:
    expected = np.zeros_like(pre)
    for row in range(BATCH):
        for neuron in sorted(range(N), key=lambda neuron: -pre[row, neuron])[:k]:
            expected[row, neuron] = max(pre[row, neuron], 0)
    rule = TopK(k)
    assert rule(torch.from_numpy(pre)).numpy() == pytest.approx(expected)
    assert dense(rule.training_code(torch.from_numpy(pre))).numpy() == pytest.approx(expected)


@given(pre_activations, st.integers(1, N))
def test_batchtopk_keeps_the_largest_of_the_batch_and_then_what_is_above_its_threshold(
    pre: NDArray[np.float32], k: int
) -> None:
    rule = BatchTopK(N, k, momentum=0.75)
    rule.threshold.fill_(0.5)
    kept = rule.train().keep(torch.from_numpy(pre)).numpy()
    smallest = np.sort(pre.ravel())[-k * BATCH]
    assert kept == pytest.approx(np.where(pre >= max(smallest, 0), np.maximum(pre, 0), 0))
    assert rule.threshold == pytest.approx(0.75 * 0.5 + 0.25 * max(smallest, 0), abs=1e-6)
    threshold = float(rule.threshold)
    assert rule.eval()(torch.from_numpy(pre)).numpy() == pytest.approx(
        np.where(pre > threshold, pre, 0)
    )


@given(pre_activations)
def test_relu_keeps_what_is_positive_and_its_penalty_is_the_l1_norm(
    pre: NDArray[np.float32],
) -> None:
    rule = Relu(N)
    assert rule(torch.from_numpy(pre)).numpy() == pytest.approx(np.maximum(pre, 0))
    expected = np.maximum(pre, 0).sum(axis=1).mean()
    assert rule.penalty(torch.from_numpy(pre)).item() == pytest.approx(expected, rel=1e-5)


@given(pre_activations, arrays(np.float32, N, elements=st.floats(0.125, 2, width=32)))
def test_jumprelu_and_its_penalty_have_the_papers_pseudo_gradients(
    pre: NDArray[np.float32], theta: NDArray[np.float32]
) -> None:
    rule = JumpRelu(N, 3, 0.5)
    bandwidth = 0.5
    k = 3
    with torch.no_grad():
        rule.log_theta.copy_(torch.from_numpy(theta).log())
    theta = rule.log_theta.detach().exp().numpy()
    x = torch.from_numpy(pre).requires_grad_()
    upstream = torch.linspace(-1, 1, BATCH * N).reshape(BATCH, N)
    code = rule.train().keep(x)
    assert code.detach().numpy() == pytest.approx(np.where(pre > theta, pre, 0))
    (code * upstream).sum().backward()
    assert x.grad is not None
    assert x.grad.numpy() == pytest.approx(np.where(pre > theta, upstream.numpy(), 0))
    epsilon = bandwidth * theta
    distance = np.abs((pre - theta) / epsilon)
    if (np.abs(distance - 0.5) < 1e-4).any():
        return  # on the kernel's edge rounding decides
    K = (distance < 0.5).astype(np.float32)
    assert rule.log_theta.grad is not None
    # d/d log(theta) = theta d/d theta
    expected = theta * (upstream.numpy() * -(theta / epsilon) * K).sum(axis=0)
    assert rule.log_theta.grad is not None
    assert rule.log_theta.grad.numpy() == pytest.approx(expected, rel=1e-3, abs=1e-4)
    rule.log_theta.grad = None
    penalty = rule.penalty(torch.from_numpy(pre))
    l0 = (pre > theta).sum(axis=1).mean()
    assert penalty.item() == pytest.approx((l0 / k - 1) ** 2, rel=1e-4, abs=1e-6)
    penalty.backward()
    expected = 2 * (l0 / k - 1) / k * theta * (-K / epsilon).mean(axis=0)
    assert rule.log_theta.grad is not None
    assert rule.log_theta.grad.numpy() == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_nested_reconstructions_are_those_of_the_first_neurons_alone() -> None:
    torch.manual_seed(1)
    sae = SparseAutoencoder(6, N, TopK(3))
    sae.b_dec.data.normal_()
    code = sae.encode(torch.randn(BATCH, 6))
    sizes = MatryoshkaOptions(prefixes=3).prefix_sizes(N)
    assert sizes == (2, 4, 8)
    for size, y_hat in zip(sizes, nested(sae, code, sizes), strict=True):
        first = torch.where(torch.arange(N) < size, code, 0.0)
        torch.testing.assert_close(y_hat, sae.decode(first))


def test_the_tied_kinds_prefixes_are_equal_steps() -> None:
    assert TiedOptions().prefix_sizes(50) == (5, 10, 15, 20, 25, 30, 35, 40, 45, 50)
    assert TiedOptions().prefix_sizes(4) == (1, 2, 3, 4)


def test_the_parallel_part_of_the_decoders_gradient_is_removed() -> None:
    torch.manual_seed(2)
    sae = SparseAutoencoder(6, 10, TopK(3))
    sae.decode(sae.encode(torch.randn(5, 6))).square().sum().backward()
    before = sae.W_dec.grad
    assert before is not None
    assert (before * sae.W_dec).sum(dim=1).abs().max() > 0.01
    sae.drop_parallel_gradient()
    assert sae.W_dec.grad is not None
    assert (sae.W_dec.grad * sae.W_dec).sum(dim=1).abs().max() < 1e-5


def test_auxk_teaches_dead_neurons_only_and_only_the_residual() -> None:
    torch.manual_seed(2)
    sae = SparseAutoencoder(6, 10, TopK(3))
    z = torch.randn(20, 6)
    pre = sae.pre_activations(sae.normalised(z))
    residual = sae.normalised(z) - sae.decode(sae.sparsity(pre))
    dead = torch.arange(10) >= 6
    loss = auxk_loss(sae, pre, residual, dead, k_aux=3)
    loss.backward()
    assert sae.W_dec.grad is not None
    assert sae.W_dec.grad[:6].abs().max() == 0
    assert sae.W_dec.grad[6:].abs().max() > 0
    assert sae.W_enc.grad is not None
    assert sae.W_enc.grad[:, :6].abs().max() == 0
    # Naive formula: for each row the 3 largest dead activations rebuild the residual, without bias.
    fixed = pre.detach()
    W_dec = sae.W_dec.detach()
    residual = residual.detach()
    rebuilt = torch.zeros_like(residual)
    for row in range(20):
        for neuron in sorted(range(6, 10), key=lambda neuron: -float(fixed[row, neuron]))[:3]:
            rebuilt[row] += fixed[row, neuron].relu() * W_dec[neuron]
    variance = (residual - residual.mean(0)).square().mean()
    torch.testing.assert_close(loss.detach(), (rebuilt - residual).square().mean() / variance)


def test_auxk_is_0_without_dead_neurons() -> None:
    sae = SparseAutoencoder(6, 10, TopK(3))
    none_dead = torch.zeros(10, dtype=torch.bool)
    assert auxk_loss(sae, torch.ones(2, 10), torch.ones(2, 6), none_dead, 3).item() == 0


@pytest.fixture
def recommender(context: FitContext) -> Recommender:
    return PureSvd.of(singular_vectors(context.split.input_matrix(context.split.train), 12))


def test_a_neuron_that_stays_silent_for_long_enough_counts_as_dead(
    recommender: Recommender, context: FitContext
) -> None:
    options = TopKOptions(k=2, expansion=2, dead_after=1.0)
    sae = SAES["topk"].build(options, recommender.d)
    task = SaeTask(sae, options, recommender, context)
    task.start()
    with torch.no_grad():
        sae.b_enc[0] = -100.0
    for _ in range(2):
        for batch in task.batches(np.random.default_rng(0)):
            task.loss(batch)
    assert task.silent[0] == 2 * task.histories.size
    assert task.silent.min() < task.histories.size


def test_a_penaltys_weight_grows_while_codes_are_too_full_unless_it_is_fixed(
    recommender: Recommender, context: FitContext
) -> None:
    weights = []
    for penalty in (0.0, 0.25):
        options = SAES["relu"].options(k=1, expansion=4, penalty=penalty)
        task = PenalisedTask(
            SAES["relu"].build(options, recommender.d), options, recommender, context
        )
        task.start()
        before = float(task.weight)
        for batch in task.batches(np.random.default_rng(0)):
            task.loss(batch)
        weights.append((before, float(task.weight)))
    assert weights[0][1] > weights[0][0]
    assert weights[1] == (0.25, 0.25)


def rows(*items: Sequence[int]) -> Histories:
    offsets = np.cumsum([0, *map(len, items)])
    return Histories(offsets, np.concatenate([np.asarray(row, np.int64) for row in items]))


def lists(histories: Histories) -> list[list[int]]:
    pairs = zip(histories.offsets, histories.offsets[1:], strict=False)
    return [histories.items[start:stop].tolist() for start, stop in pairs]


@given(
    st.lists(st.lists(st.integers(0, 99), max_size=9, unique=True), min_size=1, max_size=6),
    st.integers(),
)
def test_a_prefix_is_the_oldest_part_of_a_history(items: list[list[int]], seed: int) -> None:
    cut = lists(rows(*items).prefixes(np.random.default_rng(abs(seed))))
    for whole, part in zip(items, cut, strict=True):
        assert part == whole[: len(part)]
        assert bool(part) == bool(whole)


@pytest.mark.parametrize("ordered", [False, True])
def test_a_draw_is_a_part_of_one_history_after_a_part_of_another(ordered: bool) -> None:
    histories = rows([1, 2, 3, 4, 5], [11, 12, 13, 14], [21, 22])
    rng = np.random.default_rng(0)
    drawing = SubHistories(histories, ordered, 0.2, 1.0, joined=1.0)
    lengths = set()
    for _ in range(400):
        for row, drawn in enumerate(lists(drawing.draw(np.arange(3), rng))):
            other, own = (
                list(part) for _, part in itertools.groupby(drawn, lambda item: item // 10)
            )
            assert {item // 10 for item in own} == {row}
            for part in (other, own):
                assert part == sorted(set(part))
            lengths.add((row, len(own)))
    assert {(0, 1), (0, 5), (1, 1), (1, 4), (2, 1), (2, 2)} <= lengths


def test_whole_histories_are_drawn_if_that_is_asked(
    recommender: Recommender, context: FitContext
) -> None:
    histories = context.split.histories(context.split.train)
    whole = SubHistories(histories, False, 1.0, 1.0, joined=0.0)
    batches = list(whole.embedded(recommender, 50, 64, np.random.default_rng(1)))
    assert [len(batch) for batch in batches[:-1]] == [64] * (len(batches) - 1)
    found = torch.cat(batches)
    expected = recommender.embed(
        histories.rows(np.random.default_rng(1).permutation(histories.size)), 50
    )
    torch.testing.assert_close(found, expected)


def test_every_epoch_encodes_other_sub_histories(
    recommender: Recommender, context: FitContext
) -> None:
    options = TopKOptions(k=2, expansion=2, batch_size=10_000)
    task = SaeTask(SAES["topk"].build(options, recommender.d), options, recommender, context)
    first, second = (
        next(task.batches(np.random.default_rng(epoch))).sort(dim=0).values for epoch in (0, 1)
    )
    assert not torch.allclose(first, second)
