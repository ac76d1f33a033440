"""Fits named concepts and neurons' labels to a catalogue's attributes and an SAE."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_matrix, vstack

from training.arrays import Bools, Doubles, Floats
from training.concepts.config import ConceptConfig
from training.concepts.describing.dictionary import (
    DICTIONARY,
    Dictionary,
    DictionaryOptions,
    make_dictionary,
)
from training.concepts.describing.metadata import MetadataDescriber
from training.concepts.effect import Audience, measure
from training.concepts.labels import Label, joined, labels_by
from training.concepts.mapping.association import weights_aucs
from training.concepts.mapping.evidence import Evidence
from training.concepts.mapping.methods import METHODS
from training.concepts.mapping.tfidf import tfidf, top_neurons
from training.concepts.membership import Membership, memberships
from training.histories import Histories
from training.interactions import Catalogue
from training.recommender import Recommender
from training.saes.base import SparseAutoencoder
from training.splits import Split

_BLEND_NEURONS = 10
_LABELS_PER_METHOD = 2


@dataclass(frozen=True)
class FittedConcept:
    """A human meaning with weights over neurons, and what steering it does.

    weights float32 [n_neurons]; unit is one TYPICAL unit in units of the code; auc on held-out
    items, None if there were too few; blend_neurons are those that TF-IDF maps to it, best first;
    the shares are mean exposure shares in top-20 lists of validation users, unsteered and at
    strength 1.
    """

    name: str
    attribute: str
    item_count: int
    method: str
    weights: Floats
    unit: float
    auc: float | None
    blend_neurons: list[int]
    unsteered_share: float
    steered_share: float

    @property
    def value(self) -> str:
        """Returns the attribute's value that items carry."""
        return self.name.removeprefix(f"{self.attribute}=")


class FittedConcepts(NamedTuple):
    """Concepts by attribute, then by item count; labels for each neuron, best first."""

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
    report: Callable[[int, int], None] = lambda _done, _total: None,
) -> FittedConcepts:
    """Finds every concept's weights and every neuron's labels, and measures the concepts' effects.

    report is told how many concepts of how many are done.
    """
    members = memberships(catalogue, config)
    if not members.names:
        note = (
            "no attribute value is on enough items: there are no concepts, and no neuron has a "
            "label"
        )
        return FittedConcepts([], [[] for _ in range(sae.n_neurons)], (note,))
    rng = np.random.default_rng([seed, 0xC0])
    codes = item_codes(recommender, sae, max_length)
    # The vector of an item that few training users have stays close to its random start.
    trained = catalogue.popularity >= config.min_popularity
    judged = (rng.random(len(trained)) < config.held_out_share)[trained]
    users = np.sort(rng.permutation(split.validation)[: config.max_users])
    audience = Audience.of(recommender, sae, split.histories(users), max_length)
    evidence = Evidence.whole(members.matrix, codes, audience).of(trained)
    weights, aucs = fit_weights(config.method, evidence, judged)
    concepts = _measure(config.method, members, weights, aucs, evidence, audience, report)
    silent = [name for name, row in zip(members.names, weights, strict=True) if not row.any()]
    notes = (
        (f"no neuron tells apart the items of {', '.join(silent)}: not a concept",)
        if silent
        else ()
    )
    labels = [
        metadata_labels(members, evidence, rng, sae.n_neurons)
        if method == DICTIONARY
        else labels_by(method, members.names, evidence, judged, _LABELS_PER_METHOD)
        for method in config.label_methods
    ]
    return FittedConcepts(concepts, joined(labels) or [[] for _ in range(sae.n_neurons)], notes)


def fit_weights(method: str, evidence: Evidence, judged: Bools) -> tuple[Floats, Doubles]:
    """Returns weights [n_concepts, n_neurons] from all items, and the AUC on judged items.

    The AUC is that of weights which were fitted without the judged items.
    """
    fit = METHODS[method].map
    weights = np.where(evidence.tells_apart[:, None], fit(evidence), np.float32(0.0))
    return weights, weights_aucs(fit(evidence.of(~judged)), evidence.of(judged))


def metadata_labels(
    members: Membership, evidence: Evidence, rng: np.random.Generator, n_neurons: int
) -> list[list[Label]]:
    """Returns each neuron's entry in the dictionary of attribute values, or an empty list."""
    describer = MetadataDescriber(members.names, members.matrix)
    made = make_dictionary(evidence.codes, evidence.items, describer, DictionaryOptions(), rng)
    return dictionary_labels(made, describer.name, describer.provenance, n_neurons)


def dictionary_labels(
    made: Dictionary, method: str, provenance: str, n_neurons: int
) -> list[list[Label]]:
    """Returns each neuron's entry as a label, scored by its confidence, or an empty list."""
    labels: list[list[Label]] = [[] for _ in range(n_neurons)]
    for entry in made.entries:
        tested = f"tested on {entry.on_count} items that fire it and {entry.off_count} that do not"
        figures = f"precision {entry.precision:.2f}, recall {entry.recall:.2f}"
        about = f"{provenance}; {tested}: {figures}"
        labels[entry.neuron].append(Label(entry.text, method, entry.confidence, about))
    return labels


def _measure(
    method: str,
    members: Membership,
    weights: Floats,
    aucs: Doubles,
    evidence: Evidence,
    audience: Audience,
    report: Callable[[int, int], None],
) -> list[FittedConcept]:
    """Returns the concepts whose weights are not all 0, with units and effects."""
    blend = top_neurons(tfidf(evidence), _BLEND_NEURONS)
    unsteered = audience.lists()
    concepts = []
    for row, name in enumerate(members.names):
        report(row + 1, len(members.names))
        w = weights[row]
        if not w.any():
            continue
        flags = members.matrix[row].toarray()[0] > 0
        effect = measure(audience, torch.from_numpy(w), flags, unsteered)
        concepts.append(
            FittedConcept(
                name=name,
                attribute=members.attributes[row],
                item_count=int(flags.sum()),
                method=method,
                weights=w,
                unit=effect.unit,
                auc=None if np.isnan(aucs[row]) else float(aucs[row]),
                blend_neurons=blend[row],
                unsteered_share=effect.unsteered_share,
                steered_share=effect.steered_share,
            )
        )
    return concepts


__all__ = ["FittedConcept", "FittedConcepts", "Membership", "fit_concepts", "item_codes"]
