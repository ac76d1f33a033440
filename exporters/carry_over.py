"""Carries names from an earlier bundle to a new run, by how alike they fire for the items that both know."""

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from exporters.errors import ContentsError
from exporters.previous_bundle import Earlier, EarlierConcept
from service.arrays import Floats
from training.concepts import FittedConcept, Label, item_codes
from training.concepts.describing.dictionary import DICTIONARY
from training.concepts.effect import Audience, measure
from training.concepts.mapping.methods import METHODS
from training.concepts.membership import items_with
from training.run import Run

ALIKE = 0.7
"""Correlation of levels, or cosine of activations, from which a name still means the same."""


LEAST_SHARED = 20
"""Items below which nothing can be said of likeness."""


_HELD_OUT = 5
"""Of so many shared items one judges what was fitted to the others."""


class Fate(NamedTuple):
    """What became of a name: "kept" and "changed" (the run has it itself), "carried" or "lost"; and why."""

    name: str
    outcome: str
    similarity: float
    reason: str


class Carried(NamedTuple):
    """The run with what was carried, every concept's fate, and how many of the neurons' labels went over."""

    run: Run
    fates: list[Fate]
    labels_carried: int
    labels_lost: int


@dataclass(frozen=True)
class CarriedConcept(FittedConcept):
    """A concept of an earlier bundle; items carry it whose attribute has the value."""

    carried_value: str = ""

    @property
    def value(self) -> str:
        """The attribute's value."""
        return self.carried_value


class _Shared(NamedTuple):
    """Codes of the items that both know, [m, n_neurons] each, and which of them judge."""

    before: csr_matrix
    now: csr_matrix
    judged: NDArray[np.bool_]


def carry(earlier: Earlier, run: Run) -> Carried:
    """Adds the earlier bundle's concepts that the run lacks, and the labels that no mapping method makes.

    A concept's new weights are the covariance of the new codes with its earlier level <s, w> over
    the shared items, as a contrast is with a tag; the likeness is the correlation of the two levels
    on items held out. A neuron's labels go to the neuron whose activations are most alike.

    Raises:
        ContentsError: too few items are shared.
    """
    shared = _shared(earlier, run)
    own = {concept.name: concept for concept in run.concepts}
    users = run.split.validation[: run.config.concepts.max_users]
    audience = Audience.of(
        run.recommender, run.sae, run.split.histories(users), run.config.max_length
    )
    unsteered = audience.lists()
    concepts, fates = list(run.concepts), []
    for concept in earlier.concepts:
        if concept.name in own:
            fates.append(_compared(concept, own[concept.name], shared))
            continue
        flags = items_with(run.catalogue, concept.attribute, concept.value)
        weights, likeness = _refitted(concept, shared)
        if flags is None:
            fates.append(
                Fate(concept.name, "lost", likeness, f"no attribute {concept.attribute!r}")
            )
        elif not likeness >= ALIKE:
            fates.append(Fate(concept.name, "lost", likeness, f"likeness below {ALIKE}"))
        else:
            effect = measure(audience, torch.from_numpy(weights), flags, unsteered)
            concepts.append(
                CarriedConcept(
                    concept.name, concept.attribute, int(flags.sum()), "carried", weights, effect.unit, None,
                    np.argsort(-weights)[:10].tolist(), effect.unsteered_share, effect.steered_share,
                    carried_value=concept.value,
                )
            )  # fmt: skip
            fates.append(Fate(concept.name, "carried", likeness, ""))
    labels, carried, lost = _carried_labels(earlier, run.labels, shared)
    return Carried(dataclasses.replace(run, concepts=concepts, labels=labels), fates, carried, lost)


def _shared(earlier: Earlier, run: Run) -> _Shared:
    places = {item: row for row, item in enumerate(earlier.item_ids)}
    enough = run.catalogue.popularity >= run.config.concepts.min_popularity
    ids = run.catalogue.items["item_id"].to_list()
    pairs = [(places[item], row) for row, item in enumerate(ids) if enough[row] and item in places]
    if len(pairs) < LEAST_SHARED:
        raise ContentsError(
            f"bundle {earlier.bundle_id[:12]} and the run share {len(pairs)} items that enough users have, "
            f"expected at least {LEAST_SHARED}"
        )
    before, now = np.array(pairs, dtype=np.int64).T
    codes = item_codes(run.recommender, run.sae, run.config.max_length)
    judged = np.random.default_rng(0).permutation(len(pairs)) % _HELD_OUT == 0
    return _Shared(earlier.codes[before], codes[now], judged)


def _compared(concept: EarlierConcept, own: FittedConcept, shared: _Shared) -> Fate:
    likeness = _correlation(shared.before @ concept.weights, shared.now @ own.weights)
    if likeness >= ALIKE:
        return Fate(concept.name, "kept", likeness, "")
    return Fate(concept.name, "changed", likeness, f"the run's own, likeness below {ALIKE}")


def _refitted(concept: EarlierConcept, shared: _Shared) -> tuple[Floats, float]:
    """New weights from all shared items, and the likeness on held-out ones of weights from the others."""
    level = shared.before @ concept.weights
    told, asked = ~shared.judged, shared.judged
    trial = _covariance(shared.now[told], level[told])
    likeness = _correlation(level[asked], shared.now[asked] @ trial)
    return _covariance(shared.now, level), likeness


def _covariance(codes: csr_matrix, level: Floats) -> Floats:
    centred = level - level.mean()
    return np.asarray(codes.T @ centred / len(level), dtype=np.float32)


def _correlation(left: Floats, right: Floats) -> float:
    """NaN where either never varies."""
    left, right = left - left.mean(), right - right.mean()
    size = float(np.linalg.norm(left) * np.linalg.norm(right))
    return float(left @ right) / size if size > 0 else float("nan")


def _carried_labels(
    earlier: Earlier, labels: list[list[Label]], shared: _Shared
) -> tuple[list[list[Label]], int, int]:
    """Labels with those of the most similar earlier neurons in front; how many went over, how many not."""
    products = (shared.before.T @ shared.now).toarray()
    norms = [
        np.sqrt(np.asarray(codes.multiply(codes).sum(axis=0))[0])
        for codes in (shared.before, shared.now)
    ]
    cosines = products / np.maximum(np.outer(*norms), np.finfo(np.float32).tiny)
    made = [list(row) for row in labels]
    carried = lost = 0
    for neuron, row in enumerate(earlier.labels):
        # Tags' labels were found anew; those that people, models and imports gave would be gone.
        given = [label for label in row if label.method not in (*METHODS, DICTIONARY)]
        best = int(cosines[neuron].argmax())
        if given and cosines[neuron, best] >= ALIKE:
            told = f"; neuron {neuron} of bundle {earlier.bundle_id[:12]}, cosine {cosines[neuron, best]:.2f}"
            carried_labels = [
                label._replace(provenance=f"{label.provenance}{told}") for label in given
            ]
            made[best] = [*carried_labels, *made[best]]
            carried += len(given)
        else:
            lost += len(given)
    return made, carried, lost
