"""Measures what each operation on a concept does to lists, and the concept's levels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from training.arrays import Bools, Doubles, Ints
from training.concepts.effect import Audience
from training.concepts.fitting import FittedConcept
from training.evaluation.steering import edited_lists, levels, shifted, silenced
from training.measures import metrics

Operation = Callable[[Tensor, FittedConcept, float], Tensor]
"""Edits codes [users, n_neurons]; a strength is in TYPICAL units."""
NEURONS = 10
"""Largest neurons of a concept that count as its own."""


class OperationId(StrEnum):
    """An operation that is measured; the value is its title in tables and figures."""

    ADD_UP = "ADD +x"
    ADD_DOWN = "ADD -x"
    ABLATE = "ABLATE"
    CAP = "CAP 0"
    NEURONS = f"its {NEURONS} neurons to 0"


def own_neurons(concept: FittedConcept) -> Ints:
    """Returns the neurons of a concept's largest weights."""
    return np.argsort(-concept.weights, kind="stable")[:NEURONS]


def _cap(code: Tensor, concept: FittedConcept, _: float) -> Tensor:
    return shifted(code, concept, -levels(code, concept).clamp(min=0.0))


OPERATIONS: dict[OperationId, Operation] = {
    OperationId.ADD_UP: lambda code, concept, x: shifted(code, concept, x * concept.unit),
    OperationId.ADD_DOWN: lambda code, concept, x: shifted(code, concept, -x * concept.unit),
    OperationId.ABLATE: lambda code, concept, _: shifted(code, concept, -levels(code, concept)),
    OperationId.CAP: _cap,
    OperationId.NEURONS: lambda code, concept, _: silenced(code, own_neurons(concept)),
}


class Operated(NamedTuple):
    """A concept under one operation: its share before, its change, nDCG@20's change, [users]."""

    share: Doubles
    change: Doubles
    ndcg_change: Doubles


class Levels(NamedTuple):
    """A concept's levels for users, and for one-item histories of items with and without it."""

    users: Doubles
    items_with: float
    items_without: float


def operate(
    audience: Audience,
    concept: FittedConcept,
    flags: Bools,
    targets: csr_matrix,
    strength: float,
) -> Iterator[tuple[OperationId, Operated]]:
    """Measures every operation on one concept, in mode RESIDUAL.

    flags [n_items] are the concept's items; targets [users, n_items] are the audience's held-out
    items.
    """
    before = audience.lists()
    share = metrics.exposure_share(before, flags)
    ndcg = metrics.ndcg(before, targets)
    for name, operation in OPERATIONS.items():
        after = edited_lists(audience, operation(audience.code, concept, strength))
        change = metrics.exposure_share(after, flags) - share
        yield name, Operated(share, change, metrics.ndcg(after, targets) - ndcg)


def levels_of(
    audience: Audience, concept: FittedConcept, flags: Bools, item_codes: csr_matrix
) -> Levels:
    """Returns the levels of users and items; item_codes [n_items, n_neurons], flags [n_items]."""
    items = levels(torch.from_numpy(item_codes.toarray()), concept).numpy()
    users = levels(audience.code, concept).double().numpy()
    return Levels(users, float(items[flags].mean()), float(items[~flags].mean()))
