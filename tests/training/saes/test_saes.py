"""What every sparse autoencoder can do, whatever its sparsity rule, loss and normalisation."""

import copy
import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from training.checkpoint import Checkpoints, load_tensors, save_tensors
from training.errors import ConfigError
from training.loop import EpochReport
from training.options import documented
from training.recommenders import FitContext, Recommender
from training.recommenders.puresvd import PureSvd, singular_vectors
from training.saes import SAES, SparseAutoencoder
from training.saes.normalisation import NORMALISATIONS
from training.splits import Split

D = 12
K = 4
SMALL: dict[str, Any] = {"k": K, "expansion": 4, "epochs": 40, "lr": 1e-2, "batch_size": 64}


class Setting(NamedTuple):
    """A recommender, what it was trained on, and the test users' embeddings."""

    recommender: Recommender
    context: FitContext
    z: Tensor


@pytest.fixture(scope="module")
def setting(split: Split, tmp_path_factory: pytest.TempPathFactory) -> Setting:
    recommender = PureSvd.of(singular_vectors(split.input_matrix(split.train), D))
    checkpoints = Checkpoints(tmp_path_factory.mktemp("checkpoints"), every_s=1e9)
    context = FitContext(split, 50, 3, checkpoints, lambda _: 0.0)
    return Setting(recommender, context, recommender.embed(split.histories(split.test), 50))


def build(name: str) -> SparseAutoencoder:
    torch.manual_seed(1)
    return SAES[name].build(SAES[name].options(**SMALL), D)


def fit(name: str, setting: Setting, **options: Any) -> SparseAutoencoder:
    chosen = SAES[name].options(**SMALL | options)
    torch.manual_seed(1)
    sae = SAES[name].build(chosen, D)
    SAES[name].fit(sae, chosen, setting.recommender, setting.context)
    return sae.eval().requires_grad_(False)


@pytest.fixture(params=sorted(SAES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def trained(setting: Setting) -> dict[str, SparseAutoencoder]:
    return {name: fit(name, setting) for name in SAES}


@pytest.fixture
def sae(name: str, trained: dict[str, SparseAutoencoder]) -> SparseAutoencoder:
    return copy.deepcopy(trained[name])


@pytest.fixture
def z(setting: Setting) -> Tensor:
    return setting.z


def unexplained(sae: SparseAutoencoder, z: Tensor) -> float:
    y = sae.normalised(z)
    with torch.no_grad():
        return float(
            (sae.decode(sae.encode(z)) - y).square().sum() / (y - y.mean(0)).square().sum()
        )


def test_it_starts_tied_with_unit_decoder_rows(name: str) -> None:
    sae = build(name)
    assert torch.equal(sae.W_enc, sae.W_dec.T)
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(sae.n_neurons))


def test_training_explains_most_of_the_variance(
    name: str, sae: SparseAutoencoder, z: Tensor
) -> None:
    assert unexplained(sae, z) < 0.6 < unexplained(build(name).eval(), z)


def test_decoder_rows_have_unit_norm_after_training(sae: SparseAutoencoder) -> None:
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(sae.n_neurons))


def test_about_as_many_neurons_are_active_as_were_asked_for(
    sae: SparseAutoencoder, z: Tensor
) -> None:
    code = sae.encode(z)
    assert code.shape == (len(z), sae.n_neurons)
    assert (code >= 0).all()
    counts = (code > 0).sum(dim=1)
    assert (counts <= sae.k).all()
    assert 0.5 * K < counts.float().mean() < 1.5 * K


def test_the_sparse_and_the_dense_code_are_the_same(sae: SparseAutoencoder, z: Tensor) -> None:
    neurons, activations = sae.encode_sparse(z)
    assert neurons.dtype == torch.int64
    assert neurons.shape == activations.shape == (len(z), sae.k)
    assert (activations.diff(dim=1) <= 0).all()
    dense = torch.zeros(len(z), sae.n_neurons).scatter(1, neurons, activations)
    assert torch.equal(dense, sae.encode(z))
    torch.testing.assert_close(sae.decode(sae.encode_sparse(z)), sae.decode(dense))


def test_a_code_past_the_cap_keeps_its_largest(sae: SparseAutoencoder, z: Tensor) -> None:
    whole = sae.encode(z)
    sae.sparsity.k = 2
    assert torch.equal(sae.encode(z).sort(dim=1).values[:, -2:], whole.sort(dim=1).values[:, -2:])
    assert ((sae.encode(z) > 0).sum(dim=1) <= 2).all()


def test_it_survives_its_checkpoint(
    name: str, sae: SparseAutoencoder, z: Tensor, tmp_path: Path
) -> None:
    save_tensors(tmp_path / "sae.safetensors", dict(sae.state_dict()))
    other = build(name).eval()
    other.load_state_dict(load_tensors(tmp_path / "sae.safetensors"))
    other.scale_factor = sae.scale_factor
    assert other.k == sae.k
    assert torch.equal(other.encode(z), sae.encode(z))
    assert torch.equal(other.reconstruct(z), sae.reconstruct(z))


class Stopped(Exception):
    pass


def test_an_interrupted_training_ends_as_an_uninterrupted_one(
    name: str, setting: Setting, tmp_path: Path
) -> None:
    def stop(report: EpochReport) -> None:
        if report.epoch == 4:
            raise Stopped

    context = setting.context._replace(checkpoints=Checkpoints(tmp_path, every_s=0))
    stopping = setting._replace(context=context._replace(report=stop))
    with pytest.raises(Stopped):
        fit(name, stopping, epochs=6)
    resumed = fit(name, setting._replace(context=context), epochs=6)
    whole = fit(name, setting, epochs=6)
    left = resumed.state_dict()
    right = whole.state_dict()
    assert all(torch.equal(left[key], right[key]) for key in right)
    assert resumed.scale_factor == whole.scale_factor


@pytest.mark.parametrize("normalise", sorted(NORMALISATIONS))
def test_what_normalisation_does_is_undone(
    name: str, normalise: str, setting: Setting, z: Tensor
) -> None:
    sae = fit(name, setting, normalise=normalise, epochs=2)
    assert sae.scale_rule == normalise
    assert sae.scale(z).shape == sae.shift(z).shape == (len(z), 1)
    torch.testing.assert_close(
        sae.scale(z) * sae.normalised(z) + sae.shift(z), z, rtol=1e-4, atol=1e-5
    )
    rebuilt = sae.scale(z) * sae.decode(sae.encode(z)) + sae.shift(z)
    torch.testing.assert_close(sae.reconstruct(z), rebuilt)


@pytest.mark.parametrize("kind", ["topk", "relu", "tied"])
def test_a_cosine_loss_learns_the_direction_and_a_length_is_fitted(
    kind: str, setting: Setting, z: Tensor
) -> None:
    sae = fit(kind, setting, loss="cosine")
    rebuilt = sae.reconstruct(z)
    assert torch.cosine_similarity(rebuilt, z).mean() > 0.8
    assert 0.8 < (rebuilt.norm(dim=1) / z.norm(dim=1)).mean() < 1.1


def test_rescaling_changes_reconstructions_but_no_code(sae: SparseAutoencoder, z: Tensor) -> None:
    code = sae.encode(z)
    rebuilt = sae.reconstruct(z)
    sae.rescale(1.7)
    torch.testing.assert_close(sae.encode(z), code, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(sae.reconstruct(z), 1.7 * rebuilt, rtol=1e-3, atol=1e-3)


def test_the_zero_embedding_has_a_code_and_scale_1(sae: SparseAutoencoder) -> None:
    zero = torch.zeros(1, sae.d)
    assert sae.scale(zero).item() == pytest.approx(sae.scale_factor)
    assert torch.equal(sae.normalised(zero), zero)
    assert torch.isfinite(sae.encode(zero)).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"k": 0},
        {"expansion": 0},
        {"keep_low": 0.0},
        {"keep_low": 0.9, "keep_high": 0.5},
        {"joined": -1},
        {"auxk_weight": -0.1},
        {"dead_after": 0.0},
        {"loss": "l1"},
        {"normalise": "layer"},
        {"lr": 0.0},
    ],
)
def test_settings_without_meaning_are_refused(name: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        SAES[name].options(**wrong)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("relu", {"penalty": -1.0}),
        ("jumprelu", {"penalty": 0.0}),
        ("jumprelu", {"bandwidth": 0.0}),
        ("batchtopk", {"momentum": 1.0}),
        ("matryoshka", {"prefixes": 0}),
        ("tied", {"prefixes": 0}),
        ("tied", {"kl_rate": 1.0}),
        ("tied", {"score_weight": -1.0}),
    ],
)
def test_a_kinds_own_settings_without_meaning_are_refused(kind: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        SAES[kind].options(**wrong)


def test_k_larger_than_the_width_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="k: expected at most n_neurons = 16 x 2, found 33"):
        SAES[name].build(SAES[name].options(k=33, expansion=2), 16)


def test_every_option_becomes_a_flag(name: str) -> None:
    options = SAES[name].options
    assert list(documented(options)) == [field.name for field in dataclasses.fields(options)]
