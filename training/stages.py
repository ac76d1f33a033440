"""Fits the recommender and the SAE of a run unless its directory holds them, and measures them."""

from __future__ import annotations

from pathlib import Path

import torch

from training.checkpoint import Checkpoints
from training.config import TrainConfig
from training.measures.fidelity import measure_fidelity
from training.measures.ranking import judge, mean_ndcg
from training.measures.scorers import ModelScorer
from training.progress import Reporter
from training.recommenders import RECOMMENDERS, FitContext, Recommender
from training.run import load_recommender, load_sae, save_model
from training.saes import SAES, SparseAutoencoder
from training.splits import Split

LIST_LENGTH = 20
"""Items of the lists on which models are validated and measured."""


def new_context(
    config: TrainConfig,
    split: Split,
    checkpoints: Checkpoints,
    reporter: Reporter,
    device: torch.device,
) -> FitContext:
    """Makes the context of fitting; models are validated by nDCG@20 of the validation users."""

    def validate(model: Recommender) -> float:
        return mean_ndcg(
            ModelScorer(model, config.max_length), split, split.validation, LIST_LENGTH
        )

    return FitContext(
        split, config.max_length, config.seed, checkpoints, validate, reporter.epoch, device
    )


def complete_recommender(config: TrainConfig, out: Path, context: FitContext) -> Recommender:
    """Trains the configuration's recommender into the folder out, unless it is there already."""
    n_items = context.split.n_items
    if not (out / "recommender.json").is_file():
        torch.manual_seed(config.seed)
        kind = RECOMMENDERS[config.recommender]
        model = kind.build(config.recommender_options, n_items, config.max_length)
        result = kind.fit(model, config.recommender_options, context)
        about = {"kind": config.recommender, "n_items": n_items, "d": model.d, "p": model.p}
        save_model(out, "recommender", model, about | {"fit": result._asdict()})
    return load_recommender(out, config, n_items)


def complete_autoencoder(
    config: TrainConfig, out: Path, recommender: Recommender, context: FitContext
) -> SparseAutoencoder:
    """Trains the configuration's SAE into the folder out, unless it is there already."""
    if not (out / "sae.json").is_file():
        torch.manual_seed(config.seed)
        sae = SAES[config.sae].build(config.sae_options, recommender.d)
        result = SAES[config.sae].fit(sae, config.sae_options, recommender, context)
        about = {
            "kind": config.sae,
            "d": sae.d,
            "n_neurons": sae.n_neurons,
            "k": sae.k,
            "scale_factor": sae.scale_factor,
        }
        save_model(out, "sae", sae, about | {"fit": result._asdict()})
    return load_sae(out, config, recommender.d)


def measure_run(
    recommender: Recommender, sae: SparseAutoencoder, split: Split, max_length: int
) -> dict[str, float]:
    """Measures ranking and the SAE's fidelity on the test users, at lists of LIST_LENGTH items."""
    ranking = judge("", ModelScorer(recommender, max_length), split, split.test, LIST_LENGTH)
    fidelity = measure_fidelity(recommender, sae, split, split.test, max_length, LIST_LENGTH)
    return {
        "ndcg@20": ranking.ndcg,
        "recall@20": ranking.recall,
        "coverage@20": ranking.coverage,
        "reconstruct_ndcg@20": fidelity.reconstructed_ndcg,
        "reconstruct_ndcg_loss@20": fidelity.ndcg_loss,
        "reconstruct_overlap@20": fidelity.overlap,
        "sae_cosine": fidelity.cosine,
        "sae_l0": fidelity.l0,
        "sae_fvu": fidelity.fvu,
        "sae_dead_share": fidelity.dead_share,
    }
