"""From a catalogue's attributes and an SAE to named concepts and labelled neurons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

from training.concepts.config import ConceptConfig
from training.concepts.contrast import fit_contrast
from training.concepts.effect import Audience, measure
from training.concepts.membership import Membership, memberships
from training.concepts.tfidf import Label, characterises, neuron_labels, tag_activations, top_neurons
from training.histories import Histories
from training.interactions import Catalogue
from training.recommenders.base import Recommender
from training.saes.base import SparseAutoencoder
from training.splits import Split

_BLEND_NEURONS = 10


@dataclass(frozen=True)
class FittedConcept:
    """A human meaning with weights over neurons, and what steering it does.

    weights float32 [n_neurons]; unit is one TYPICAL unit in units of the code; auc on held-out items, None
    if there were too few; blend_neurons are those that TF-IDF maps to it, best first; the shares are mean
    exposure shares in top-20 lists of validation users, unsteered and at strength 1.
    """

    name: str
    attribute: str
    item_count: int
    method: str
    weights: NDArray[np.float32]
    unit: float
    auc: float | None
    blend_neurons: list[int]
    unsteered_share: float
    steered_share: float


class FittedConcepts(NamedTuple):
    """concepts in the order of their attributes, then by item count; labels per neuron, best first."""

    concepts: list[FittedConcept]
    labels: list[list[Label]]
    notes: tuple[str, ...]


def item_codes(
    recommender: Recommender, sae: SparseAutoencoder, max_length: int, batch_size: int = 1024
) -> csr_matrix:
    """Codes of the one-item histories of the whole catalogue: -> float32 [n_items, n_neurons]."""
    parts = []
    with torch.no_grad():
        for histories in Histories.single_items(recommender.n_items).batches(batch_size):
            code = sae.encode(recommender.embed(histories, max_length))
            parts.append(csr_matrix(code.numpy()))
    return vstack(parts, format="csr")


def fit_concepts(
    recommender: Recommender,
    sae: SparseAutoencoder,
    catalogue: Catalogue,
    split: Split,
    max_length: int,
    config: ConceptConfig,
    seed: int,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> FittedConcepts:
    """Fits every concept of the catalogue by contrast, labels neurons by TF-IDF, measures effects.

    report is told how many concepts of how many are done.
    """
    members = memberships(catalogue, config)
    if not members.names:
        note = "no attribute value is on enough items: there are no concepts, and no neuron has a label"
        return FittedConcepts([], [[] for _ in range(sae.n_neurons)], (note,))
    rng = np.random.default_rng([seed, 0xC0])
    codes = item_codes(recommender, sae, max_length)
    # An item that hardly any training user has is close to the random vector that it began with.
    trained = catalogue.popularity >= config.min_popularity
    contrast = fit_contrast(members.matrix, codes, trained, config.held_out_share, rng)
    table = characterises(tag_activations(members.matrix[:, trained], codes[trained]))
    blend = top_neurons(table, _BLEND_NEURONS)
    users = np.sort(rng.permutation(split.validation)[: config.max_users])
    audience = Audience.of(recommender, sae, split.histories(users), max_length)
    unsteered = audience.lists()
    concepts, silent = [], []
    for row, name in enumerate(members.names):
        report(row + 1, len(members.names))
        w = contrast.weights[row]
        if not w.any():
            silent.append(name)
            continue
        flags = members.matrix[row].toarray()[0] > 0
        effect = measure(audience, torch.from_numpy(w), flags, unsteered)
        auc = float(contrast.auc[row])
        concepts.append(
            FittedConcept(
                name, members.attributes[row], int(flags.sum()), "contrast", w, effect.unit,
                None if np.isnan(auc) else auc, blend[row], effect.unsteered_share, effect.steered_share,
            )
        )  # fmt: skip
    notes = (f"no neuron tells apart the items of {', '.join(silent)}: not a concept",) if silent else ()
    return FittedConcepts(concepts, neuron_labels(table, members.names), notes)


__all__ = ["FittedConcept", "FittedConcepts", "Membership", "fit_concepts", "item_codes"]
