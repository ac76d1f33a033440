"""Carries concepts and labels over from an earlier bundle to a new run.

A name is kept if it fires alike, before and now, for the items that both models know.
"""

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from exporters.errors import ContentsError
from exporters.previous_bundle import EarlierConcept, PreviousBundle
from service.arrays import Floats
from training.concepts import FittedConcept, Label, item_codes
from training.concepts.describing.dictionary import DICTIONARY
from training.concepts.effect import Audience, measure
from training.concepts.mapping.methods import METHODS
from training.concepts.membership import items_with
from training.run import Run

MIN_SIMILARITY = 0.7
"""Least correlation of levels, or cosine of activations, at which a name still means the same.
Raising it carries fewer names over and keeps their meaning more exactly."""

MIN_SHARED_ITEMS = 20
"""Items that both models must know; similarities over fewer items say little."""

BLEND_NEURONS = 10
"""Neurons that a carried concept blends."""

_FOLDS = 5
"""One of this number of shared items judges what was fitted to the others."""


class Fate(NamedTuple):
    """The outcome for a name of the earlier bundle, and the reason.

    Attributes:
        name: The concept's name.
        outcome: "kept" or "changed" if the run has a concept of this name itself, else "carried"
            or "lost".
        similarity: The correlation of its levels before and now; NaN if either is constant.
        reason: Empty for "kept" and "carried".
    """

    name: str
    outcome: str
    similarity: float
    reason: str


class CarriedOver(NamedTuple):
    """The run with what was carried over, and what was done with each name.

    Attributes:
        run: The run with the carried concepts and labels.
        fates: One for each concept of the earlier bundle.
        labels_carried: Number of labels that were carried over.
        labels_lost: Number of labels whose neurons have no similar neuron in the run.
    """

    run: Run
    fates: list[Fate]
    labels_carried: int
    labels_lost: int


@dataclass(frozen=True)
class CarriedConcept(FittedConcept):
    """A concept of an earlier bundle; items carry it if their attribute has its value."""

    carried_value: str = ""

    @property
    def value(self) -> str:
        """The attribute's value."""
        return self.carried_value


class _SharedCodes(NamedTuple):
    """Codes of the m items that both models know.

    Attributes:
        before: [m, n_neurons of the earlier SAE].
        now: [m, n_neurons].
        judged: bool [m], the items that judge what was fitted to the others.
    """

    before: csr_matrix
    now: csr_matrix
    judged: NDArray[np.bool_]


class _Refit(NamedTuple):
    """New weights [n_neurons] of a concept, and the similarity of its levels before and now."""

    weights: Floats
    similarity: float


class _CarriedLabels(NamedTuple):
    """Labels per neuron, best first, and how many were carried over and lost."""

    labels: list[list[Label]]
    carried: int
    lost: int


def carry_over(previous: PreviousBundle, run: Run) -> CarriedOver:
    """Adds the concepts that a run lacks, and the labels that no mapping method finds.

    A concept's new weights are the covariance of the new codes with its earlier level <s, w> over
    the shared items, as a contrast is with a tag; the similarity is the correlation of the two
    levels on held-out items. A neuron's labels go to the neuron whose activations are most similar.

    Raises:
        ContentsError: too few items are shared.
    """
    shared = _shared_codes(previous, run)
    own = {concept.name: concept for concept in run.concepts}
    users = run.split.validation[: run.config.concepts.max_users]
    audience = Audience.of(
        run.recommender, run.sae, run.split.histories(users), run.config.max_length
    )
    unsteered = audience.lists()
    concepts = list(run.concepts)
    fates = []
    for concept in previous.concepts:
        if concept.name in own:
            fates.append(_compare(concept, own[concept.name], shared))
            continue
        flags = items_with(run.catalogue, concept.attribute, concept.value)
        refit = _refit(concept, shared)
        fate = _fate_of(concept, refit, has_attribute=flags is not None)
        fates.append(fate)
        if fate.outcome == "carried" and flags is not None:
            effect = measure(audience, torch.from_numpy(refit.weights), flags, unsteered)
            concepts.append(
                CarriedConcept(
                    name=concept.name,
                    attribute=concept.attribute,
                    item_count=int(flags.sum()),
                    method="carried",
                    weights=refit.weights,
                    unit=effect.unit,
                    auc=None,
                    blend_neurons=np.argsort(-refit.weights)[:BLEND_NEURONS].tolist(),
                    unsteered_share=effect.unsteered_share,
                    steered_share=effect.steered_share,
                    carried_value=concept.value,
                )
            )
    labels = _carry_labels(previous, run.labels, shared)
    return CarriedOver(
        run=dataclasses.replace(run, concepts=concepts, labels=labels.labels),
        fates=fates,
        labels_carried=labels.carried,
        labels_lost=labels.lost,
    )


def _shared_codes(previous: PreviousBundle, run: Run) -> _SharedCodes:
    """Computes both models' codes of the items that both know.

    Raises:
        ContentsError: there are too few of them.
    """
    rows = {item: row for row, item in enumerate(previous.item_ids)}
    popular = run.catalogue.popularity >= run.config.concepts.min_popularity
    ids = run.catalogue.items["item_id"].to_list()
    pairs = [(rows[item], row) for row, item in enumerate(ids) if popular[row] and item in rows]
    if len(pairs) < MIN_SHARED_ITEMS:
        raise ContentsError(
            f"bundle {previous.bundle_id[:12]}: expected at least {MIN_SHARED_ITEMS} items that it "
            f"shares with the run and that enough users have, found {len(pairs)}"
        )
    before, now = np.array(pairs, dtype=np.int64).T
    codes = item_codes(run.recommender, run.sae, run.config.max_length)
    judged = np.random.default_rng(0).permutation(len(pairs)) % _FOLDS == 0
    return _SharedCodes(before=previous.codes[before], now=codes[now], judged=judged)


def _compare(concept: EarlierConcept, own: FittedConcept, shared: _SharedCodes) -> Fate:
    """Compares a concept with the run's own of the same name."""
    similarity = _correlation(shared.before @ concept.weights, shared.now @ own.weights)
    if similarity >= MIN_SIMILARITY:
        return Fate(concept.name, "kept", similarity, "")
    reason = f"the run's own, similarity below {MIN_SIMILARITY}"
    return Fate(concept.name, "changed", similarity, reason)


def _fate_of(concept: EarlierConcept, refit: _Refit, has_attribute: bool) -> Fate:
    """Decides if a concept that the run lacks is carried over."""
    reason = ""
    if not has_attribute:
        reason = f"no attribute {concept.attribute!r}"
    elif not refit.similarity >= MIN_SIMILARITY:
        reason = f"similarity below {MIN_SIMILARITY}"
    return Fate(concept.name, "lost" if reason else "carried", refit.similarity, reason)


def _refit(concept: EarlierConcept, shared: _SharedCodes) -> _Refit:
    """Fits a concept to the new codes of all shared items.

    The similarity is measured on the held-out items, with weights fitted to the others.
    """
    level = shared.before @ concept.weights
    judged = shared.judged
    trial = _covariance(shared.now[~judged], level[~judged])
    similarity = _correlation(level[judged], shared.now[judged] @ trial)
    return _Refit(_covariance(shared.now, level), similarity)


def _covariance(codes: csr_matrix, level: Floats) -> Floats:
    """Computes the covariance of codes [m, n_neurons] with a level [m]: float32 [n_neurons]."""
    centred = level - level.mean()
    return np.asarray(codes.T @ centred / len(level), dtype=np.float32)


def _correlation(left: Floats, right: Floats) -> float:
    """Computes the correlation of two levels [m]; NaN if either is constant."""
    left = left - left.mean()
    right = right - right.mean()
    size = float(np.linalg.norm(left) * np.linalg.norm(right))
    return float(left @ right) / size if size > 0 else float("nan")


def _carry_labels(
    previous: PreviousBundle, labels: list[list[Label]], shared: _SharedCodes
) -> _CarriedLabels:
    """Puts the labels of the most similar earlier neurons in front of the run's own."""
    cosines = _neuron_cosines(shared)
    combined = [list(row) for row in labels]
    carried = 0
    lost = 0
    for neuron, row in enumerate(previous.labels):
        # Mapping methods have labelled the new neurons; what people, models and imports said
        # would be lost.
        given = [label for label in row if label.method not in (*METHODS, DICTIONARY)]
        best = int(cosines[neuron].argmax())
        cosine = cosines[neuron, best]
        if given and cosine >= MIN_SIMILARITY:
            source = f"; neuron {neuron} of bundle {previous.bundle_id[:12]}, cosine {cosine:.2f}"
            moved = [label._replace(provenance=f"{label.provenance}{source}") for label in given]
            combined[best] = [*moved, *combined[best]]
            carried += len(given)
        else:
            lost += len(given)
    return _CarriedLabels(combined, carried, lost)


def _neuron_cosines(shared: _SharedCodes) -> Floats:
    """Computes the cosines of activations: [n_neurons of the earlier SAE, n_neurons]."""
    products = (shared.before.T @ shared.now).toarray()
    norms = [
        np.sqrt(np.asarray(codes.multiply(codes).sum(axis=0))[0])
        for codes in (shared.before, shared.now)
    ]
    cosines: Floats = products / np.maximum(np.outer(*norms), np.finfo(np.float32).tiny)
    return cosines
