"""The bundle's label set: named concepts, neurons' cards, and what edits of them need, worked out at load."""

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


TOP_NEURONS = 10


CACHED_TARGETS, CACHED_SEARCHES = 4096, 256


class Label(NamedTuple):
    """A neuron's text, and where it comes from."""

    text: str
    method: str
    score: float
    provenance: str = ""


@dataclass(frozen=True)
class Concept:
    """A row of concepts.parquet (see docs/bundle.md); items carry it whose attribute has the value."""

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
    """Something that a text search found; exactly one of concept and neuron is set. Match is in (0, 1]."""

    match: float
    concept: Concept | None = None
    neuron: int | None = None


class LabelSet:
    """Concepts by name, neurons by number, and search over both.

    Attributes:
        version: What concept names are pinned to.
        concepts: In the label set's order.
        labels: Of each neuron, best first.
        decoder: W_dec, float32 [n_neurons, d].
        bias: b_dec, float32 [d].
        former: Names that other label sets of this bundle have, and this one has not.
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
        self.decoder, self.bias = decoder, bias
        self.labels = labels
        self.former: frozenset[str] = frozenset()
        self.units: Floats = cards["unit"].to_numpy().astype(np.float32)
        self._cards = cards
        self._weights: Floats = np.array(
            [concept.target.weights for concept in concepts], np.float32
        ).reshape(len(concepts), len(decoder))
        self._norms = np.maximum((self._weights**2).sum(axis=1), np.finfo(np.float32).tiny)
        # Their weights are rows of the matrix, so that a label set holds them once.
        self.concepts = [
            replace(concept, target=replace(concept.target, weights=row))
            for concept, row in zip(concepts, self._weights, strict=True)
        ]
        self._by_name = {concept.name: concept for concept in self.concepts}
        # Caches of this object's own: they end with it.
        self._neuron_target = lru_cache(maxsize=CACHED_TARGETS)(self._made_neuron_target)
        self._search = lru_cache(maxsize=CACHED_SEARCHES)(self._found)

    @classmethod
    def read(cls, directory: Path, version: str) -> "LabelSet":
        """Reads concepts.parquet, neurons.parquet and decoder.npy (memory-mapped)."""
        # Still mapped, but no np.memmap: rows of those are slow to take.
        decoder = np.asarray(np.load(directory / "decoder.npy", mmap_mode="r"))
        concepts = pq.read_table(directory / "concepts.parquet")
        neurons = pq.read_table(directory / "neurons.parquet")
        labels = [[Label(**label) for label in row or ()] for row in neurons["labels"].to_pylist()]
        rows = _concepts(concepts, decoder[:-1])
        return cls(
            version, rows, labels, neurons.drop_columns(["labels"]), decoder[:-1], decoder[-1]
        )

    def overlaid(
        self, version: str, concepts: Sequence[Concept], labels: Sequence[Sequence[Label]]
    ) -> "LabelSet":
        """Other concepts and labels over the same neurons."""
        return LabelSet(version, concepts, labels, self._cards, self.decoder, self.bias)

    def beside(self, others: Iterable["LabelSet"]) -> "LabelSet":
        """The same, knowing the names that it lost against others."""
        known = copy.copy(self)
        known.former = (
            frozenset(name for other in others for name in other._by_name) - self._by_name.keys()
        )
        return known

    @property
    def n_neurons(self) -> int:
        """How many neurons there are."""
        return len(self.decoder)

    def concept(self, name: str) -> Concept | None:
        """The concept of exactly this name."""
        return self._by_name.get(name)

    def nearest_names(self, name: str) -> list[str]:
        """Concept names that the caller may have meant, best first."""
        folded = {known.casefold(): known for known in self._by_name}
        close = difflib.get_close_matches(name.casefold(), folded, n=NEAREST_NAMES, cutoff=0.5)
        return [folded[match] for match in close]

    def neuron_target(self, neuron: int) -> Target:
        """The target w = e_j."""
        return self._neuron_target(neuron)

    def _made_neuron_target(self, neuron: int) -> Target:
        return Target(
            name=f"#{neuron}",
            neurons=np.array([neuron]),
            weights=np.ones(1, np.float32),
            direction=self.decoder[neuron],
            unit=float(self.units[neuron]),
            blend_neurons=np.array([neuron]),
        )

    def weighted_target(self, neurons: Ints, weights: Floats) -> Target:
        """A target of the caller's own; its unit is the weighted mean of the neurons' units."""
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
        """The neuron's best label, "" if it has none."""
        return self.labels[neuron][0].text if self.labels[neuron] else ""

    def card(self, neuron: int) -> dict[str, Any]:
        """The neuron's row of neurons.parquet, but for its labels."""
        row: dict[str, Any] = self._cards.slice(neuron, 1).to_pylist()[0]
        return row

    def levels(self, code: SparseCode) -> Floats:
        """Every concept's level <s, w> / <w, w> in a code: [n_concepts]."""
        return np.asarray(
            (self._weights[:, code.neurons] @ code.activations) / self._norms, np.float32
        )

    def search(self, query: str, n: int) -> Sequence[Match]:
        """Concepts, then neurons whose label resembles the text, best first."""
        return self._search(query.casefold().strip(), n)

    def _found(self, query: str, n: int) -> Sequence[Match]:
        found = [
            (match, 1, -position, Match(match, concept=concept))
            for position, concept in enumerate(self.concepts)
            if (match := _resemblance(query, concept.name)) > 0
        ]
        found += [
            (match, 0, -neuron, Match(match, neuron=neuron))
            for neuron, labels in enumerate(self.labels)
            if labels and (match := _resemblance(query, labels[0].text)) > 0
        ]
        return [entry[-1] for entry in heapq.nlargest(n, found, key=lambda entry: entry[:-1])]


def concept_target(
    name: str, weights: Floats, decoder: Floats, unit: float, blend_neurons: Sequence[int]
) -> Target:
    """What edits of a concept act on; without blend neurons, those of the largest weights are mixed in."""
    return Target(
        name=name,
        neurons=None,
        weights=weights,
        direction=np.asarray(weights @ decoder, np.float32),
        unit=unit,
        blend_neurons=np.array(blend_neurons or np.argsort(-weights)[:TOP_NEURONS], np.int64),
    )


def _concepts(table: pa.Table, decoder: Floats) -> list[Concept]:
    flat = table["weights"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    weights = flat.astype(np.float32).reshape(len(table), len(decoder))
    facts = ("name", "attribute", "item_count", "method", "auc", "unsteered_share", "steered_share")
    return [
        Concept(
            **{fact: row[fact] for fact in facts},
            # Bundles of earlier exporters have no column for it.
            value=row.get("value") or row["name"].removeprefix(f"{row['attribute']}="),
            target=concept_target(
                row["name"], w, decoder, float(row["unit"]), row["blend_neurons"] or ()
            ),
        )
        for row, w in zip(table.drop_columns(["weights"]).to_pylist(), weights, strict=True)
    ]


def _resemblance(query: str, text: str) -> float:
    """1 for the same text, less for a part of it, less still for a close spelling, 0 for none of these."""
    folded = text.casefold()
    if query == folded:
        return 1.0
    if query and query in folded:
        return 0.5 + 0.5 * len(query) / len(folded)
    ratio = max(
        difflib.SequenceMatcher(None, query, part).ratio()
        for part in (folded, *folded.replace("-", " ").split())
    )
    return 0.5 * ratio if ratio >= 0.75 else 0.0
