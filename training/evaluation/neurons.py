"""Measures how well single neurons represent concepts: chosen on some items, judged on others."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_matrix

from training.arrays import Bools, Floats
from training.concepts.effect import Audience
from training.concepts.fitting import item_codes
from training.concepts.mapping.association import area_under_curve, neuron_aucs
from training.concepts.mapping.evidence import Evidence
from training.concepts.membership import memberships
from training.evaluation.steering import concept_shifts, neuron_unit
from training.run import Run


class NeuronFigures(NamedTuple):
    """A concept's best neuron, its AUC on unseen items, and the effect of one TYPICAL unit of it.

    shift is the change of the concept's mean exposure share in the top 20 of test users, off_target
    the largest change, up or down, of any other concept's.
    """

    concept: str
    neuron: int
    auc: float
    shift: float
    off_target: float


def best_neurons(run: Run, seed: int = 0) -> list[NeuronFigures]:
    """Finds each concept's neuron that tells its items apart best, without the held-out items."""
    config = run.config
    split = run.split
    members = memberships(run.catalogue, config.concepts)
    codes = item_codes(run.recommender, run.sae, config.max_length).toarray()
    judged = np.random.default_rng(seed).random(len(codes)) < config.concepts.held_out_share
    test = Audience.of(run.recommender, run.sae, split.histories(split.test), config.max_length)
    train = Audience.of(run.recommender, run.sae, split.histories(split.train), config.max_length)
    figures = []
    for row, name in enumerate(members.names):
        flags = members.matrix[row].toarray()[0] > 0
        neuron = best_neuron(codes[~judged], flags[~judged])
        edit = torch.zeros(run.sae.n_neurons)
        edit[neuron] = neuron_unit(train.code[:, neuron].numpy())
        shifts = concept_shifts(test, edit, members)
        others = np.abs(np.delete(shifts, row)).max(initial=0.0)
        auc = area_under_curve(codes[judged, neuron], flags[judged])
        figures.append(NeuronFigures(name, neuron, auc, float(shifts[row]), float(others)))
    return figures


def best_neuron(codes: Floats, flags: Bools) -> int:
    """Returns the neuron of largest AUC for the flagged items; among equals, the most active.

    codes [n_items, n_neurons], flags [n_items].
    """
    aucs = neuron_aucs(Evidence.whole(csr_matrix(flags, dtype=np.float32), csr_matrix(codes)))[0]
    best = np.flatnonzero(aucs >= np.nanmax(aucs, initial=0.0) - 1e-9)
    if not len(best):  # too few items to tell: nan everywhere
        best = np.arange(codes.shape[1])
    return int(best[codes[flags][:, best].sum(axis=0).argmax()])
