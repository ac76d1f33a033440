"""RecFTT: learns a multiplier and a bias for a few neurons, so that lists hold more of one concept.

Source: RecSAE (arXiv 2411.06112). The neurons are those whose silence changes the loss on the
concept's wanted items most; recommender and SAE stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.sparse import csr_matrix
from torch import Tensor

from training.arrays import Floats, Ints
from training.concepts.effect import LIST_LENGTH, Audience
from training.concepts.membership import Membership
from training.evaluation.report import Estimate
from training.evaluation.steering import edited_lists
from training.measures import metrics
from training.measures.metrics import Figures
from training.measures.scorers import best_lists
from training.run import Run

WEIGHTS = (0.0, 0.1, 0.3, 1.0)
"""Weights of the concept's loss that are tried."""
STRONGEST = (25, 100)
"""Numbers of neurons that are tuned."""
BOOSTS = (0.0, 0.1, 0.2, 0.4, 0.8)
"""Strengths of the tag boost, in standard deviations of a user's scores."""
BOOST = "tag boost, standard deviations"
CONCEPTS = 6
"""Most frequent concepts that are tuned for."""
SHORT = 10
"""Length of the lists that are judged."""
STEPS = 40
"""Steps of Adam."""
LR = 0.03
_MOST_USERS = 1000
"""Validation users that are learned from, at most."""
_LOG_SHARPNESS = (-3.0, 7.0)


class Knobs(NamedTuple):
    """Neurons int64 [m], and what their activations s become: multipliers s + biases, both [m]."""

    neurons: Tensor
    multipliers: Tensor
    biases: Tensor

    def change(self, code: Tensor) -> Tensor:
        """Returns the change of these neurons of a code [users, n_neurons]: [users, m]."""
        return (self.multipliers - 1) * code[:, self.neurons] + self.biases

    def applied(self, code: Tensor) -> Tensor:
        """Returns the code with these neurons changed, for every user."""
        return code.index_add(1, self.neurons, self.change(code))


class Lessons(NamedTuple):
    """Validation users with their held-out items: wanted [users, n_items], seen bool.

    seen is [users, n_items], too. Scores are multiplied by sharpness before a softmax. It makes the
    wanted items likeliest to the unsteered recommender, so that no edit can gain by making all
    scores larger.
    """

    audience: Audience
    wanted: csr_matrix
    seen: Tensor
    sharpness: float = 1.0

    @classmethod
    def of(cls, run: Run, rng: np.random.Generator) -> Lessons:
        """Draws at most 1,000 of a run's validation users."""
        users = np.sort(rng.permutation(run.split.validation)[:_MOST_USERS])
        histories = run.split.histories(users)
        audience = Audience.of(run.recommender, run.sae, histories, run.config.max_length)
        seen = torch.from_numpy(audience.seen.toarray() > 0)
        lessons = cls(audience, run.split.targets(users), seen)
        unmoved = torch.zeros(len(users), run.sae.d)

        def surprise(log_sharpness: float) -> float:
            sharper = lessons._replace(sharpness=math.exp(log_sharpness))
            return float(sharper.surprise(unmoved).sum())

        best = minimize_scalar(
            surprise, bounds=_LOG_SHARPNESS, method="bounded", options={"maxiter": 20}
        )
        return lessons._replace(sharpness=math.exp(best.x))

    def rows(self, rows: Ints) -> Lessons:
        """Returns the given users."""
        audience, wanted, seen, sharpness = self
        return Lessons(audience.rows(rows), wanted[rows], seen[rows], sharpness)

    def surprise(self, move: Tensor) -> Tensor:
        """Computes -log softmax over the unseen items at z + scale(z) move: [users, d] -> [wanted].

        In the order of wanted's entries.
        """
        model, sae, z, context, *_ = self.audience
        scores = self.sharpness * model.scores(z + sae.scale(z) * move, context)
        totals = torch.logsumexp(scores.masked_fill(self.seen, -1e9), dim=-1)
        users, items = (
            torch.from_numpy(places.astype(np.int64)) for places in self.wanted.nonzero()
        )
        return totals[users] - scores[users, items]


@torch.no_grad()
def silence_effects(lessons: Lessons, members: csr_matrix) -> Figures:
    """Measures how much more each concept's wanted items surprise without a neuron.

    members [n_concepts, n_items] -> [n_neurons, n_concepts], summed over the users in whom the
    neuron fires.
    """
    code = lessons.audience.code
    W_dec = lessons.audience.sae.W_dec
    before = lessons.surprise(torch.zeros(len(code), W_dec.shape[1]))
    table = _by_concept(lessons.wanted, before, members)
    effects = np.zeros((len(W_dec), members.shape[0]))
    for neuron in np.flatnonzero((code > 0).any(dim=0).numpy()):
        users = np.flatnonzero(code[:, neuron].numpy() > 0)
        part = lessons.rows(users)
        after = part.surprise(-code[users, neuron, None] * W_dec[neuron])
        effects[neuron] = (_by_concept(part.wanted, after, members) - table[users]).sum(axis=0)
    return effects


def _by_concept(wanted: csr_matrix, surprise: Tensor, members: csr_matrix) -> Figures:
    """Sums over the wanted items that carry each concept: [users, n_concepts]."""
    table = csr_matrix(
        (surprise.double().numpy(), wanted.indices, wanted.indptr), shape=wanted.shape
    )
    sums: Figures = (table @ members.T).toarray()
    return sums


def tune(lessons: Lessons, neurons: Ints, flags: Floats, weight: float) -> Knobs:
    """Learns knobs that lower the mean surprise of wanted items + weight x that of flagged ones.

    flags [n_items], 1 for the concept's items.
    """
    audience = lessons.audience
    flagged = flags[lessons.wanted.indices]
    share = torch.from_numpy(1 / len(flagged) + weight * flagged / max(flagged.sum(), 1))
    rows = audience.sae.W_dec[torch.from_numpy(neurons)]
    multipliers = torch.ones(len(neurons), requires_grad=True)
    biases = torch.zeros(len(neurons), requires_grad=True)
    knobs = Knobs(torch.from_numpy(neurons), multipliers, biases)
    optimiser = torch.optim.Adam([multipliers, biases], lr=LR)
    with torch.enable_grad():
        for _ in range(STEPS):
            loss = (lessons.surprise(knobs.change(audience.code) @ rows) * share).sum()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return Knobs(knobs.neurons, multipliers.detach(), biases.detach())


def tuning_gains(
    run: Run, audience: Audience, members: Membership, targets: csr_matrix
) -> dict[str, Any]:
    """Measures relative gains of nDCG@10 on the concept's targets and on all.

    By method and strength; means over the most frequent concepts, then over users.
    """
    rng = np.random.default_rng([run.config.seed, 0xF7])
    lessons = Lessons.of(run, rng)
    concepts = np.argsort(-members.item_counts, kind="stable")[:CONCEPTS]
    chosen = members.matrix[concepts]
    flags = chosen.toarray()
    effects = np.abs(silence_effects(lessons, chosen))
    before = audience.lists()
    gains: dict[tuple[str, str], list[Figures]] = {}
    bases = []
    for row, own in enumerate(flags):
        wanted = targets.multiply(own).tocsr()
        wanted.eliminate_zeros()  # they would count as wanted
        bases.append(_relevance(before, wanted, targets))
        order = np.argsort(-effects[:, row], kind="stable")
        for method, strength, lists in _tuned(audience, lessons, own, order, rng):
            gains.setdefault((method, f"{strength:g}"), []).append(
                _relevance(lists, wanted, targets)
            )
    base = np.nanmean(_over_concepts(bases), axis=1)
    tuned: dict[str, Any] = {"concepts": [members.names[row] for row in concepts], "ways": {}}
    for (method, label), judged in gains.items():
        change = _over_concepts([after - own for after, own in zip(judged, bases, strict=True)])
        target, overall = (
            Estimate.over_users(row / level) for row, level in zip(change, base, strict=True)
        )
        tuned["ways"].setdefault(method, {})[label] = {"target": target, "overall": overall}
    return tuned


def _relevance(lists: metrics.Lists, wanted: csr_matrix, targets: csr_matrix) -> Figures:
    """Returns nDCG@10 on the wanted ones of the targets and on all, [2, users]."""
    short = lists[:, :SHORT]
    return np.stack([metrics.ndcg(short, wanted), metrics.ndcg(short, targets)])


def _over_concepts(figures: list[Figures]) -> Figures:
    """Averages [2, users] of each concept over a user's finite ones, NaN without any."""
    stacked = np.stack(figures)
    known = np.isfinite(stacked)
    count = known.sum(axis=0)
    total = np.where(known, stacked, 0.0).sum(axis=0)
    means: Figures = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return means


def _tuned(
    audience: Audience,
    lessons: Lessons,
    own: Floats,
    order: Ints,
    rng: np.random.Generator,
) -> Iterator[tuple[str, float, metrics.Lists]]:
    """Yields each method's lists for a concept of items own [n_items].

    order has the strongest neuron first.
    """
    groups = {f"{count} strongest neurons, weight": order[:count] for count in STRONGEST}
    fires = np.flatnonzero((lessons.audience.code > 0).any(dim=0).numpy())
    groups[f"{STRONGEST[0]} random neurons, weight"] = rng.permutation(fires)[: STRONGEST[0]]
    for method, neurons in groups.items():
        for weight in WEIGHTS:
            knobs = tune(lessons, neurons.copy(), own, weight)
            yield method, weight, edited_lists(audience, knobs.applied(audience.code))
    with torch.no_grad():
        scores = audience.recommender.scores(audience.z, audience.context)
    spread = scores.std(dim=1, keepdim=True)
    for boost in BOOSTS:
        boosted = scores + boost * spread * torch.from_numpy(own)
        yield BOOST, boost, best_lists(boosted, audience.seen, LIST_LENGTH)
