"""Recommenders, each an encoder, a head and an item matrix; and the registry of those that can be trained."""

from training.recommenders.base import ItemMatrix, Recommender
from training.recommenders.elsa import Elsa
from training.recommenders.fitting import (
    ElsaOptions,
    FitContext,
    PureSvdOptions,
    RecommenderKind,
    fit_elsa,
    fit_puresvd,
)
from training.recommenders.puresvd import PureSvd

RECOMMENDERS: dict[str, RecommenderKind] = {
    "elsa": RecommenderKind(ElsaOptions, lambda options, n_items: Elsa(n_items, options.d), fit_elsa),
    "puresvd": RecommenderKind(
        PureSvdOptions, lambda options, n_items: PureSvd(n_items, options.d), fit_puresvd
    ),
}

__all__ = ["RECOMMENDERS", "FitContext", "ItemMatrix", "Recommender", "RecommenderKind"]
