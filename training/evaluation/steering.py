"""Edits of held-out users' codes, and the lists that they give."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.concepts.effect import LIST_LENGTH, Audience
from training.concepts.fitting import FittedConcept
from training.concepts.membership import Membership
from training.measures import metrics
from training.measures.scorers import best_lists

_TYPICAL_QUANTILE = 0.95


def levels(code: Tensor, concept: FittedConcept) -> Tensor:
    """Each user's level of a concept, c = <s, w> / <w, w>: [users, n_neurons] -> [users]."""
    w = torch.from_numpy(concept.weights)
    return code @ w / w.dot(w)


def shifted(code: Tensor, concept: FittedConcept, amount: Tensor | float) -> Tensor:
    """Codes [users, n_neurons] with each level moved by an amount [users], as every operation but BLEND."""
    w = torch.from_numpy(concept.weights)
    return code + torch.as_tensor(amount, dtype=code.dtype).reshape(-1, 1) * w


def silenced(code: Tensor, neurons: NDArray[np.int64]) -> Tensor:
    """Codes [users, n_neurons] with some neurons set to 0."""
    return code.index_fill(1, torch.from_numpy(neurons), 0.0)


def edited_lists(audience: Audience, code: Tensor, reconstruct: bool = False) -> metrics.Lists:
    """Top-20 lists with another code [users, n_neurons] in the place of the users' own.

    RESIDUAL, z' = z + scale(z) (s' - s) W_dec; with reconstruct RECONSTRUCT, z' = scale(z) D(s') +
    shift(z).
    """
    with torch.no_grad():
        start = audience.sae.reconstruct(audience.z) if reconstruct else audience.z
        moved = (code - audience.code) @ audience.sae.W_dec
        z = start + audience.sae.scale(audience.z) * moved
        return best_lists(
            audience.recommender.scores(z, audience.context), audience.seen, LIST_LENGTH
        )


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
        shifts.append(
            (metrics.exposure_share(after, flags) - metrics.exposure_share(before, flags)).mean()
        )
    return np.asarray(shifts)
