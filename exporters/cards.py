"""Makes the neurons' cards: when each fires, what makes it fire and how it moves the scores."""

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
"""Quantiles of a neuron's activations on its card."""

UNIT_QUANTILE = QUANTILES.index(0.95)
"""Column of the quantile that is one TYPICAL unit."""

HISTOGRAM_BINS = 20
"""Bins of a card's histogram."""

ITEMS_PER_CARD = 20
"""Items in each list of a card."""

NEAREST_NEURONS = 8
"""Neurons in a card's list of the nearest."""

MAX_USERS = 200_000
"""Training users that activations are measured on. A density of 0.001 is then known to within a
tenth of itself (1 / sqrt(200) = 0.07); more take longer."""

_MAX_ENTRIES = 2**25
"""Active neurons of all users that are held: 12 bytes each. More take more memory."""

_POSITIONS_PER_BATCH = 65_536
"""Positions of a padded batch: rows of 512 floats are 128 MiB. More take more memory."""

_ROWS_PER_BATCH = 4_096
"""Histories in a batch. More take more memory."""

_CHUNK_ELEMENTS = 2**25
"""Elements held of a matrix of neurons by items or neurons: 128 MiB. More take more memory."""

_ITEMS_PER_CHUNK = 16_384
"""Items encoded at a time. More take more memory."""

Ints = NDArray[np.int64]


class Ranked(NamedTuple):
    """Per neuron, a ranked list of items or neurons with a value each; short lists end in -1."""

    indices: NDArray[np.int32]
    """[n_neurons, length]."""
    values: Floats
    """[n_neurons, length]."""


class MovedItems(NamedTuple):
    """Items whose score an edit of strength 1 raises most, and those it lowers most."""

    raised: Ranked
    lowered: Ranked


class Activity(NamedTuple):
    """When neurons fire in a population of users."""

    density: Floats
    """[n_neurons]: share of users in whom the neuron is active."""
    quantiles: Floats
    """[n_neurons, len(QUANTILES)]: of the activations of those users; 0 for a dead neuron."""
    histogram: NDArray[np.int32]
    """[n_neurons, HISTOGRAM_BINS]: users per bin, equal bins from 0 to the largest activation."""
    dead: NDArray[np.bool_]
    """[n_neurons]: active in no user."""
    unit: Floats
    """[n_neurons]: one TYPICAL unit: the 95th percentile where active; the median if dead."""


class Population(NamedTuple):
    """The codes of many users, and the mean of their embeddings."""

    neurons: Ints
    """[entries]: the active neurons of the users, one user after another."""
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
    """Encodes all histories, or a sample of the most that can be held, drawn with a fixed seed.

    Raises:
        ValueError: there are no histories.
    """
    most = min(MAX_USERS, max(_MAX_ENTRIES // sae.k, 1))
    if len(histories.lengths) > most:
        chosen = np.random.default_rng(0).choice(len(histories.lengths), most, replace=False)
        histories = histories.rows(np.sort(chosen))
    neurons = [np.zeros(0, np.int64)]
    activations = [np.zeros(0, np.float32)]
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
            "expected training histories to measure units and the mean user on, found none"
        )
    mean_user = (total / len(histories.lengths)).to(torch.float32).numpy()
    return Population(
        neurons=np.concatenate(neurons),
        activations=np.concatenate(activations),
        n_users=len(histories.lengths),
        mean_user=mean_user,
    )


def measure_activity(population: Population, n_neurons: int) -> Activity:
    """Computes statistics of every neuron's activations where it is active."""
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
        below = activations[starts[alive] + low]
        above = activations[starts[alive] + high]
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
    """Finds, for each neuron, the items whose one-item histories activate it most."""
    neurons = np.zeros(0, np.int64)
    items = np.zeros(0, np.int64)
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
        neurons = neurons[order]
        items = items[order]
        activations = activations[order]
    indices = np.full((sae.n_neurons, ITEMS_PER_CARD), -1, np.int32)
    values = np.zeros((sae.n_neurons, ITEMS_PER_CARD), np.float32)
    ranks = _rank_in_group(neurons)
    indices[neurons, ranks] = items
    values[neurons, ranks] = activations
    return Ranked(indices, values)


def find_moved_items(
    recommender: Recommender, sae: SparseAutoencoder, V: Tensor, unit: Floats, mean_user: Floats
) -> MovedItems:
    """Finds, for each neuron, the items whose scores strength 1 raises most and lowers most.

    An edit of one unit moves z by scale(z) unit W_dec[n]; a nonlinear head is replaced by its
    derivative at the mean user, J [p, d], so the scores [n_items] move by V J W_dec[n] scale(z)
    unit. If the head reads a context, it is the empty history's, as in the service.
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
    raised = []
    lowered = []
    for chunk in torch.split(moves, max(_CHUNK_ELEMENTS // len(V), 1)):
        effects = chunk @ V.T
        raised.append(torch.topk(effects, length, dim=1))
        lowered.append(torch.topk(effects, length, dim=1, largest=False))
    return MovedItems(raised=_ranked(raised, sign=1.0), lowered=_ranked(lowered, sign=-1.0))


@torch.no_grad()
def find_nearest_neurons(W_dec: Tensor) -> Ranked:
    """Finds, for each neuron, the nearest by cosine of the decoder rows [n_neurons, d]."""
    directions = torch.nn.functional.normalize(W_dec, dim=1)
    length = min(NEAREST_NEURONS, len(directions) - 1)
    indices = []
    values = []
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
    """Makes the cards of all neurons from the training users' codes and the models."""
    activity = measure_activity(population, sae.n_neurons)
    moved = find_moved_items(recommender, sae, V, activity.unit, population.mean_user)
    top_items = find_top_items(recommender, sae, len(V))
    return NeuronCards(
        activity=activity,
        top_items=top_items,
        raised_items=moved.raised,
        lowered_items=moved.lowered,
        nearest=find_nearest_neurons(sae.W_dec),
    )


def bounded_batches(
    histories: Histories, most_rows: int = _ROWS_PER_BATCH
) -> Iterator[PaddedHistories]:
    """Yields all histories in padded batches of bounded size, shortest first: less is padding."""
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
    """Returns the number of rows of a width that are held at a time."""
    return max(_CHUNK_ELEMENTS // max(width, 1), 1)


def _rank_in_group(sorted_groups: Ints) -> Ints:
    """Numbers the entries of each group from 0: ascending group numbers [n] -> [n]."""
    starts = np.flatnonzero(np.diff(sorted_groups, prepend=-1))
    lengths = np.diff(starts, append=len(sorted_groups))
    return np.arange(len(sorted_groups)) - np.repeat(starts, lengths)


def _ranked(chunks: list[torch.return_types.topk], sign: float) -> Ranked:
    indices = torch.cat([chunk.indices for chunk in chunks]).numpy().astype(np.int32)
    values = torch.cat([chunk.values for chunk in chunks]).detach().numpy()
    # A neuron that raises few items has a short list: items that it does not move or lowers are
    # left out.
    moved = values * sign > 0
    return Ranked(
        np.where(moved, indices, -1).astype(np.int32),
        np.where(moved, values, 0.0).astype(np.float32),
    )
