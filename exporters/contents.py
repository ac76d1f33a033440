"""Everything that goes into a bundle, gathered and checked before a file is written."""

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
QUERY_COUNT = 256
MAX_QUERY_EDITS = 3
# Strengths past 2 units are rare in use; the index is judged up to there.
MAX_QUERY_STRENGTH = 2.0
MAX_BLEND_NEURONS = 10


class References(NamedTuple):
    """What torch answers for histories of held-out users; the service replays it before it serves."""

    histories: Histories
    """64 rows, the first one empty."""
    items: Tensor
    """int64 [64, length], padded at the end with 0."""
    mask: Tensor
    """float32 [64, length]."""
    z: Tensor
    """[64, d]."""
    context: Tensor
    """[64, context]: what else the head reads."""
    neurons: Tensor
    """int64 [64, k]."""
    activations: Tensor
    """[64, k]."""
    q: Tensor
    """[64, p]."""
    queries: Tensor
    """[256, p]: unsteered, of held-out users."""
    steered_queries: Tensor
    """[256, p]: the same users, each with up to three random edits."""


class Gains(NamedTuple):
    """How much of each concept each item carries, and how that was found."""

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
    """The parts of one bundle; refuses parts that do not fit each other."""

    recommender: Recommender
    """A torch module on the CPU, in evaluation mode."""
    sae: SparseAutoencoder
    """Likewise."""
    V: Tensor
    """float32 [n_items, p]: the item matrix."""
    b: Tensor
    """float32 [n_items]: the items' biases."""
    catalogue: Catalogue
    """The items, in index order."""
    cards: NeuronCards
    """What is known of each neuron."""
    labels: Sequence[Sequence[Label]]
    """Per neuron, best first."""
    concepts: Sequence[FittedConcept]
    """The first label set's concepts."""
    mean_user: Floats
    """[d]: mean embedding of the training users."""
    references: References
    """What torch answers."""
    history: HistoryRule
    """How a user's events become the encoder's input."""
    provenance: Provenance
    """What trained the models."""
    purity: Purity | None = None
    """How pure each neuron is; None where nobody measured it."""
    gains: Gains | None = None
    """What BOOST adds to each item, if not 1 for those that carry the concept."""
    dims: Dims = field(init=False)
    """Derived from the parts."""
    scale_rule: ScaleRule.ValueType = field(init=False)
    """The SAE's, checked against what it does."""

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
            raise ContentsError(f"a context of width {context} found, but no head that reads it")
        _expect("the lists of labels", len(self.labels), n_neurons)
        if not self.catalogue.items["item_id"].is_unique().all():
            raise ContentsError("the catalogue holds an item id twice")
        numbers = {
            "item matrix": self.V,
            "biases": self.b,
            "decoder": self.sae.W_dec,
            "b_dec": self.sae.b_dec,
        }
        for name, values in numbers.items():
            if not torch.isfinite(values).all():
                raise ContentsError(f"the {name} holds numbers that are not finite")
        _check_concepts(self.concepts, n_neurons)
        if self.gains is not None:
            _expect("the gains", self.gains.values.shape, (len(self.concepts), n_items))
            if not ((self.gains.values >= 0) & (self.gains.values <= 1)).all():
                raise ContentsError("the gains hold numbers outside 0 to 1")

    @property
    def has_bias(self) -> bool:
        """True if any item has a bias other than 0."""
        return bool((self.b != 0).any())


class Users(NamedTuple):
    """Whose histories the bundle is measured on."""

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
        ContentsError: parts do not fit each other, or there is nobody to measure on.
    """
    matrix = recommender.item_matrix()
    V = matrix.V.detach().to(torch.float32).contiguous()
    train = users.train.last(history.max_length)
    if not len(train.items):
        raise ContentsError("no training histories: units and the mean user cannot be measured")
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
    """Names of the attributes, in the catalogue's order."""
    return [name for name in items.columns if name not in ("item_id", "title", "popularity")]


def _references(
    recommender: Recommender,
    sae: SparseAutoencoder,
    histories: Histories,
    unit: Floats,
    concepts: Sequence[FittedConcept],
    rng: np.random.Generator,
) -> References:
    chosen = histories.rows(_draw(len(histories.lengths), REFERENCE_COUNT - 1, rng))
    empty_first = Histories(np.concatenate([[0], chosen.offsets]), chosen.items)
    padded = empty_first.padded()
    state = recommender.activate(padded.items, padded.mask)
    code = sae.encode_sparse(state.z)
    asked = recommender.activate(
        *histories.rows(_draw(len(histories.lengths), QUERY_COUNT, rng)).padded()
    )
    users, context = as_stored(asked.z), as_stored(asked.context)
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
    """Changes of codes [count, n_neurons]: one to three ADDs each, of neurons or concepts, within 2 units."""
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


def _expect(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise ContentsError(f"{what}: {found} found, {expected} expected")


def _check_concepts(concepts: Sequence[FittedConcept], n_neurons: int) -> None:
    names = [concept.name for concept in concepts]
    for name in names:
        if not name or names.count(name) > 1:
            raise ContentsError(f"concept names must be distinct and not empty, found {name!r}")
    for concept in concepts:
        weights = np.asarray(concept.weights)
        if weights.shape != (n_neurons,) or not np.isfinite(weights).all() or not weights.any():
            raise ContentsError(
                f"concept {concept.name!r}: {n_neurons} finite weights expected, not all of them 0"
            )
        if not (np.isfinite(concept.unit) and concept.unit > 0):
            raise ContentsError(
                f"concept {concept.name!r}: a unit above 0 expected, found {concept.unit}"
            )
        if any(not 0 <= neuron < n_neurons for neuron in concept.blend_neurons):
            raise ContentsError(
                f"concept {concept.name!r}: a blend neuron lies outside 0 to {n_neurons - 1}"
            )
