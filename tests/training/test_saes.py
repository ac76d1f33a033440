"""What every sparse autoencoder can do, whatever its sparsity rule."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from training.checkpoint import load_tensors, save_tensors
from training.errors import ConfigError
from training.recommenders import FitContext, Recommender
from training.recommenders.puresvd import PureSvd, singular_vectors
from training.saes import SAES, SparseAutoencoder, fit_sae
from training.saes.auxk import auxk_loss
from training.saes.fitting import SaeTask, TopKOptions
from training.saes.topk import TopK

OPTIONS: dict[str, Any] = {"topk": TopKOptions(k=4, expansion=4, epochs=30)}


@pytest.fixture(params=sorted(SAES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def recommender(context: FitContext) -> Recommender:
    X = context.split.input_matrix(context.split.train)
    return PureSvd.of(singular_vectors(X, 12))


@pytest.fixture
def z(recommender: Recommender, context: FitContext) -> Tensor:
    return recommender.embed(context.split.histories(context.split.test), context.max_length)


@pytest.fixture
def sae(name: str, recommender: Recommender, context: FitContext) -> SparseAutoencoder:
    torch.manual_seed(1)
    sae = SAES[name].build(OPTIONS[name], recommender.d)
    fit_sae(sae, OPTIONS[name], recommender, context)
    return sae.eval().requires_grad_(False)


def test_it_starts_tied_with_unit_decoder_rows(name: str) -> None:
    sae = SAES[name].build(OPTIONS[name], 12)
    assert torch.equal(sae.W_enc, sae.W_dec.T)
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(sae.n_neurons))


def test_decoder_rows_have_unit_norm_after_training(sae: SparseAutoencoder) -> None:
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(sae.n_neurons))


def test_no_code_has_more_than_k_active_neurons(sae: SparseAutoencoder, z: Tensor) -> None:
    code = sae.encode(z)
    assert code.shape == (len(z), sae.n_neurons)
    assert ((code > 0).sum(dim=1) <= sae.k).all()
    assert (code >= 0).all()


def test_the_sparse_and_the_dense_code_are_the_same(sae: SparseAutoencoder, z: Tensor) -> None:
    neurons, activations = sae.encode_sparse(z)
    assert neurons.dtype == torch.int64
    assert neurons.shape == activations.shape == (len(z), sae.k)
    assert (activations.diff(dim=1) <= 0).all()
    dense = torch.zeros(len(z), sae.n_neurons).scatter(1, neurons, activations)
    assert torch.equal(dense, sae.encode(z))


def test_a_code_does_not_depend_on_the_embeddings_length(sae: SparseAutoencoder, z: Tensor) -> None:
    torch.testing.assert_close(sae.encode(z), sae.encode(37.5 * z), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sae.reconstruct(37.5 * z), 37.5 * sae.reconstruct(z), rtol=1e-4, atol=1e-4)


def test_the_zero_embedding_has_a_code_and_scale_1(sae: SparseAutoencoder) -> None:
    zero = torch.zeros(1, sae.d)
    assert sae.scale(zero).item() == sae.scale_factor
    assert torch.isfinite(sae.encode(zero)).all()
    assert torch.equal(sae.encode(zero), sae.sparsity(torch.relu(sae.b_enc - sae.b_dec @ sae.W_enc)[None]))


def test_training_explains_most_of_the_variance(name: str, sae: SparseAutoencoder, z: Tensor) -> None:
    torch.manual_seed(1)
    untrained = SAES[name].build(OPTIONS[name], sae.d)
    y = z / sae.scale(z)

    def unexplained(model: SparseAutoencoder) -> float:
        with torch.no_grad():
            return float((model.decode(model.encode(z)) - y).square().sum() / (y - y.mean(0)).square().sum())

    assert unexplained(sae) < 0.3 < unexplained(untrained)


def test_it_survives_its_checkpoint(name: str, sae: SparseAutoencoder, z: Tensor, tmp_path: Path) -> None:
    save_tensors(tmp_path / "sae.safetensors", dict(sae.state_dict()))
    other = SAES[name].build(OPTIONS[name], sae.d)
    other.load_state_dict(load_tensors(tmp_path / "sae.safetensors"))
    assert torch.equal(other.encode(z), sae.encode(z))


def test_topk_keeps_the_largest() -> None:
    code = TopK(2)(torch.tensor([[0.1, 0.0, 3.0, 2.0], [0.0, 0.0, 0.0, 1.0]]))
    assert code.tolist() == [[0, 0, 3.0, 2.0], [0, 0, 0, 1.0]]


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
    activations = sae.activations(z)
    residual = z / sae.scale(z) - sae.decode(sae.sparsity(activations))
    dead = torch.arange(10) >= 6
    loss = auxk_loss(sae, activations, residual, dead, k_aux=3)
    loss.backward()
    assert sae.W_dec.grad is not None
    assert sae.W_dec.grad[:6].abs().max() == 0
    assert sae.W_dec.grad[6:].abs().max() > 0
    assert sae.W_enc.grad is not None
    assert sae.W_enc.grad[:, :6].abs().max() == 0
    # Naive formula: for each row the 3 largest dead activations rebuild the residual, without bias.
    fixed, W_dec, residual = activations.detach(), sae.W_dec.detach(), residual.detach()
    rebuilt = torch.zeros_like(residual)
    for row in range(20):
        for neuron in sorted(range(6, 10), key=lambda neuron: -float(fixed[row, neuron]))[:3]:
            rebuilt[row] += fixed[row, neuron] * W_dec[neuron]
    variance = (residual - residual.mean(0)).square().mean()
    torch.testing.assert_close(loss.detach(), (rebuilt - residual).square().mean() / variance)


def test_auxk_is_0_without_dead_neurons() -> None:
    sae = SparseAutoencoder(6, 10, TopK(3))
    none_dead = torch.zeros(10, dtype=torch.bool)
    assert auxk_loss(sae, torch.ones(2, 10), torch.ones(2, 6), none_dead, 3).item() == 0


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


def test_every_epoch_encodes_other_sub_histories(recommender: Recommender, context: FitContext) -> None:
    options = TopKOptions(k=2, expansion=2, batch_size=10_000)
    task = SaeTask(SAES["topk"].build(options, recommender.d), options, recommender, context)
    first, second = (next(task.batches(np.random.default_rng(epoch))).sort(dim=0).values for epoch in (0, 1))
    assert not torch.allclose(first, second)
    whole = TopKOptions(k=2, expansion=2, batch_size=10_000, keep_low=1.0)
    task = SaeTask(SAES["topk"].build(whole, recommender.d), whole, recommender, context)
    first, second = (next(task.batches(np.random.default_rng(epoch))).sort(dim=0).values for epoch in (0, 1))
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize(
    "wrong",
    [{"k": 0}, {"expansion": 0}, {"keep_low": 0.0}, {"keep_low": 0.9, "keep_high": 0.5}, {"dead_after": 0.0}],
)
def test_settings_without_meaning_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        TopKOptions(**wrong)  # type: ignore[arg-type]


def test_k_larger_than_the_width_is_refused() -> None:
    with pytest.raises(ConfigError, match="k is 33, expected at most n_neurons = 16 x 2"):
        SAES["topk"].build(TopKOptions(k=33, expansion=2), 16)
