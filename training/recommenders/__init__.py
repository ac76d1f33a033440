"""Recommenders, each an encoder, a head and an item matrix, and their registry."""

from training.fit import FitContext, RecommenderKind
from training.recommender import Activation, ItemMatrix, Recommender
from training.recommenders.bert4rec import Bert4Rec
from training.recommenders.elsa import Elsa
from training.recommenders.fitting.als import AlsOptions, build_als, solve_als
from training.recommenders.fitting.autoencoders import (
    MultDaeOptions,
    MultVaeOptions,
    train_multdae,
    train_multvae,
)
from training.recommenders.fitting.bpr import BprOptions, build_bpr, train_bpr
from training.recommenders.fitting.elsa import ElsaOptions, train_elsa
from training.recommenders.fitting.lightgcn import LightGcnOptions, build_lightgcn, train_lightgcn
from training.recommenders.fitting.logistic import LogisticOptions, build_logistic, train_logistic
from training.recommenders.fitting.puresvd import PureSvdOptions, decompose_puresvd
from training.recommenders.fitting.sequential_causal import (
    GptOptions,
    SasRecOptions,
    train_gpt,
    train_sasrec,
)
from training.recommenders.fitting.sequential_interests import TimiRecOptions, train_timirec
from training.recommenders.fitting.sequential_masked import Bert4RecOptions, train_bert4rec
from training.recommenders.gpt import Gpt
from training.recommenders.multvae import MultDae, MultVae
from training.recommenders.puresvd import PureSvd
from training.recommenders.sasrec import SasRec
from training.recommenders.timirec import TimiRec

RECOMMENDERS: dict[str, RecommenderKind] = {
    "elsa": RecommenderKind(
        ElsaOptions, lambda options, n_items, _: Elsa(n_items, options.d), train_elsa
    ),
    "puresvd": RecommenderKind(
        PureSvdOptions, lambda options, n_items, _: PureSvd(n_items, options.d), decompose_puresvd
    ),
    "multdae": RecommenderKind(
        MultDaeOptions, lambda options, n_items, _: MultDae(n_items, options.d), train_multdae
    ),
    "multvae": RecommenderKind(
        MultVaeOptions,
        lambda options, n_items, _: MultVae(n_items, options.d, options.p()),
        train_multvae,
    ),
    "als": RecommenderKind(AlsOptions, build_als, solve_als),
    "bpr": RecommenderKind(BprOptions, build_bpr, train_bpr),
    "logistic": RecommenderKind(LogisticOptions, build_logistic, train_logistic),
    "lightgcn": RecommenderKind(LightGcnOptions, build_lightgcn, train_lightgcn),
    "sasrec": RecommenderKind(
        SasRecOptions,
        lambda options, n_items, max_length: SasRec(n_items, max_length, options.shape()),
        train_sasrec,
        ordered=True,
    ),
    "gpt": RecommenderKind(
        GptOptions,
        lambda options, n_items, max_length: Gpt(n_items, max_length, options.shape()),
        train_gpt,
        ordered=True,
    ),
    "bert4rec": RecommenderKind(
        Bert4RecOptions,
        lambda options, n_items, max_length: Bert4Rec(n_items, max_length, options.shape()),
        train_bert4rec,
        ordered=True,
    ),
    "timirec": RecommenderKind(
        TimiRecOptions,
        lambda options, n_items, max_length: TimiRec(
            n_items, max_length, options.d, options.interests, options.attention, options.dropout
        ),
        train_timirec,
        ordered=True,
    ),
}

__all__ = [
    "RECOMMENDERS",
    "Activation",
    "FitContext",
    "ItemMatrix",
    "Recommender",
    "RecommenderKind",
]
