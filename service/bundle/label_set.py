"""Label sets: named concepts, neurons' labels and cards, and the targets of edits."""

import copy
import difflib
import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from service.arrays import Floats, Ints
from service.steering.state import SparseCode
from service.steering.targets import Target

NEAREST_NAMES = 3
"""Names that an error message suggests for an unknown one."""


TOP_NEURONS = 10
"""Neurons that a concept shows, and that BLEND mixes in where the label set names none."""


NAME_CUTOFF = 0.5
"""Least similarity of a suggested name, as difflib computes it: 0 to 1."""


SPELLING_CUTOFF = 0.75
"""Least similarity of a text that a search returns for its spelling, as difflib computes it."""


CACHED_TARGETS = 4096
"""Targets of single neurons kept, about 1 kB each."""


CACHED_SEARCHES = 256
"""Results of text searches kept: a search compares the text with every name and label."""


class Label(NamedTuple):
    """A neuron's text, the method that found it, its score, and where it comes from."""

    text: str
    method: str
    score: float
    provenance: str = ""


@dataclass(frozen=True)
class Concept:
    """A row of concepts.parquet; see docs/bundle.md.

    Attributes:
        name: Unique in its label set.
        attribute: An item carries the concept if this attribute of it has the value.
        value: See attribute.
        item_count: Items that carry the concept.
        method: The method that mapped the concept to neurons.
        auc: Area under the ROC curve on held-out items; None if there are too few.
        unsteered_share: Share of the items of unsteered lists that carry the concept.
        steered_share: The same of lists steered by it.
        target: What edits of the concept act on.
    """

    name: str
    attribute: str
    value: str
    item_count: int
    method: str
    auc: float | None
    unsteered_share: float
    steered_share: float
    target: Target

    @property
    def top_neurons(self) -> list[tuple[int, float]]:
        """The neurons with the largest absolute weights, and these weights, largest first."""
        order = np.argsort(-np.abs(self.target.weights), kind="stable")[:TOP_NEURONS]
        return [(int(neuron), float(self.target.weights[neuron])) for neuron in order]


@dataclass(frozen=True)
class Match:
    """A concept or a neuron that a text search found; the other is None.

    Attributes:
        match: Resemblance to the text, in (0, 1].
        concept: The concept, if it is one.
        neuron: The neuron, if it is one.
    """

    match: float
    concept: Concept | None = None
    neuron: int | None = None


class LabelSet:
    """Concepts by name, neurons by index, and text search over both.

    Attributes:
        version: Digest that requests can pin concept names to.
        concepts: In the order of the label set.
        labels: The labels of each neuron, best first.
        decoder: W_dec, float32 [n_neurons, d].
        bias: b_dec, float32 [d].
        former: Concept names that other label sets of the bundle have and this one lacks.
        units: TYPICAL strength of each neuron, float32 [n_neurons].
    """

    def __init__(
        self,
        version: str,
        concepts: Sequence[Concept],
        labels: Sequence[Sequence[Label]],
        cards: pa.Table,
        decoder: Floats,
        bias: Floats,
    ) -> None:
        self.version = version
        self.decoder = decoder
        self.bias = bias
        self.labels = labels
        self.former: frozenset[str] = frozenset()
        self.units: Floats = cards["unit"].to_numpy().astype(np.float32)
        self._cards = cards
        self._weights: Floats = np.array(
            [concept.target.weights for concept in concepts], np.float32
        ).reshape(len(concepts), len(decoder))
        self._norms = np.maximum((self._weights**2).sum(axis=1), np.finfo(np.float32).tiny)
        # Concepts share the rows of the matrix, so that weights are in memory once.
        self.concepts = [
            replace(concept, target=replace(concept.target, weights=row))
            for concept, row in zip(concepts, self._weights, strict=True)
        ]
        self._by_name = {concept.name: concept for concept in self.concepts}
        # Caches of this object, not of the class: they end with it.
        self._neuron_target = lru_cache(maxsize=CACHED_TARGETS)(self._make_neuron_target)
        self._search = lru_cache(maxsize=CACHED_SEARCHES)(self._search_all)

    @classmethod
    def read(cls, directory: Path, version: str) -> "LabelSet":
        """Reads concepts.parquet, neurons.parquet and decoder.npy (memory-mapped)."""
        # No np.memmap, whose rows are slow to take; the memory stays mapped.
        decoder = np.asarray(np.load(directory / "decoder.npy", mmap_mode="r"))
        concepts = pq.read_table(directory / "concepts.parquet")
        neurons = pq.read_table(directory / "neurons.parquet")
        labels = [[Label(**label) for label in row or ()] for row in neurons["labels"].to_pylist()]
        rows = _read_concepts(concepts, decoder[:-1])
        return cls(
            version, rows, labels, neurons.drop_columns(["labels"]), decoder[:-1], decoder[-1]
        )

    def overlaid(
        self, version: str, concepts: Sequence[Concept], labels: Sequence[Sequence[Label]]
    ) -> "LabelSet":
        """Makes a label set with other concepts and labels over the same neurons."""
        return LabelSet(version, concepts, labels, self._cards, self.decoder, self.bias)

    def beside(self, others: Iterable["LabelSet"]) -> "LabelSet":
        """Returns a copy that knows the concept names which only the others have."""
        names = frozenset(name for other in others for name in other._by_name)
        aware = copy.copy(self)
        aware.former = names - self._by_name.keys()
        return aware

    @property
    def n_neurons(self) -> int:
        """Number of neurons."""
        return len(self.decoder)

    def concept(self, name: str) -> Concept | None:
        """Returns the concept of exactly this name; None if there is none."""
        return self._by_name.get(name)

    def nearest_names(self, name: str) -> list[str]:
        """Finds concept names that a caller may have meant, best first."""
        folded = {known.casefold(): known for known in self._by_name}
        close = difflib.get_close_matches(
            name.casefold(), folded, n=NEAREST_NAMES, cutoff=NAME_CUTOFF
        )
        return [folded[match] for match in close]

    def neuron_target(self, neuron: int) -> Target:
        """Returns the target of neuron j: w = e_j."""
        return self._neuron_target(neuron)

    def _make_neuron_target(self, neuron: int) -> Target:
        return Target(
            name=f"#{neuron}",
            neurons=np.array([neuron]),
            weights=np.ones(1, np.float32),
            direction=self.decoder[neuron],
            unit=float(self.units[neuron]),
            blend_neurons=np.array([neuron]),
        )

    def weighted_target(self, neurons: Ints, weights: Floats) -> Target:
        """Makes a target of given weights; its unit is the weighted mean of the neurons' units."""
        share = np.abs(weights) / np.abs(weights).sum()
        return Target(
            name="weights",
            neurons=neurons,
            weights=weights,
            direction=weights @ self.decoder[neurons],
            unit=float(share @ self.units[neurons]),
            blend_neurons=neurons,
        )

    def label(self, neuron: int) -> str:
        """Returns a neuron's best label; "" if it has none."""
        return self.labels[neuron][0].text if self.labels[neuron] else ""

    def card(self, neuron: int) -> dict[str, Any]:
        """Returns a neuron's row of neurons.parquet, without its labels."""
        row: dict[str, Any] = self._cards.slice(neuron, 1).to_pylist()[0]
        return row

    def levels(self, code: SparseCode) -> Floats:
        """Computes every concept's level <s, w> / <w, w> in a code s: float32 [n_concepts]."""
        products = self._weights[:, code.neurons] @ code.activations
        return np.asarray(products / self._norms, np.float32)

    def search(self, query: str, n: int) -> Sequence[Match]:
        """Finds the n concepts and neurons whose names or labels resemble a text, best first.

        Of equal matches, concepts come before neurons.
        """
        return self._search(query.casefold().strip(), n)

    def _search_all(self, query: str, n: int) -> Sequence[Match]:
        # Sorted by match, then concepts first, then by position.
        ranked = [
            (match, 1, -position, Match(match, concept=concept))
            for position, concept in enumerate(self.concepts)
            if (match := _resemblance(query, concept.name)) > 0
        ]
        ranked += [
            (match, 0, -neuron, Match(match, neuron=neuron))
            for neuron, labels in enumerate(self.labels)
            if labels and (match := _resemblance(query, labels[0].text)) > 0
        ]
        return [entry[-1] for entry in heapq.nlargest(n, ranked, key=lambda entry: entry[:-1])]


def concept_target(
    name: str, weights: Floats, decoder: Floats, unit: float, blend_neurons: Sequence[int]
) -> Target:
    """Makes the target that edits of a concept act on.

    Args:
        name: The concept's.
        weights: float32 [n_neurons].
        decoder: W_dec, float32 [n_neurons, d].
        unit: TYPICAL strength.
        blend_neurons: Neurons that BLEND mixes in; if empty, those with the largest weights.
    """
    if not blend_neurons:
        blend_neurons = np.argsort(-weights)[:TOP_NEURONS].tolist()
    return Target(
        name=name,
        neurons=None,
        weights=weights,
        direction=np.asarray(weights @ decoder, np.float32),
        unit=unit,
        blend_neurons=np.array(blend_neurons, np.int64),
    )


def _read_concepts(table: pa.Table, decoder: Floats) -> list[Concept]:
    """Reads the concepts of concepts.parquet."""
    flat = table["weights"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    weights = flat.astype(np.float32).reshape(len(table), len(decoder))
    facts = ("name", "attribute", "item_count", "method", "auc", "unsteered_share", "steered_share")
    return [
        Concept(
            **{fact: row[fact] for fact in facts},
            # Bundles of earlier exporters lack this column.
            value=row.get("value") or row["name"].removeprefix(f"{row['attribute']}="),
            target=concept_target(
                row["name"], w, decoder, float(row["unit"]), row["blend_neurons"] or ()
            ),
        )
        for row, w in zip(table.drop_columns(["weights"]).to_pylist(), weights, strict=True)
    ]


def _resemblance(query: str, text: str) -> float:
    """Rates a text: 1 if it is the query, above 0.5 if it contains it, less for like spelling."""
    folded = text.casefold()
    if query == folded:
        return 1.0
    if query and query in folded:
        return 0.5 + 0.5 * len(query) / len(folded)
    ratio = max(
        difflib.SequenceMatcher(None, query, part).ratio()
        for part in (folded, *folded.replace("-", " ").split())
    )
    return 0.5 * ratio if ratio >= SPELLING_CUTOFF else 0.0
