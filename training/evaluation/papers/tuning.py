"""RecFTT: a multiplier and a bias for each of a few neurons, learned so that lists find more of one concept.

Source: RecSAE (arXiv 2411.06112). The neurons are those whose silence changes the loss on the concept's
wanted items most; recommender and SAE stay as they are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.concepts.effect import Audience
from training.histories import Ints
from training.run import Run

STEPS = 40
LR = 0.2
_MOST_USERS = 1000


class Knobs(NamedTuple):
    """Neurons int64 [m], and what their activations s become: multipliers s + biases, both [m]."""

    neurons: Tensor
    multipliers: Tensor
    biases: Tensor

    def change(self, code: Tensor) -> Tensor:
        """What is added to these neurons of a code [users, n_neurons]: [users, m]."""
        return (self.multipliers - 1) * code[:, self.neurons] + self.biases

    def applied(self, code: Tensor) -> Tensor:
        """The code with these neurons changed, for every user."""
        return code.index_add(1, self.neurons, self.change(code))


class Lessons(NamedTuple):
    """Validation users, what is held out of their items, wanted float32, and seen bool: [users, n_items]."""

    audience: Audience
    wanted: Tensor
    seen: Tensor

    @classmethod
    def of(cls, run: Run, rng: np.random.Generator) -> Lessons:
        """At most 1,000 of a run's, drawn at random."""
        users = np.sort(rng.permutation(run.split.validation)[:_MOST_USERS])
        histories = run.split.histories(users)
        audience = Audience.of(run.recommender, run.sae, histories, run.config.max_length)
        wanted, seen = run.split.targets(users).toarray(), audience.seen.toarray() > 0
        return cls(audience, torch.from_numpy(wanted), torch.from_numpy(seen))

    def rows(self, rows: Ints) -> Lessons:
        """The given users."""
        return Lessons(self.audience.rows(rows), self.wanted[rows], self.seen[rows])

    def surprise(self, move: Tensor) -> Tensor:
        """-log softmax over the unseen items of each wanted one, 0 elsewhere, at z + scale(z) move.

        move [users, d] -> [users, n_items].
        """
        model, sae, z, context, *_ = self.audience
        scores = model.scores(z + sae.scale(z) * move, context).masked_fill(self.seen, -1e9)
        return -self.wanted * torch.log_softmax(scores, dim=-1)


@torch.no_grad()
def silence_effects(lessons: Lessons, members: Tensor) -> NDArray[np.float64]:
    """How much each concept's wanted items surprise more without a neuron: -> [n_neurons, n_concepts].

    members float32 [n_concepts, n_items]; summed over the users in whom the neuron fires.
    """
    code, W_dec = lessons.audience.code, lessons.audience.sae.W_dec
    before = lessons.surprise(torch.zeros(len(code), W_dec.shape[1])) @ members.T
    effects = np.zeros((len(W_dec), len(members)))
    for neuron in np.flatnonzero((code > 0).any(dim=0).numpy()):
        users = np.flatnonzero(code[:, neuron].numpy() > 0)
        after = lessons.rows(users).surprise(-code[users, neuron, None] * W_dec[neuron]) @ members.T
        effects[neuron] = (after - before[users]).sum(dim=0).double().numpy()
    return effects


def tune(lessons: Lessons, neurons: Ints, flags: Tensor, weight: float) -> Knobs:
    """Knobs that make smaller: the mean surprise of all wanted items + weight x that of the flagged ones.

    flags float32 [n_items], 1 for the concept's items.
    """
    audience, flagged = lessons.audience, lessons.wanted @ flags
    rows = audience.sae.W_dec[torch.from_numpy(neurons)]
    share = 1 / lessons.wanted.sum() + weight * flags / flagged.sum().clamp_min(1)
    multipliers = torch.ones(len(neurons), requires_grad=True)
    biases = torch.zeros(len(neurons), requires_grad=True)
    knobs = Knobs(torch.from_numpy(neurons), multipliers, biases)
    optimiser = torch.optim.Adam([multipliers, biases], lr=LR)
    with torch.enable_grad():
        for _ in range(STEPS):
            loss = (lessons.surprise(knobs.change(audience.code) @ rows) @ share).sum()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return Knobs(knobs.neurons, multipliers.detach(), biases.detach())
