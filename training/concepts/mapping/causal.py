"""Maps concepts to neurons by what raising a neuron does to the concept's share of users' lists."""

from __future__ import annotations

import numpy as np
import torch

from training.arrays import Floats
from training.concepts.effect import Audience
from training.concepts.mapping.evidence import Evidence
from training.measures.metrics import Lists, discounts

_NO_AUDIENCE = "causal choice measures lists, so it needs an audience"


def causal(evidence: Evidence) -> Floats:
    """Measures the change of each concept's exposure share when a neuron is raised by one unit.

    Mean over users, in top-20 lists; one edit for each neuron, for all users at once: [n_concepts,
    n_neurons]; 0 for neurons that fire for no user.
    """
    audience = evidence.audience
    if audience is None:
        raise ValueError(_NO_AUDIENCE)
    n_items = audience.recommender.n_items
    before = _shares(audience.lists(), evidence, n_items)
    changes = np.zeros((evidence.members.shape[0], audience.sae.n_neurons), dtype=np.float32)
    for neuron, unit in enumerate(neuron_units(audience)):
        if unit > 0:
            edit = torch.zeros(audience.sae.n_neurons)
            edit[neuron] = float(unit)
            changes[:, neuron] = _shares(audience.lists(edit), evidence, n_items) - before
    return changes


def neuron_units(audience: Audience) -> Floats:
    """Returns a TYPICAL unit of each neuron, its 95th percentile where active: [n_neurons].

    0 for a dead neuron.
    """
    columns = audience.code.numpy().T
    active = [column[column > 0] for column in columns]
    return np.array(
        [np.quantile(own, 0.95) if len(own) else 0.0 for own in active], dtype=np.float32
    )


def _shares(lists: Lists, evidence: Evidence, n_items: int) -> Floats:
    """Computes every concept's mean exposure share in lists [users, n]: [n_concepts].

    Only known items count.
    """
    filled = lists >= 0
    weights = np.where(filled, discounts(lists.shape[1]), 0.0)
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    exposure = np.bincount(lists[filled], weights[filled], n_items) / max(len(lists), 1)
    shares: Floats = evidence.members @ exposure[evidence.items]
    return shares
