"""Computes a bundle's gains: how much of a concept each item carries, tagged or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from training.arrays import Bools, Floats
from training.concepts.config import ConceptConfig
from training.concepts.fitting import FittedConcept
from training.concepts.gains.ridge import Spectrum, ridge_probe
from training.concepts.membership import items_with
from training.errors import ConfigError
from training.histories import Histories
from training.interactions import Catalogue
from training.recommender import Recommender
from training.saes.base import SparseAutoencoder

RIDGE = "ridge"
GAINS = (RIDGE,)
"""Names of the methods for gains. ridge: the probability by leave-one-out ridge regression on the
items' vectors."""
_LEAST = 1e-12


class GainOptions(Protocol):
    """The part of a run's configuration that gains depend on."""

    @property
    def max_length(self) -> int:
        """Returns the length of histories that the recommender reads."""

    @property
    def concepts(self) -> ConceptConfig:
        """Returns the options that the concepts were fitted with."""


class TrainedModel(Protocol):
    """The part of a finished run that gains are computed from."""

    @property
    def config(self) -> GainOptions:
        """Returns the run's configuration."""

    @property
    def catalogue(self) -> Catalogue:
        """Returns the items with their attributes."""

    @property
    def recommender(self) -> Recommender:
        """Returns the recommender whose item vectors are read."""

    @property
    def sae(self) -> SparseAutoencoder:
        """Returns the SAE whose normalisation is applied to the vectors."""

    @property
    def concepts(self) -> Sequence[FittedConcept]:
        """Returns the concepts that gains are computed for."""


def gains_of(run: TrainedModel, method: str) -> Floats:
    """Computes every item's gain for each of the run's concepts, 0 to 1: [n_concepts, n_items].

    The largest gain of each concept is 1, so that strengths are comparable. Where the vectors tell
    nothing of a concept, the gain is 1 for the items that have the tag.

    Raises:
        ConfigError: the method is not known.
    """
    if method != RIDGE:
        raise ConfigError(f"gains: expected one of {', '.join(GAINS)}, found {method!r}")
    fitted = run.catalogue.popularity >= run.config.concepts.min_popularity
    vectors = item_vectors(run.recommender, run.sae, run.config.max_length)
    tags = tagged(run.catalogue, run.concepts)
    probabilities = ridge_probe(Spectrum.of(vectors, fitted), tags, fitted)
    tells = np.ptp(probabilities, axis=1, keepdims=True) > 0
    return np.where(
        tells, probabilities / probabilities.max(axis=1, keepdims=True, initial=_LEAST), tags
    ).astype(np.float32)


def item_vectors(
    recommender: Recommender, sae: SparseAutoencoder, max_length: int, batch_size: int = 1024
) -> Floats:
    """Returns the SAE's inputs for the one-item histories of the whole catalogue: [n_items, d]."""
    batches = Histories.single_items(recommender.n_items).batches(batch_size)
    with torch.no_grad():
        return np.concatenate(
            [sae.normalised(recommender.embed(batch, max_length)).numpy() for batch in batches]
        )


def tagged(catalogue: Catalogue, concepts: Sequence[FittedConcept]) -> Bools:
    """Flags the items that carry each concept's value of its attribute: [n_concepts, n_items]."""
    flags = [items_with(catalogue, concept.attribute, concept.value) for concept in concepts]
    nobody = np.zeros(catalogue.n_items, dtype=bool)
    return np.array([nobody if own is None else own for own in flags]).reshape(
        len(concepts), len(nobody)
    )
