"""What each operation on a concept does to lists, and which levels of the concept it acts on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from training.concepts.effect import Audience
from training.concepts.fitting import FittedConcept
from training.evaluation.steering import edited_lists, levels, shifted, silenced
from training.measures import metrics

Doubles = NDArray[np.float64]
Operation = Callable[[Tensor, FittedConcept, float], Tensor]
"""Edits codes [users, n_neurons]; a strength is in TYPICAL units."""
NEURONS = 10


def own_neurons(concept: FittedConcept) -> NDArray[np.int64]:
    """The neurons of a concept's largest weights."""
    return np.argsort(-concept.weights, kind="stable")[:NEURONS]


def _cap(code: Tensor, concept: FittedConcept, _: float) -> Tensor:
    return shifted(code, concept, -levels(code, concept).clamp(min=0.0))


OPERATIONS: dict[str, Operation] = {
    "ADD +x": lambda code, concept, x: shifted(code, concept, x * concept.unit),
    "ADD -x": lambda code, concept, x: shifted(code, concept, -x * concept.unit),
    "ABLATE": lambda code, concept, _: shifted(code, concept, -levels(code, concept)),
    "CAP 0": _cap,
    f"its {NEURONS} neurons to 0": lambda code, concept, _: silenced(code, own_neurons(concept)),
}


class Operated(NamedTuple):
    """A concept under one operation: its exposure share before, its change, and that of nDCG@20, [users]."""

    share: Doubles
    change: Doubles
    ndcg_change: Doubles


class Levels(NamedTuple):
    """Where a concept's levels lie: of users, and of items with and without it (one-item histories)."""

    users: Doubles
    items_with: float
    items_without: float


def operate(
    audience: Audience,
    concept: FittedConcept,
    flags: NDArray[np.bool_],
    targets: csr_matrix,
    strength: float,
) -> Iterator[tuple[str, Operated]]:
    """Every operation on one concept, mode RESIDUAL; flags [n_items] are its items.

    targets [users, n_items] are the audience's held-out items.
    """
    before = audience.lists()
    share, ndcg = metrics.exposure_share(before, flags), metrics.ndcg(before, targets)
    for name, operation in OPERATIONS.items():
        after = edited_lists(audience, operation(audience.code, concept, strength))
        yield (
            name,
            Operated(
                share,
                metrics.exposure_share(after, flags) - share,
                metrics.ndcg(after, targets) - ndcg,
            ),
        )


def levels_of(
    audience: Audience, concept: FittedConcept, flags: NDArray[np.bool_], item_codes: csr_matrix
) -> Levels:
    """The levels of users and items; item_codes [n_items, n_neurons] are of the items that flags tells of."""
    items = levels(torch.from_numpy(item_codes.toarray()), concept).numpy()
    users = levels(audience.code, concept).double().numpy()
    return Levels(users, float(items[flags].mean()), float(items[~flags].mean()))
