"""Measures how well lists find held-out items, for the recommender and for reference methods."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch

from training.arrays import Ints
from training.measures import metrics
from training.measures.scorers import EaseScorer, ModelScorer, PopularityScorer, Scorer, recommend
from training.recommender import Recommender
from training.recommenders.puresvd import PureSvd, singular_vectors
from training.splits import Split

EASE_PENALTIES = (30.0, 100.0, 200.0, 300.0, 500.0, 1000.0, 2000.0)
"""Ridge penalties that are tried on the validation users."""
PURESVD_RANKS = (8, 16, 24, 32, 48, 64, 96, 128)
"""Ranks that are tried on the validation users."""


class RankingFigures(NamedTuple):
    """Means over users at list length n, and the standard error of nDCG's mean."""

    method: str
    ndcg: float
    ndcg_error: float
    recall: float
    coverage: float
    setting: str = ""


def judge(
    method: str, scorer: Scorer, split: Split, users: Ints, n: int = 20, setting: str = ""
) -> RankingFigures:
    """Measures one scorer on the given held-out users."""
    targets = split.targets(users)
    lists = recommend(scorer, split.histories(users), split.n_items, n)
    ndcg = metrics.ndcg(lists, targets)
    return RankingFigures(
        method,
        float(ndcg.mean()),
        float(ndcg.std(ddof=1) / np.sqrt(len(ndcg))) if len(ndcg) > 1 else float("nan"),
        float(metrics.recall(lists, targets).mean()),
        metrics.coverage(lists, split.n_items),
        setting,
    )


def mean_ndcg(scorer: Scorer, split: Split, users: Ints, n: int = 20) -> float:
    """Returns the mean nDCG@n over the given held-out users."""
    lists = recommend(scorer, split.histories(users), split.n_items, n)
    return float(metrics.ndcg(lists, split.targets(users)).mean())


def references(split: Split, max_length: int) -> list[tuple[str, str, Scorer]]:
    """Returns (method, setting, scorer) of EASE, PureSVD and popularity.

    EASE and PureSVD are tuned on the validation users.
    """
    X = split.input_matrix(split.train)
    ease = _tuned(EASE_PENALTIES, lambda lam: EaseScorer.fit(X, lam, max_length), split)
    V = singular_vectors(X, min(PURESVD_RANKS[-1], min(X.shape) - 1))
    ranks = [rank for rank in PURESVD_RANKS if rank <= V.shape[1]] or [V.shape[1]]
    svd = _tuned(ranks, lambda rank: ModelScorer(PureSvd.of(V[:, : int(rank)]), max_length), split)
    popularity = PopularityScorer(torch.from_numpy(split.popularity().astype(np.float32)))
    return [
        ("EASE", f"penalty {ease.setting:g}", ease.scorer),
        ("PureSVD", f"rank {svd.setting:g}", svd.scorer),
        ("popularity", "", popularity),
    ]


def compare(
    recommender: Recommender, name: str, split: Split, max_length: int, n: int = 20
) -> list[RankingFigures]:
    """Measures the recommender and the references on the test users."""
    scorers = [(name, "", ModelScorer(recommender, max_length)), *references(split, max_length)]
    return [
        judge(method, scorer, split, split.test, n, setting) for method, setting, scorer in scorers
    ]


class _Tuned(NamedTuple):
    setting: float
    scorer: Scorer


def _tuned(settings: Iterable[float], build: Callable[[float], Scorer], split: Split) -> _Tuned:
    best = None
    best_value = -np.inf
    for setting in settings:
        scorer = build(setting)
        value = mean_ndcg(scorer, split, split.validation)
        if best is None or value > best_value:
            best = _Tuned(setting, scorer)
            best_value = value
    if best is None:
        raise ValueError("no settings to choose from")
    return best
