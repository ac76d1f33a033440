"""The knowledge of a steering method: the models, the items' codes, and the tags shown to it."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import numpy as np
import torch
from scipy.sparse import csr_matrix

from training.arrays import Bools, Floats
from training.concepts import item_codes
from training.concepts.gains.item_gains import item_vectors
from training.concepts.gains.platt import platt
from training.concepts.gains.ridge import Spectrum, ridge_probe
from training.run import Run
from training.saes import SparseAutoencoder
from training.saes.topk import TopK
from training.studies.frontier.audience import Audience, Users
from training.studies.frontier.probes import logistic_probe, neighbour_probe

_WIDE_K = 128
"""Active neurons of the wide codes."""


@dataclass(frozen=True)
class Features:
    """Codes of one-item histories [n_items, n_neurons] and the neurons' directions [n_neurons, d].

    float32. For the dense vectors themselves, the codes are z and W_dec is the unit matrix.
    """

    codes: Floats
    W_dec: Floats


@dataclass(frozen=True)
class Models:
    """A run's models and items, the judged users without targets, and validation users with theirs.

    validation is None where nothing has to be chosen.
    """

    run: Run
    users: Users
    validation: Audience | None
    fitted: Bools
    _spectra: dict[str, Spectrum] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Run, users: Users, validation: Audience | None = None) -> Self:
        """Leaves items of too few training events out of fitting, as training.concepts does."""
        return cls(
            run, users, validation, run.catalogue.popularity >= run.config.concepts.min_popularity
        )

    @cached_property
    def item_matrix(self) -> Floats:
        """Returns the item matrix, [n_items, d]."""
        return np.asarray(self.run.recommender.item_matrix().V.numpy(), dtype=np.float32)

    @cached_property
    def neurons(self) -> Features:
        """Returns the trained SAE's features."""
        return self._coded(self.run.sae)

    @cached_property
    def more_neurons(self) -> Features:
        """Returns the trained SAE's features with more neurons left active."""
        return self._coded(_with_k(self.run.sae, _WIDE_K))

    @cached_property
    def untrained(self) -> Features:
        """Returns the features of an SAE of the same shape before training."""
        return self._coded(self._untrained_sae(self.run.sae.k))

    @cached_property
    def more_untrained(self) -> Features:
        """Returns the untrained SAE's features with more neurons left active."""
        return self._coded(self._untrained_sae(_WIDE_K))

    @cached_property
    def dense(self) -> Features:
        """Returns the normalised z of one-item histories as features."""
        y = item_vectors(self.run.recommender, self.run.sae, self.run.config.max_length)
        return Features(y, np.eye(y.shape[1], dtype=np.float32))

    @cached_property
    def user_codes(self) -> Floats:
        """Returns the judged users' codes, [users, n_neurons]."""
        with torch.no_grad():
            codes: Floats = self.run.sae.encode(torch.from_numpy(self.users.z)).numpy()
        return codes

    @cached_property
    def histories(self) -> csr_matrix:
        """Returns the training users' items, [users, n_items]."""
        return self.run.split.input_matrix(self.run.split.train)

    def spectrum(self, kind: str) -> Spectrum:
        """Returns the spectrum of the features with a name, computed once."""
        if kind not in self._spectra:
            features: Features = getattr(self, kind)
            self._spectra[kind] = Spectrum.of(features.codes, self.fitted)
        return self._spectra[kind]

    def _coded(self, sae: SparseAutoencoder) -> Features:
        codes = item_codes(self.run.recommender, sae, self.run.config.max_length).toarray()
        return Features(codes, sae.W_dec.detach().numpy())

    def _untrained_sae(self, k: int) -> SparseAutoencoder:
        trained = self.run.sae
        with torch.random.fork_rng():
            torch.manual_seed(self.run.config.seed)
            sae = SparseAutoencoder(
                trained.d, trained.n_neurons, TopK(min(k, trained.n_neurons)), trained.normalisation
            )
        return sae.eval().requires_grad_(False)


def _with_k(sae: SparseAutoencoder, k: int) -> SparseAutoencoder:
    other = copy.deepcopy(sae)
    other.sparsity = TopK(min(k, sae.n_neurons))
    return other


@dataclass(frozen=True)
class Knowledge:
    """Models, and the tags shown: bool [n_concepts, n_items]; shared fits are computed once."""

    models: Models
    tags: Bools
    _ridges: dict[str, Floats] = field(default_factory=dict)

    @property
    def rng(self) -> np.random.Generator:
        """Returns a generator that draws the same for every method."""
        return np.random.default_rng([self.models.run.config.seed, 0xF0])

    @cached_property
    def dense_probe(self) -> Floats:
        """Fits a cross-fitted logistic regression on dense vectors, [n_concepts, n_items]."""
        return logistic_probe(self.models.dense.codes, self.tags, self.models.fitted, self.rng)

    @cached_property
    def kernel(self) -> Floats:
        """Averages a leave-one-out kernel on wide codes with half the contrast's gain."""
        near = neighbour_probe(self.models.more_neurons.codes, self.tags, self.models.fitted)
        return np.asarray((near + 0.5 * self.platt(self.models.neurons)) / 1.5, dtype=np.float32)

    def ridge(self, kind: str) -> Floats:
        """Fits leave-one-out ridge on one of the Models' features, once: [n_concepts, n_items]."""
        if kind not in self._ridges:
            self._ridges[kind] = ridge_probe(
                self.models.spectrum(kind), self.tags, self.models.fitted
            )
        return self._ridges[kind]

    def contrast(self, features: Features) -> Floats:
        """Returns the mean code of tagged items minus that of the rest: [n_concepts, n_neurons]."""
        C, shown = self._shown(features)
        count = shown.sum(axis=1, keepdims=True)
        inside = shown @ C
        outside = C.sum(axis=0) - inside
        weights = inside / np.maximum(count, 1) - outside / np.maximum(len(C) - count, 1)
        return np.asarray(weights, dtype=np.float32)

    def platt(self, features: Features) -> Floats:
        """Returns each item's level, by a contrast of the other items, through a sigmoid."""
        C, shown = self._shown(features)
        count = shown.sum(axis=1, keepdims=True)
        rest = len(C) - count
        inside = shown @ C
        outside = C.sum(axis=0) - inside
        scores = (inside / np.maximum(count, 1) - outside / np.maximum(rest, 1)) @ features.codes.T
        own = (C * C).sum(axis=1)
        inner = inside @ C.T
        outer = outside @ C.T
        without = np.where(
            shown > 0,
            (inner - own) / np.maximum(count - 1, 1) - outer / np.maximum(rest, 1),
            inner / np.maximum(count, 1) - (outer - own) / np.maximum(rest - 1, 1),
        )
        scores[:, self.models.fitted] = without
        return platt(scores.astype(np.float32), self.tags, self.models.fitted)

    def _shown(self, features: Features) -> tuple[Floats, Floats]:
        fitted = self.models.fitted
        return features.codes[fitted], self.tags[:, fitted].astype(np.float32)
