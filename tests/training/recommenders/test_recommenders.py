"""What every recommender can do, whatever it is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from training.checkpoint import Checkpoints, load_tensors, save_tensors
from training.errors import ConfigError, DataError
from training.histories import Histories
from training.measures.ranking import mean_ndcg
from training.measures.scorers import EaseScorer, ModelScorer, PopularityScorer, best_lists
from training.recommenders import RECOMMENDERS, FitContext, Recommender
from training.recommenders.fitting.als import AlsOptions
from training.recommenders.fitting.autoencoders import MultDaeOptions, MultVaeOptions
from training.recommenders.fitting.bpr import BprOptions
from training.recommenders.fitting.elsa import ElsaOptions
from training.recommenders.fitting.lightgcn import LightGcnOptions
from training.recommenders.fitting.logistic import LogisticOptions
from training.recommenders.fitting.puresvd import PureSvdOptions
from training.recommenders.fitting.sequential_causal import GptOptions, SasRecOptions
from training.recommenders.fitting.sequential_interests import TimiRecOptions
from training.recommenders.fitting.sequential_masked import Bert4RecOptions
from training.splits import Split

SEQUENTIAL: dict[str, Any] = {"dropout": 0.1, "lr": 1e-2, "batch_size": 64, "validate_every": 4}
OPTIONS: dict[str, Any] = {
    "elsa": ElsaOptions(d=16, epochs=40, lr=2e-2),
    "puresvd": PureSvdOptions(d=8),
    "multdae": MultDaeOptions(d=16, epochs=20, lr=1e-2),
    "multvae": MultVaeOptions(d=16, epochs=20, lr=1e-2),
    "als": AlsOptions(d=16, penalty=5.0, sweeps=5),
    "bpr": BprOptions(d=16, epochs=15, lr=5e-2, batch_size=2048),
    "logistic": LogisticOptions(d=16, epochs=20, lr=3e-2, sample_size=64),
    "lightgcn": LightGcnOptions(d=16, epochs=15, lr=5e-2, batch_size=2048),
    "sasrec": SasRecOptions(d=16, blocks=1, epochs=8, **SEQUENTIAL),
    "gpt": GptOptions(d=16, blocks=1, epochs=8, **SEQUENTIAL),
    "bert4rec": Bert4RecOptions(blocks=1, epochs=15, **SEQUENTIAL | {"dropout": 0.0, "lr": 3e-3}),
    "timirec": TimiRecOptions(d=16, epochs=8, warm_up=2, **SEQUENTIAL),
}


@pytest.fixture(params=sorted(RECOMMENDERS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def fitted(name: str, context: FitContext) -> Recommender:
    torch.manual_seed(context.seed)
    kind = RECOMMENDERS[name]
    model = kind.build(OPTIONS[name], context.split.n_items, context.max_length)
    kind.fit(model, OPTIONS[name], context)
    return model.eval().requires_grad_(False)


def test_it_recommends_better_than_popularity(name: str, context: FitContext) -> None:
    split = context.split
    popularity = PopularityScorer(torch.from_numpy(split.popularity().astype(np.float32)))
    ours = mean_ndcg(ModelScorer(fitted(name, context), context.max_length), split, split.test)
    assert ours > 1.5 * mean_ndcg(popularity, split, split.test)


def test_padding_does_not_change_an_encoding(name: str, context: FitContext) -> None:
    model = fitted(name, context)
    items = torch.tensor([[3, 5, 7]])
    mask = torch.ones(1, 3)
    padded = torch.tensor([[3, 5, 7, 0, 0]])
    padded_mask = torch.tensor([[1.0, 1, 1, 0, 0]])
    torch.testing.assert_close(model.encode(items, mask), model.encode(padded, padded_mask))


def test_a_history_of_length_0_is_encoded(name: str, context: FitContext) -> None:
    model = fitted(name, context)
    z = model.encode(torch.zeros(2, 0, dtype=torch.int64), torch.zeros(2, 0))
    assert z.shape == (2, model.d)
    assert torch.isfinite(z).all()
    assert model.embed(Histories(np.zeros(1, np.int64), np.zeros(0, np.int64)), 5).shape == (
        0,
        model.d,
    )


def test_the_same_seed_gives_the_same_numbers(
    name: str, context: FitContext, tmp_path: Path
) -> None:
    again = context._replace(checkpoints=Checkpoints(tmp_path / "other"))
    first = fitted(name, context).state_dict()
    second = fitted(name, again).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_it_survives_its_checkpoint(name: str, context: FitContext, tmp_path: Path) -> None:
    model = fitted(name, context)
    save_tensors(tmp_path / "model.safetensors", dict(model.state_dict()))
    other = RECOMMENDERS[name].build(OPTIONS[name], model.n_items, context.max_length)
    other.load_state_dict(load_tensors(tmp_path / "model.safetensors"))
    histories = context.split.histories(context.split.test)
    assert torch.equal(
        ModelScorer(other, context.max_length).scores(histories),
        ModelScorer(model, context.max_length).scores(histories),
    )


def test_its_scores_are_its_item_matrix_times_its_query(name: str, context: FitContext) -> None:
    model = fitted(name, context)
    z = model.embed(context.split.histories(context.split.test), context.max_length)
    V, b = model.item_matrix()
    assert V.shape == (model.n_items, model.p)
    assert model.has_head or torch.equal(model.head(z), z)
    torch.testing.assert_close(model.scores(z), model.head(z) @ V.T + b)


def test_ease_is_the_least_squares_solution_with_a_zero_diagonal(split: Split) -> None:
    X = split.input_matrix(split.train)
    B = EaseScorer.fit(X, 50.0, 200).B.double()
    assert B.diagonal().abs().max() == 0
    dense = torch.from_numpy(X.toarray()).double()
    # Stationary off the diagonal: the gradient of ||X - XB||^2 + lam ||B||^2 vanishes there.
    gradient = dense.T @ (dense @ B - dense) + 50.0 * B
    off = gradient - torch.diag(gradient.diagonal())
    assert off.abs().max() < 1e-3 * gradient.diagonal().abs().max()


def test_seen_items_never_come_back_and_short_lists_end_in_minus_1() -> None:
    seen = Histories(np.array([0, 3]), np.array([0, 2, 4])).matrix(5)
    lists = best_lists(torch.tensor([[9.0, 1.0, 8.0, 2.0, 7.0]]), seen, 4)
    assert lists.tolist() == [[3, 1, -1, -1]]


@pytest.mark.parametrize(
    "wrong", [{"d": 0}, {"input_dropout": 1.0}, {"epochs": 0}, {"lr": 0.0}, {"patience": 0}]
)
def test_elsa_refuses_settings_without_meaning(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        ElsaOptions(**wrong)  # type: ignore[arg-type]


def test_puresvd_refuses_more_vectors_than_there_are_items(context: FitContext) -> None:
    options = PureSvdOptions(d=context.split.n_items)
    model = RECOMMENDERS["puresvd"].build(options, context.split.n_items, context.max_length)
    with pytest.raises(ConfigError, match="expected less than"):
        RECOMMENDERS["puresvd"].fit(model, options, context)


def test_an_unknown_data_set_is_answered_with_the_known_ones() -> None:
    from training.datasets import load_data_set

    with pytest.raises(DataError, match="ml-100k, synthetic"):
        load_data_set("ml-10k", None, 0)
