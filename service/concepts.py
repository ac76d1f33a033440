"""The bundle's label set: named concepts, neurons' cards, and what edits of them need, worked out at load."""

import difflib
import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from service.arrays import Floats, Ints
from service.steering import SparseCode, Target

NEAREST_NAMES = 3
TOP_NEURONS = 10


@dataclass(frozen=True)
class Concept:
    """A row of concepts.parquet; see docs/bundle.md."""

    name: str
    attribute: str
    item_count: int
    method: str
    auc: float | None
    unsteered_share: float
    steered_share: float
    target: Target

    @property
    def value(self) -> str:
        """The attribute's value that stands behind the name."""
        return self.name.removeprefix(f"{self.attribute}=")

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
        concepts: In the bundle's order.
        decoder: W_dec, float32 [n_neurons, d].
        bias: b_dec, float32 [d].
    """

    def __init__(
        self, version: str, concepts: pa.Table, neurons: pa.Table, decoder: Floats, bias: Floats
    ) -> None:
        self.version = version
        self.decoder, self.bias = decoder, bias
        self.units: Floats = neurons["unit"].to_numpy().astype(np.float32)
        self._cards = neurons
        self._labels = [labels[0]["text"] if labels else "" for labels in neurons["labels"].to_pylist()]
        self._weights, self._norms = _weights(concepts, len(decoder))
        directions = self._weights @ decoder
        self.concepts = [
            _concept(row, weights, direction)
            for row, weights, direction in zip(
                concepts.drop_columns(["weights"]).to_pylist(), self._weights, directions, strict=True
            )
        ]
        self._by_name = {concept.name: concept for concept in self.concepts}

    @classmethod
    def read(cls, directory: Path, version: str) -> "LabelSet":
        """Reads concepts.parquet, neurons.parquet and decoder.npy (memory-mapped)."""
        decoder = np.load(directory / "decoder.npy", mmap_mode="r")
        concepts = pq.read_table(directory / "concepts.parquet")
        neurons = pq.read_table(directory / "neurons.parquet")
        return cls(version, concepts, neurons, decoder[:-1], decoder[-1])

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
        return self._labels[neuron]

    def card(self, neuron: int) -> dict[str, Any]:
        """The neuron's row of neurons.parquet."""
        row: dict[str, Any] = self._cards.slice(neuron, 1).to_pylist()[0]
        return row

    def levels(self, code: SparseCode) -> Floats:
        """Every concept's level <s, w> / <w, w> in a code: [n_concepts]."""
        return (self._weights[:, code.neurons] @ code.activations) / self._norms

    def search(self, query: str, n: int) -> Sequence[Match]:
        """Concepts, then neurons whose label resembles the text, best first."""
        return self._search(query.casefold().strip(), n)

    @lru_cache(maxsize=256)  # noqa: B019 -- bounded, and gone with the label set
    def _search(self, query: str, n: int) -> Sequence[Match]:
        found = [
            (match, 1, -position, Match(match, concept=concept))
            for position, concept in enumerate(self.concepts)
            if (match := _resemblance(query, concept.name)) > 0
        ]
        found += [
            (match, 0, -neuron, Match(match, neuron=neuron))
            for neuron, label in enumerate(self._labels)
            if label and (match := _resemblance(query, label)) > 0
        ]
        return [entry[-1] for entry in heapq.nlargest(n, found, key=lambda entry: entry[:-1])]


def _weights(concepts: pa.Table, n_neurons: int) -> tuple[Floats, Floats]:
    """All concepts' weights as one matrix [n_concepts, n_neurons], and their squared norms."""
    flat = concepts["weights"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    weights = flat.astype(np.float32).reshape(len(concepts), n_neurons)
    return weights, np.maximum((weights**2).sum(axis=1), np.finfo(np.float32).tiny)


def _concept(row: dict[str, Any], weights: Floats, direction: Floats) -> Concept:
    target = Target(
        name=row["name"],
        neurons=None,
        weights=weights,
        direction=direction,
        unit=float(row["unit"]),
        blend_neurons=np.array(row["blend_neurons"] or np.argsort(-weights)[:TOP_NEURONS], np.int64),
    )
    facts = ("name", "attribute", "item_count", "method", "auc", "unsteered_share", "steered_share")
    return Concept(**{fact: row[fact] for fact in facts}, target=target)


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
