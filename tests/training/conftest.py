"""A small planted data set, its split, and runs on it that several tests share."""

from pathlib import Path

import numpy as np
import pytest
import torch

from training.checkpoint import Checkpoints
from training.config import TrainConfig
from training.datasets.synthetic import SyntheticOptions, generate
from training.interactions import Prepared, prepare
from training.measures.ranking import mean_ndcg
from training.measures.scorers import ModelScorer
from training.pipeline import train
from training.recommenders import FitContext, Recommender
from training.recommenders.fitting.elsa import ElsaOptions
from training.run import Run
from training.saes.options import TopKOptions
from training.splits import Split, SplitConfig, hold_out

SMALL = SyntheticOptions(n_users=400, n_items=150, n_concepts=6, mean_events=20)
MAX_LENGTH = 50


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    # The models here are too small to share out, and waiting threads slow down whatever else runs.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def prepared() -> Prepared:
    return prepare(generate("synthetic", SMALL, seed=3))


@pytest.fixture(scope="session")
def split(prepared: Prepared) -> Split:
    interactions = prepared.interactions
    return hold_out(
        interactions.positives(None),
        interactions.user_ids,
        len(interactions.item_ids),
        SplitConfig(),
        seed=3,
    )


@pytest.fixture
def context(split: Split, tmp_path: Path) -> FitContext:
    def validate(model: Recommender) -> float:
        return mean_ndcg(ModelScorer(model, MAX_LENGTH), split, split.validation)

    return FitContext(split, MAX_LENGTH, 3, Checkpoints(tmp_path / "checkpoints"), validate)


def planted_config(seed: int = 1) -> TrainConfig:
    return TrainConfig(
        data="synthetic",
        seed=seed,
        max_length=MAX_LENGTH,
        recommender_options=ElsaOptions(d=32, epochs=30),
        sae_options=TopKOptions(k=8, expansion=4, epochs=100),
        data_options=SyntheticOptions(n_users=1200, n_items=300, n_concepts=10),
    )


@pytest.fixture(scope="session")
def planted_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Trains a run on planted concepts."""
    return train(planted_config(), tmp_path_factory.mktemp("runs") / "planted")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)
