"""What steering does to the lists of held-out users: concepts through their weights, or single neurons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from training.concepts.effect import LIST_LENGTH, Audience
from training.concepts.fitting import FittedConcept
from training.concepts.membership import Membership
from training.evaluation import metrics
from training.evaluation.scorers import best_lists

_TYPICAL_QUANTILE = 0.95


class SteeringFigures(NamedTuple):
    """Means over users at one strength: the concept's share of the top 20, plain and by exposure; nDCG."""

    concept: str
    item_count: int
    share: float
    steered_share: float
    exposure: float
    steered_exposure: float
    ndcg: float
    steered_ndcg: float


def steer_concepts(
    audience: Audience,
    concepts: Sequence[FittedConcept],
    members: Membership,
    targets: csr_matrix,
    strength: float = 1.0,
) -> list[SteeringFigures]:
    """ADD of each concept at the given strength in TYPICAL units, mode RESIDUAL, one concept at a time.

    targets [users, n_items] are the audience's held-out items.
    """
    rows = {name: row for row, name in enumerate(members.names)}
    unsteered = audience.lists()
    ndcg = float(metrics.ndcg(unsteered, targets).mean())
    figures = []
    for concept in concepts:
        flags = members.matrix[rows[concept.name]].toarray()[0] > 0
        steered = audience.lists(torch.from_numpy(strength * concept.unit * concept.weights))
        figures.append(
            SteeringFigures(
                concept.name,
                concept.item_count,
                float(metrics.plain_share(unsteered, flags).mean()),
                float(metrics.plain_share(steered, flags).mean()),
                float(metrics.exposure_share(unsteered, flags).mean()),
                float(metrics.exposure_share(steered, flags).mean()),
                ndcg,
                float(metrics.ndcg(steered, targets).mean()),
            )
        )
    return figures


def edited_lists(audience: Audience, code: Tensor, reconstruct: bool = False) -> metrics.Lists:
    """Top-20 lists with another code [users, n_neurons] in the place of the users' own.

    RESIDUAL, z' = z + scale(z) (s' - s) W_dec; with reconstruct RECONSTRUCT, z' = scale(z) D(s') + shift(z).
    """
    with torch.no_grad():
        start = audience.sae.reconstruct(audience.z) if reconstruct else audience.z
        moved = (code - audience.code) @ audience.sae.W_dec
        z = start + audience.sae.scale(audience.z) * moved
        return best_lists(audience.recommender.scores(z, audience.context), audience.seen, LIST_LENGTH)


def neuron_unit(activations: NDArray[np.floating]) -> float:
    """One TYPICAL unit of a neuron: the 95th percentile of its activations [users] where active, or 0."""
    active = activations[activations > 0]
    return float(np.quantile(active, _TYPICAL_QUANTILE)) if len(active) else 0.0


def concept_shifts(audience: Audience, edit: Tensor, members: Membership) -> NDArray[np.float64]:
    """Change of each concept's mean exposure share under an edit of the code [n_neurons]: -> [n_concepts]."""
    before, after = audience.lists(), audience.lists(edit)
    shifts = []
    for row in range(len(members.names)):
        flags = members.matrix[row].toarray()[0] > 0
        shifts.append((metrics.exposure_share(after, flags) - metrics.exposure_share(before, flags)).mean())
    return np.asarray(shifts)
