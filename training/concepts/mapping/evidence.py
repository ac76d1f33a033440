"""The protocol of the methods that relate concepts to neurons: their evidence and their results."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from training.arrays import Bools, Floats, Ints
from training.concepts.effect import Audience

Figures = NDArray[np.floating]


class Evidence(NamedTuple):
    """The items, codes and users that a mapping method may use.

    members float32 [n_concepts, n_items], 1 where an item carries a concept; codes float32
    [n_items, n_neurons] of the items' one-item histories (or any other numbers per item, such as
    raw dimensions); items int64 [n_items], their rows in the catalogue; audience: users on whose
    lists effects are measured, None where a method needs none.
    """

    members: csr_matrix
    codes: csr_matrix
    items: Ints
    audience: Audience | None = None

    @classmethod
    def whole(
        cls, members: csr_matrix, codes: csr_matrix, audience: Audience | None = None
    ) -> Evidence:
        """Returns the evidence of all items of the catalogue."""
        return cls(members, codes, np.arange(codes.shape[0]), audience)

    def of(self, items: Bools) -> Evidence:
        """Returns the evidence of the items that items [n_items] flags."""
        rows = np.flatnonzero(items)
        return self._replace(
            members=self.members[:, rows], codes=self.codes[rows], items=self.items[rows]
        )

    @property
    def tells_apart(self) -> Bools:
        """Flags the concepts that some items carry and some do not, [n_concepts].

        Nothing can be learnt about the others.
        """
        counts = np.diff(self.members.indptr)
        apart: Bools = (counts > 0) & (counts < self.members.shape[1])
        return apart


class Mapping(Protocol):
    """Relates concepts to neurons."""

    def __call__(self, evidence: Evidence) -> Floats:
        """Returns how strongly each neuron represents each concept: [n_concepts, n_neurons].

        float32. A row serves as a concept's weights over neurons, a column as a neuron's scores for
        labels.
        """


class Method(NamedTuple):
    """A mapping, its one-line text for help and provenance, and how its labels are judged.

    judge returns a label's score on held-out items, [n_concepts, n_neurons], NaN where it is
    undefined; None: the score is the mapping's own, on the items that it was fitted to.
    """

    text: str
    map: Mapping
    judge: Callable[[Evidence], Figures] | None = None
    needs_audience: bool = False
