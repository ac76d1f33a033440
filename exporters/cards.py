"""Concept cards: for every neuron, when it fires, what makes it fire and what it does to the scores."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.arrays import Floats
from training.histories import Histories, PaddedHistories
from training.recommenders import Recommender
from training.saes import SparseAutoencoder

QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
UNIT_QUANTILE = QUANTILES.index(0.95)
HISTOGRAM_BINS = 20
ITEMS_PER_CARD = 20
NEAREST_NEURONS = 8

# Activation statistics are measured on at most this many training users: a density of .001 is then
# known to within a tenth of itself (1 / sqrt(200) = .07).
MAX_USERS = 200_000
# And on so many that their active neurons stay below this number, which take 12 bytes each.
_MAX_ENTRIES = 2**25

# A padded batch holds about this many positions: 65,536 rows of 512 floats are 128 MiB.
_POSITIONS_PER_BATCH = 65_536
_ROWS_PER_BATCH = 4_096

# Elements of the neurons x items (or neurons) matrix that are held at once: 32 Mi floats are 128
# MiB.
_CHUNK_ELEMENTS = 2**25
_ITEMS_PER_CHUNK = 16_384

Ints = NDArray[np.int64]


class Ranked(NamedTuple):
    """Per neuron, a ranked list of items or neurons with a value each; short lists end in -1."""

    indices: NDArray[np.int32]
    """[n_neurons, length]."""
    values: Floats
    """[n_neurons, length]."""


class Activity(NamedTuple):
    """When neurons fire in a population of users."""

    density: Floats
    """[n_neurons]: share of users in whom the neuron is active."""
    quantiles: Floats
    """[n_neurons, len(QUANTILES)]: of the activations of those users; 0 for a dead neuron."""
    histogram: NDArray[np.int32]
    """[n_neurons, HISTOGRAM_BINS]: users per bin, in equal bins from 0 to the neuron's largest activation."""
    dead: NDArray[np.bool_]
    """[n_neurons]: active in no user."""
    unit: Floats
    """[n_neurons]: one TYPICAL unit, the 95th percentile activation where active; dead: the median."""


class Population(NamedTuple):
    """Codes of many users, and the mean of their embeddings."""

    neurons: Ints
    """[entries]: active neurons, all users' after each other."""
    activations: Floats
    """[entries]: above 0."""
    n_users: int
    mean_user: Floats
    """[d]."""


class NeuronCards(NamedTuple):
    """The cards of all neurons."""

    activity: Activity
    top_items: Ranked
    """Items by the activation that a history of just this item gives."""
    raised_items: Ranked
    """Items whose score strength 1 raises most for the mean user."""
    lowered_items: Ranked
    nearest: Ranked
    """Neurons by cosine of the decoder rows."""


@torch.no_grad()
def encode_population(
    recommender: Recommender, sae: SparseAutoencoder, histories: Histories
) -> Population:
    """Encodes all histories, or as many as can be held, drawn with a fixed seed."""
    most = min(MAX_USERS, max(_MAX_ENTRIES // sae.k, 1))
    if len(histories.lengths) > most:
        chosen = np.random.default_rng(0).choice(len(histories.lengths), most, replace=False)
        histories = histories.rows(np.sort(chosen))
    neurons, activations = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    total: Tensor | None = None
    for batch in bounded_batches(histories, _rows(recommender.context_size)):
        z = recommender.encode(batch.items, batch.mask)
        batch_sum = z.to(torch.float64).sum(dim=0)
        total = batch_sum if total is None else total + batch_sum
        for part in torch.split(z, _rows(sae.n_neurons)):
            code = sae.encode_sparse(part)
            active = code.activations > 0
            neurons.append(code.neurons[active].numpy())
            activations.append(code.activations[active].numpy())
    if total is None:
        raise ValueError(
            "no training histories: neurons' units and the mean user cannot be measured"
        )
    mean_user = (total / len(histories.lengths)).to(torch.float32).numpy()
    return Population(
        np.concatenate(neurons), np.concatenate(activations), len(histories.lengths), mean_user
    )


def measure_activity(population: Population, n_neurons: int) -> Activity:
    """Statistics of every neuron's activations where it is active."""
    order = np.lexsort((population.activations, population.neurons))
    activations = population.activations[order]
    counts = np.bincount(population.neurons, minlength=n_neurons)
    dead = counts == 0
    quantiles = np.zeros((n_neurons, len(QUANTILES)), np.float32)
    starts = np.cumsum(counts) - counts
    alive = np.flatnonzero(~dead)
    for column, quantile in enumerate(QUANTILES):
        # Linear interpolation between order statistics, numpy's default, for all neurons at once.
        position = quantile * (counts[alive] - 1)
        low = np.floor(position).astype(np.int64)
        high = np.minimum(low + 1, counts[alive] - 1)
        below, above = activations[starts[alive] + low], activations[starts[alive] + high]
        quantiles[alive, column] = below + (position - low) * (above - below)
    bins = population.activations / quantiles[population.neurons, -1] * HISTOGRAM_BINS
    bins = np.minimum(bins.astype(np.int64), HISTOGRAM_BINS - 1)
    histogram = np.bincount(
        population.neurons * HISTOGRAM_BINS + bins, minlength=n_neurons * HISTOGRAM_BINS
    )
    unit = quantiles[:, UNIT_QUANTILE].copy()
    unit[dead] = np.median(unit[alive]) if len(alive) else 1.0
    return Activity(
        density=(counts / population.n_users).astype(np.float32),
        quantiles=quantiles,
        histogram=histogram.reshape(n_neurons, HISTOGRAM_BINS).astype(np.int32),
        dead=dead,
        unit=unit,
    )


@torch.no_grad()
def find_top_items(recommender: Recommender, sae: SparseAutoencoder, n_items: int) -> Ranked:
    """Per neuron the items whose one-item histories activate it most."""
    neurons, items = np.zeros(0, np.int64), np.zeros(0, np.int64)
    activations = np.zeros(0, np.float32)
    rows = min(_ITEMS_PER_CHUNK, _rows(sae.n_neurons), _rows(recommender.context_size))
    for chunk in torch.split(torch.arange(n_items).unsqueeze(1), rows):
        code = sae.encode_sparse(recommender.encode(chunk, torch.ones(chunk.shape)))
        active = code.activations > 0
        neurons = np.concatenate([neurons, code.neurons[active].numpy()])
        items = np.concatenate([items, chunk.expand(code.neurons.shape)[active].numpy()])
        activations = np.concatenate([activations, code.activations[active].numpy()])
        order = np.lexsort((items, -activations, neurons))
        order = order[_rank_in_group(neurons[order]) < ITEMS_PER_CARD]
        neurons, items, activations = neurons[order], items[order], activations[order]
    indices = np.full((sae.n_neurons, ITEMS_PER_CARD), -1, np.int32)
    values = np.zeros((sae.n_neurons, ITEMS_PER_CARD), np.float32)
    ranks = _rank_in_group(neurons)
    indices[neurons, ranks] = items
    values[neurons, ranks] = activations
    return Ranked(indices, values)


def find_moved_items(
    recommender: Recommender, sae: SparseAutoencoder, V: Tensor, unit: Floats, mean_user: Floats
) -> tuple[Ranked, Ranked]:
    """Per neuron the items whose score strength 1 raises most, and those it lowers most.

    An edit of one unit moves z by scale(z) unit W_dec[n]; a nonlinear head is replaced by its
    derivative at the mean user, J [p, d], so the scores [n_items] move by V J W_dec[n] scale(z)
    unit. A context, where the head reads one, is that of the empty history, as online.
    """
    user = torch.from_numpy(mean_user)
    with torch.no_grad():
        doses = sae.scale(user.unsqueeze(0)) * torch.from_numpy(unit).unsqueeze(1)
        moves = doses * sae.W_dec
    if recommender.has_head:
        context = recommender.activate(
            torch.zeros(1, 0, dtype=torch.int64), torch.zeros(1, 0)
        ).context
        # Row by row, because attention cannot be differentiated for many rows at once.
        jacobian = torch.func.jacrev(
            lambda z: recommender.head(z.unsqueeze(0), context)[0], chunk_size=1
        )
        moves = moves @ jacobian(user).detach().T
    length = min(ITEMS_PER_CARD, len(V))
    raised, lowered = [], []
    for chunk in torch.split(moves, max(_CHUNK_ELEMENTS // len(V), 1)):
        effects = chunk @ V.T
        raised.append(torch.topk(effects, length, dim=1))
        lowered.append(torch.topk(effects, length, dim=1, largest=False))
    return _ranked(raised, sign=1.0), _ranked(lowered, sign=-1.0)


@torch.no_grad()
def find_nearest_neurons(W_dec: Tensor) -> Ranked:
    """Per neuron its neighbours by cosine of the decoder rows [n_neurons, d]."""
    directions = torch.nn.functional.normalize(W_dec, dim=1)
    length = min(NEAREST_NEURONS, len(directions) - 1)
    indices, values = [], []
    rows = max(_CHUNK_ELEMENTS // len(directions), 1)
    for start in range(0, len(directions), rows):
        cosines = directions[start : start + rows] @ directions.T
        here = torch.arange(len(cosines))
        cosines[here, start + here] = -torch.inf
        best = torch.topk(cosines, length, dim=1)
        indices.append(best.indices)
        values.append(best.values)
    return Ranked(torch.cat(indices).numpy().astype(np.int32), torch.cat(values).numpy())


def make_cards(
    recommender: Recommender, sae: SparseAutoencoder, V: Tensor, population: Population
) -> NeuronCards:
    """The cards of all neurons, from codes of the training users and the models themselves."""
    activity = measure_activity(population, sae.n_neurons)
    raised, lowered = find_moved_items(recommender, sae, V, activity.unit, population.mean_user)
    top_items = find_top_items(recommender, sae, len(V))
    return NeuronCards(activity, top_items, raised, lowered, find_nearest_neurons(sae.W_dec))


def bounded_batches(
    histories: Histories, most_rows: int = _ROWS_PER_BATCH
) -> Iterator[PaddedHistories]:
    """All histories in padded batches of bounded size, shortest first so that little of it is padding."""
    most_rows = min(most_rows, _ROWS_PER_BATCH)
    order = np.argsort(histories.lengths, kind="stable")
    lengths = histories.lengths[order]
    start = 0
    while start < len(order):
        stop = min(start + most_rows, len(order))
        stop = min(stop, start + max(_POSITIONS_PER_BATCH // max(int(lengths[stop - 1]), 1), 1))
        yield histories.rows(order[start:stop]).padded()
        start = stop


def _rows(width: int) -> int:
    """How many rows of a width are held at once."""
    return max(_CHUNK_ELEMENTS // max(width, 1), 1)


def _rank_in_group(sorted_groups: Ints) -> Ints:
    """[n] group numbers in order -> each entry's position within its group."""
    starts = np.flatnonzero(np.diff(sorted_groups, prepend=-1))
    lengths = np.diff(starts, append=len(sorted_groups))
    return np.arange(len(sorted_groups)) - np.repeat(starts, lengths)


def _ranked(chunks: list[torch.return_types.topk], sign: float) -> Ranked:
    indices = torch.cat([chunk.indices for chunk in chunks]).numpy().astype(np.int32)
    values = torch.cat([chunk.values for chunk in chunks]).detach().numpy()
    # A neuron that raises few items has a short list: an item that it leaves alone or lowers is not
    # "raised".
    moved = values * sign > 0
    return Ranked(
        np.where(moved, indices, -1).astype(np.int32),
        np.where(moved, values, 0.0).astype(np.float32),
    )
