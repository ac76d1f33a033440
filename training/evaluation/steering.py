"""Edits held-out users' codes, and makes the lists that follow."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.arrays import Doubles, Ints
from training.concepts.effect import LIST_LENGTH, Audience
from training.concepts.fitting import FittedConcept
from training.concepts.membership import Membership
from training.measures import metrics
from training.measures.scorers import best_lists

_TYPICAL_QUANTILE = 0.95


def levels(code: Tensor, concept: FittedConcept) -> Tensor:
    """Returns each user's level of a concept, c = <s, w> / <w, w>: code [users, n_neurons]."""
    w = torch.from_numpy(concept.weights)
    return code @ w / w.dot(w)


def shifted(code: Tensor, concept: FittedConcept, amount: Tensor | float) -> Tensor:
    """Moves each level by an amount [users], as every operation but BLEND: [users, n_neurons]."""
    w = torch.from_numpy(concept.weights)
    return code + torch.as_tensor(amount, dtype=code.dtype).reshape(-1, 1) * w


def silenced(code: Tensor, neurons: Ints) -> Tensor:
    """Sets some neurons of codes [users, n_neurons] to 0."""
    return code.index_fill(1, torch.from_numpy(neurons), 0.0)


def edited_lists(audience: Audience, code: Tensor, reconstruct: bool = False) -> metrics.Lists:
    """Returns top-20 lists with another code [users, n_neurons] in place of the users' own.

    Mode RESIDUAL, z' = z + scale(z) (s' - s) W_dec; with reconstruct, mode RECONSTRUCT, z' =
    scale(z) D(s') + shift(z).
    """
    with torch.no_grad():
        start = audience.sae.reconstruct(audience.z) if reconstruct else audience.z
        moved = (code - audience.code) @ audience.sae.W_dec
        z = start + audience.sae.scale(audience.z) * moved
        return best_lists(
            audience.recommender.scores(z, audience.context), audience.seen, LIST_LENGTH
        )


def neuron_unit(activations: NDArray[np.floating]) -> float:
    """Returns one TYPICAL unit of a neuron: the 95th percentile of its positive activations.

    activations [users]; 0 for a neuron that is never active.
    """
    active = activations[activations > 0]
    return float(np.quantile(active, _TYPICAL_QUANTILE)) if len(active) else 0.0


def concept_shifts(audience: Audience, edit: Tensor, members: Membership) -> Doubles:
    """Measures the change of each concept's mean exposure share under an edit: [n_concepts].

    edit [n_neurons] is added to the code.
    """
    before = audience.lists()
    after = audience.lists(edit)
    shifts = []
    for row in range(len(members.names)):
        flags = members.matrix[row].toarray()[0] > 0
        shifts.append(
            (metrics.exposure_share(after, flags) - metrics.exposure_share(before, flags)).mean()
        )
    return np.asarray(shifts)
