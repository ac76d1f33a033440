"""Recommenders, each an encoder, a head and an item matrix; and the registry of those that can be trained."""

from training.recommenders.base import Activation, ItemMatrix, Recommender
from training.recommenders.elsa import Elsa
from training.recommenders.fitting.autoencoders import (
    MultDaeOptions,
    MultVaeOptions,
    fit_multdae,
    fit_multvae,
)
from training.recommenders.fitting.base import FitContext, RecommenderKind
from training.recommenders.fitting.elsa import ElsaOptions, fit_elsa
from training.recommenders.fitting.puresvd import PureSvdOptions, fit_puresvd
from training.recommenders.multvae import MultDae, MultVae
from training.recommenders.puresvd import PureSvd

RECOMMENDERS: dict[str, RecommenderKind] = {
    "elsa": RecommenderKind(ElsaOptions, lambda options, n_items, _: Elsa(n_items, options.d), fit_elsa),
    "puresvd": RecommenderKind(
        PureSvdOptions, lambda options, n_items, _: PureSvd(n_items, options.d), fit_puresvd
    ),
    "multdae": RecommenderKind(
        MultDaeOptions, lambda options, n_items, _: MultDae(n_items, options.d), fit_multdae
    ),
    "multvae": RecommenderKind(
        MultVaeOptions, lambda options, n_items, _: MultVae(n_items, options.d, options.p()), fit_multvae
    ),
}

__all__ = ["RECOMMENDERS", "Activation", "FitContext", "ItemMatrix", "Recommender", "RecommenderKind"]
