"""Builds a concept dictionary: descriptions of neurons, tested on items they were not made from.

Source: RecSAE (arXiv 2411.06112). Activations of one-item histories fall into 10 levels, the same
for all neurons. A neuron's samples of level 5 and more, and items that leave it silent, are split
into those that it is described by and those that the description is tested on. The levels here are
tenths of all activations: in ten equal steps up to the largest, one outlier decides, and few
neurons reach level 5 at all (4 items or more at that level had 30 of 1,024 neurons on ml-100k; with
tenths, 813).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from scipy.sparse import csc_matrix, csr_matrix

from training.arrays import Bools, Ints
from training.errors import ConfigError

DICTIONARY = "dictionary"
"""The labels' method where attribute values describe."""
LEVELS = 10
"""Number of activation levels."""
ON_LEVEL = 5
"""Level from which an item counts as firing a neuron."""
CONFIDENT = 0.8
"""Confidence from which a neuron counts as interpretable (the paper's)."""


@dataclass(frozen=True)
class DictionaryOptions:
    """Configures the numbers of samples that a neuron is described by and tested on."""

    on_samples: int = 10
    """Items that fire the neuron, in each set: those it is described by, and those it is tested
    on."""
    off_samples: int = 200
    """Items that leave it silent, of each set, drawn at random."""
    least_on: int = 10
    """Items that must fire a neuron to describe it: half of fewer would be too few to test it
    on."""

    def __post_init__(self) -> None:
        if self.on_samples < 2 or self.off_samples < 1 or self.least_on < 2:
            raise ConfigError(
                "dictionary: on_samples, off_samples and least_on: expected at least 2, 1 and 2, "
                f"found {self.on_samples}, {self.off_samples} and {self.least_on}"
            )


class Samples(NamedTuple):
    """Items that fire a neuron, strongest first, with levels 1 to 10, and items that do not."""

    on: Ints
    levels: Ints
    off: Ints


class Description(Protocol):
    """The meaning of a neuron, as text and as a prediction."""

    @property
    def text(self) -> str:
        """Returns the description in words."""

    def predict(self, items: Ints) -> Bools:
        """Predicts whether the neuron fires for each item; raises DescriberError if it cannot."""


class Describer(Protocol):
    """Finds the meaning of a neuron."""

    @property
    def name(self) -> str:
        """Returns the method's name in labels."""

    @property
    def provenance(self) -> str:
        """Returns the source of the descriptions, for labels."""

    def describe(self, neuron: int, samples: Samples) -> Description | None:
        """Describes a neuron from the samples alone; None if nothing fits them.

        Raises DescriberError if it cannot work now.
        """


class DescriberError(Exception):
    """Tells why a description or a prediction failed; the neuron stays undescribed."""


class Entry(NamedTuple):
    """A neuron's description and its accuracy on unseen items.

    confidence = (correct on + correct off) / all with as many on as off, that is, the mean of the
    share of firing items that were predicted to fire (recall) and of silent ones that were
    predicted silent. precision is the same predictions' precision at the neuron's true rate: few
    items fire it, so false alarms weigh more.
    """

    neuron: int
    text: str
    confidence: float
    precision: float
    recall: float
    on_count: int
    off_count: int


class Dictionary(NamedTuple):
    """The entries of described neurons; undescribed counts the others that enough items fire."""

    entries: list[Entry]
    undescribed: int
    faults: list[str]

    @property
    def confident(self) -> list[Entry]:
        """Returns the entries of confidence 0.8 or more."""
        return [entry for entry in self.entries if entry.confidence >= CONFIDENT]


def activation_levels(codes: csr_matrix) -> csc_matrix:
    """Maps activations [n_items, n_neurons] to levels 1 to 10, a tenth in each; 0 stays 0."""
    levels = csc_matrix(codes)
    levels.eliminate_zeros()
    if levels.nnz:
        edges = np.quantile(levels.data, np.arange(1, LEVELS) / LEVELS)
        levels.data = 1.0 + np.searchsorted(edges, levels.data, side="right")
    return levels


def make_dictionary(
    codes: csr_matrix,
    items: Ints,
    describer: Describer,
    options: DictionaryOptions,
    rng: np.random.Generator,
    report: Callable[[int, int], None] = lambda _done, _total: None,
    most: int | None = None,
) -> Dictionary:
    """Describes and tests every neuron that at least least_on items fire.

    Args:
        codes: [n_items, n_neurons] of one-item histories.
        items: [n_items], what the describer knows the rows as.
        describer: makes and applies descriptions.
        options: how many samples.
        rng: draws them.
        report: told how many neurons of how many are done.
        most: the largest number of neurons; those that fire for most items are chosen.
    """
    levels = activation_levels(codes)
    entries = []
    faults = []
    undescribed = 0
    chosen = np.sort(np.argsort(-np.diff(levels.indptr), kind="stable")[:most])
    for done, neuron in enumerate(chosen.tolist(), start=1):
        report(done, len(chosen))
        told, tested = _split(levels, neuron, options, rng)
        if len(told.on) + len(tested.on) < options.least_on or not len(tested.off):
            continue
        try:
            description = describer.describe(neuron, _known_as(told, items))
            seen = _known_as(tested, items)
            entry = None if description is None else _test(neuron, description, seen, levels, rng)
        except DescriberError as error:
            entry = None
            faults.append(f"neuron {neuron}: {error}")
        if entry is None:
            undescribed += 1
        else:
            entries.append(entry)
    return Dictionary(entries, undescribed, faults)


def _split(
    levels: csc_matrix, neuron: int, options: DictionaryOptions, rng: np.random.Generator
) -> tuple[Samples, Samples]:
    """Draws two disjoint sets of samples, the strongest items first."""
    column = slice(levels.indptr[neuron], levels.indptr[neuron + 1])
    active = levels.indices[column].astype(np.int64)
    level = levels.data[column].astype(np.int64)
    strong = active[level >= ON_LEVEL], level[level >= ON_LEVEL]
    order = rng.permutation(len(strong[0]))
    on = strong[0][order]
    on_levels = strong[1][order]
    half = min(len(on) // 2, options.on_samples)
    silent = np.setdiff1d(np.arange(levels.shape[0]), active)
    off = rng.permutation(silent)[: 2 * options.off_samples]
    sets = []
    for chosen, quiet in ((slice(half), off[::2]), (slice(half, 2 * half), off[1::2])):
        strongest = np.argsort(-on_levels[chosen], kind="stable")
        sets.append(Samples(on[chosen][strongest], on_levels[chosen][strongest], quiet))
    return sets[0], sets[1]


def _known_as(samples: Samples, items: Ints) -> Samples:
    return Samples(items[samples.on], samples.levels, items[samples.off])


def _test(
    neuron: int,
    description: Description,
    samples: Samples,
    levels: csc_matrix,
    rng: np.random.Generator,
) -> Entry:
    asked = np.concatenate([samples.on, samples.off])
    order = rng.permutation(len(asked))  # in one question, in no order that tells anything
    fires = np.empty(len(asked), dtype=bool)
    fires[order] = description.predict(asked[order])
    hits = float(fires[: len(samples.on)].mean())
    alarms = float(fires[len(samples.on) :].mean())
    column = levels.data[levels.indptr[neuron] : levels.indptr[neuron + 1]]
    rate_on = float((column >= ON_LEVEL).sum())
    rate_off = float(levels.shape[0] - len(column))
    fired = hits * rate_on + alarms * rate_off
    precision = hits * rate_on / fired if fired else 0.0
    confidence = (hits + 1 - alarms) / 2
    return Entry(
        neuron, description.text, confidence, precision, hits, len(samples.on), len(samples.off)
    )
