"""Gathers and checks everything that a bundle holds, before a file is written."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor
from trimtab.v1.bundle_pb2 import HistoryRule, Provenance, ScaleRule

from exporters.cards import NeuronCards, encode_population, make_cards
from exporters.determinism import one_thread
from exporters.errors import ContentsError
from exporters.progress import Report, silent
from exporters.scale_rules import checked_scale_rule
from service.arrays import Floats
from service.bundle.precision import Precision
from training.concepts import FittedConcept, Label
from training.concepts.mapping.purity import Purity
from training.histories import Histories
from training.interactions import Catalogue
from training.recommenders import Recommender
from training.saes import SparseAutoencoder

REFERENCE_COUNT = 64
"""Histories that the service replays before it serves a bundle. More find rarer faults later."""

QUERY_COUNT = 256
"""Queries of each kind that recall is measured with. More measure it more exactly."""

MAX_QUERY_EDITS = 3
"""Edits of a steered query."""

MAX_QUERY_STRENGTH = 2.0
"""Units. Higher strengths are rare in use, so the index is not judged by them."""

MAX_BLEND_NEURONS = 10
"""Blend neurons that a bundle keeps for each concept."""


class References(NamedTuple):
    """Torch's results for histories of held-out users; the service compares them with its own."""

    histories: Histories
    """64 rows, the first one empty."""
    items: Tensor
    """int64 [64, length], padded at the end with 0."""
    mask: Tensor
    """float32 [64, length]."""
    z: Tensor
    """[64, d]."""
    context: Tensor
    """[64, context]: other values that only the head reads."""
    neurons: Tensor
    """int64 [64, k]."""
    activations: Tensor
    """[64, k]."""
    q: Tensor
    """[64, p]."""
    queries: Tensor
    """[256, p]: unsteered queries of held-out users."""
    steered_queries: Tensor
    """[256, p]: queries of the same users, each with up to three random edits."""


class Gains(NamedTuple):
    """The gain of each concept for each item, and the method that computed it."""

    method: str
    """One of training.concepts.gains.GAINS."""
    values: Floats
    """[n_concepts, n_items], 0 to 1."""


class Dims(NamedTuple):
    """Sizes of the models' parts."""

    n_items: int
    d: int
    p: int
    n_neurons: int
    k: int
    context: int


@dataclass(frozen=True)
class BundleContents:
    """The contents of one bundle; refuses parts that do not fit each other."""

    recommender: Recommender
    """A torch module on the CPU, in evaluation mode."""
    sae: SparseAutoencoder
    """A torch module on the CPU, in evaluation mode."""
    V: Tensor
    """float32 [n_items, p]: the item matrix."""
    b: Tensor
    """float32 [n_items]: the items' biases."""
    catalogue: Catalogue
    """The items, in index order."""
    cards: NeuronCards
    """The cards of all neurons."""
    labels: Sequence[Sequence[Label]]
    """Per neuron, best first."""
    concepts: Sequence[FittedConcept]
    """The concepts of the bundle's own label set."""
    mean_user: Floats
    """[d]: mean embedding of the training users."""
    references: References
    """Torch's results."""
    history: HistoryRule
    """The rule that turns a user's events into the encoder's input."""
    provenance: Provenance
    """The data, settings and code that trained the models."""
    purity: Purity | None = None
    """The purity of each neuron; None if it was not measured."""
    gains: Gains | None = None
    """Gains that BOOST uses; None if an item carries exactly the concepts whose tags it has."""
    dims: Dims = field(init=False)
    """Derived from the parts."""
    scale_rule: ScaleRule.ValueType = field(init=False)
    """The SAE's scale rule, checked against its results."""

    def __post_init__(self) -> None:
        n_items, p = self.V.shape
        n_neurons, d = self.sae.W_dec.shape
        k = self.references.neurons.shape[1]
        context = self.recommender.context_size
        object.__setattr__(self, "dims", Dims(n_items, d, p, n_neurons, k, context))
        object.__setattr__(self, "scale_rule", checked_scale_rule(self.sae, self.references.z))
        _expect("the catalogue's items", self.catalogue.n_items, n_items)
        _expect("the biases", len(self.b), n_items)
        _expect("the embedding's width", self.references.z.shape[1], d)
        _expect("the query's width", self.references.q.shape[1], p)
        _expect("the context's width", self.references.context.shape[1], context)
        if context and not self.recommender.has_head:
            raise ContentsError(f"expected a head that reads the context of width {context}")
        _expect("the lists of labels", len(self.labels), n_neurons)
        if not self.catalogue.items["item_id"].is_unique().all():
            raise ContentsError("the catalogue: expected distinct item ids, found one twice")
        numbers = {
            "item matrix": self.V,
            "biases": self.b,
            "decoder": self.sae.W_dec,
            "b_dec": self.sae.b_dec,
        }
        for name, values in numbers.items():
            if not torch.isfinite(values).all():
                raise ContentsError(f"the {name}: expected finite numbers, found others")
        _check_concepts(self.concepts, n_neurons)
        if self.gains is not None:
            _expect("the gains", self.gains.values.shape, (len(self.concepts), n_items))
            if not ((self.gains.values >= 0) & (self.gains.values <= 1)).all():
                raise ContentsError("the gains: expected numbers from 0 to 1, found others")

    @property
    def has_bias(self) -> bool:
        """True if any item has a bias other than 0."""
        return bool((self.b != 0).any())


class Users(NamedTuple):
    """The histories that the bundle is measured on."""

    train: Histories
    """Units, densities and the mean user come from these."""
    held_out: Histories
    """References and queries come from these."""


# Sums of products depend on how they are split; on one thread, the same run gives the same bundle.
@one_thread()
@torch.no_grad()
def assemble(
    *,
    recommender: Recommender,
    sae: SparseAutoencoder,
    catalogue: Catalogue,
    users: Users,
    labels: Sequence[Sequence[Label]],
    concepts: Sequence[FittedConcept],
    history: HistoryRule,
    provenance: Provenance,
    purity: Purity | None = None,
    gains: Gains | None = None,
    report: Report = silent,
) -> BundleContents:
    """Measures the models on the users and gathers everything that a bundle holds.

    Raises:
        ContentsError: parts do not fit each other, or there are no training histories.
    """
    matrix = recommender.item_matrix()
    V = matrix.V.detach().to(torch.float32).contiguous()
    train = users.train.last(history.max_length)
    if not len(train.items):
        raise ContentsError("expected training histories to measure units on, found none")
    held_out = users.held_out.last(history.max_length)
    report("measuring neurons on users")
    population = encode_population(recommender, sae, train)
    report("measuring neurons on items")
    cards = make_cards(recommender, sae, V, population)
    rng = np.random.default_rng(provenance.seed)
    report("asking torch for references")
    references = _references(
        recommender,
        sae,
        held_out if len(held_out.items) else train,
        cards.activity.unit,
        concepts,
        rng,
    )
    return BundleContents(
        recommender=recommender,
        sae=sae,
        V=V,
        b=matrix.b.detach().to(torch.float32).contiguous(),
        catalogue=catalogue,
        cards=cards,
        labels=labels,
        concepts=concepts,
        mean_user=population.mean_user,
        references=references,
        history=history,
        provenance=provenance,
        purity=purity,
        gains=gains,
    )


def attribute_columns(items: pl.DataFrame) -> list[str]:
    """Returns the names of the attributes, in the catalogue's order."""
    return [name for name in items.columns if name not in ("item_id", "title", "popularity")]


def _references(
    recommender: Recommender,
    sae: SparseAutoencoder,
    histories: Histories,
    unit: Floats,
    concepts: Sequence[FittedConcept],
    rng: np.random.Generator,
) -> References:
    """Computes torch's results for drawn histories, and queries to measure recall with."""
    chosen = histories.rows(_draw(len(histories.lengths), REFERENCE_COUNT - 1, rng))
    empty_first = Histories(np.concatenate([[0], chosen.offsets]), chosen.items)
    padded = empty_first.padded()
    state = recommender.activate(padded.items, padded.mask)
    code = sae.encode_sparse(state.z)
    asked = recommender.activate(
        *histories.rows(_draw(len(histories.lengths), QUERY_COUNT, rng)).padded()
    )
    users = as_stored(asked.z)
    context = as_stored(asked.context)
    edits = random_code_edits(users.shape[0], unit, concepts, rng)
    steered = users + sae.scale(users) * (edits @ sae.W_dec)
    return References(
        histories=empty_first,
        items=padded.items,
        mask=padded.mask,
        z=state.z,
        context=state.context,
        neurons=code.neurons,
        activations=code.activations,
        q=recommender.head(state.z, state.context),
        queries=recommender.head(users, context),
        steered_queries=recommender.head(steered, context),
    )


def as_stored(values: Tensor) -> Tensor:
    """Rounds activations and contexts as the service does before it stores them."""
    return torch.from_numpy(Precision.FLOAT16.rounded(values.detach().numpy()))


def random_code_edits(
    count: int, unit: Floats, concepts: Sequence[FittedConcept], rng: np.random.Generator
) -> Tensor:
    """Draws changes of codes [count, n_neurons]: one to three ADDs of neurons or concepts each."""
    changes = np.zeros((count, len(unit)), np.float32)
    for row in changes:
        for _ in range(rng.integers(1, MAX_QUERY_EDITS + 1)):
            strength = rng.uniform(-MAX_QUERY_STRENGTH, MAX_QUERY_STRENGTH)
            if concepts and rng.random() < 0.5:
                concept = concepts[int(rng.integers(len(concepts)))]
                row += np.float32(strength * concept.unit) * np.asarray(concept.weights, np.float32)
            else:
                neuron = rng.integers(len(unit))
                row[neuron] += strength * unit[neuron]
    return torch.from_numpy(changes)


def _draw(
    available: int, count: int, rng: np.random.Generator
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return rng.choice(available, count, replace=available < count)


def _expect(what: str, actual: object, expected: object) -> None:
    if actual != expected:
        raise ContentsError(f"{what}: expected {expected}, found {actual}")


def _check_concepts(concepts: Sequence[FittedConcept], n_neurons: int) -> None:
    names = [concept.name for concept in concepts]
    for name in names:
        if not name or names.count(name) > 1:
            raise ContentsError(f"concept names: expected distinct ones, not empty, found {name!r}")
    for concept in concepts:
        _check_concept(concept, n_neurons)


def _check_concept(concept: FittedConcept, n_neurons: int) -> None:
    """Refuses a concept whose weights, unit or blend neurons no SAE of this size can have."""
    name = f"concept {concept.name!r}"
    weights = np.asarray(concept.weights)
    if weights.shape != (n_neurons,) or not np.isfinite(weights).all() or not weights.any():
        raise ContentsError(f"{name}: expected {n_neurons} finite weights, not all of them 0")
    if not (np.isfinite(concept.unit) and concept.unit > 0):
        raise ContentsError(f"{name}: expected a unit above 0, found {concept.unit}")
    outside = [neuron for neuron in concept.blend_neurons if not 0 <= neuron < n_neurons]
    if outside:
        raise ContentsError(
            f"{name}: expected blend neurons from 0 to {n_neurons - 1}, found {outside[0]}"
        )
