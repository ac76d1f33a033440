"""The describer that needs no model: it names the attribute values that a neuron's items share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from training.arrays import Bools, Ints
from training.concepts.describing.dictionary import DICTIONARY, Samples

MOST_VALUES = 3
LEAST_GAIN = 0.05
"""A further value must raise the share of firing items less that of silent ones by so much."""


@dataclass(frozen=True)
class Rule:
    """A rule that fits items which carry all of the values, or any of them."""

    names: tuple[str, ...]
    flags: Bools
    """[n_items] of the catalogue."""
    joint: str = "and"

    @property
    def text(self) -> str:
        """Returns the values in words."""
        return f" {self.joint} ".join(self.names)

    def predict(self, items: Ints) -> Bools:
        """Predicts that exactly the fitting items fire the neuron."""
        return self.flags[items]


class MetadataDescriber:
    """Describes a neuron by up to three values, all or any of which its items carry.

    Args:
        names: Of the values.
        members: [n_values, n_items] of the catalogue.
    """

    name = DICTIONARY

    def __init__(self, names: Sequence[str], members: csr_matrix) -> None:
        self._names = tuple(names)
        self._members: Bools = members.toarray() > 0

    @property
    def provenance(self) -> str:
        """Returns the source of the descriptions, for labels."""
        return f"attribute values enriched in the neuron's items, of {len(self._names)} values"

    def describe(self, neuron: int, samples: Samples) -> Rule | None:
        """Returns the better of the best rule of values joined by "and" and by "or"."""
        del neuron  # only the samples are used
        on = self._members[:, samples.on]
        off = self._members[:, samples.off]
        rules = [_greedy(on, off, np.logical_and), _greedy(on, off, np.logical_or)]
        (rows, gain), joint = max(zip(rules, ("and", "or"), strict=True), key=lambda one: one[0][1])
        if gain <= 0:
            return None
        chosen = self._members[rows]
        flags: Bools = np.all(chosen, axis=0) if joint == "and" else np.any(chosen, axis=0)
        return Rule(tuple(self._names[row] for row in sorted(rows)), flags, joint)


def _greedy(
    on: Bools, off: Bools, join: Callable[[Bools, Bools], Bools]
) -> tuple[list[int], float]:
    """Adds values one by one while each widens the gap between fitting on and off items."""
    rows: list[int] = []
    best = 0.0
    fits_on = on
    fits_off = off
    while len(rows) < MOST_VALUES:
        gaps = fits_on.mean(axis=1) - fits_off.mean(axis=1)
        row = int(gaps.argmax()) if len(gaps) else -1
        if row < 0 or gaps[row] < best + (LEAST_GAIN if rows else np.finfo(float).eps):
            break
        rows = [*rows, row]
        best = float(gaps[row])
        fits_on = join(on, fits_on[row])
        fits_off = join(off, fits_off[row])
    return rows, best
