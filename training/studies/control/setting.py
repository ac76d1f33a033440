"""The control study's setting: test users with codes; concepts with weights, units and items."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import torch

from training.arrays import Floats, Ints
from training.concepts.fitting import FittedConcept
from training.run import Run
from training.studies.frontier.audience import Audience, Users
from training.studies.frontier.linear_scores import LinearScores, Lists
from training.studies.frontier.tags import Concept, Concepts, concepts_of, judged


@dataclass(frozen=True)
class Setting:
    """A run's test users and concepts; a row is a concept.

    judged holds the concepts that can be brought to some target share; tags are bool [n_concepts,
    n_items].
    """

    run: Run
    audience: Audience
    concepts: Concepts
    judged: list[Concept]
    fitted: list[FittedConcept]

    @classmethod
    def of(cls, run: Run, users: Ints, most: int) -> Self:
        """Chooses the most frequent concepts of a run, none on more than half of the items.

        Raises:
            DataError: if no concept is frequent enough.
        """
        validation = Audience.tuned(Users.of(run, run.split.validation))
        audience = Audience.of(Users.of(run, users), validation.relevance)
        fitted = {concept.name: concept for concept in run.concepts}
        named = concepts_of(run, most)
        known = [row for row, name in enumerate(named.names) if name in fitted]
        concepts = Concepts(tuple(named.names[row] for row in known), named.tags[known])
        return cls(
            run=run,
            audience=audience,
            concepts=concepts,
            judged=judged(concepts, audience),
            fitted=[fitted[name] for name in concepts.names],
        )

    @cached_property
    def codes(self) -> Floats:
        """Returns the users' codes, [users, n_neurons]."""
        with torch.no_grad():
            codes: Floats = self.run.sae.encode(torch.from_numpy(self.audience.users.z)).numpy()
        return codes

    @cached_property
    def directions(self) -> Floats:
        """Returns the change of scores over scale(z) by a level of 1, [n_concepts, n_items]."""
        return self.moved(np.stack([concept.weights for concept in self.fitted]))

    def moved(self, change: Floats) -> Floats:
        """Returns the change of scores by changes of codes [rows, n_neurons]: [rows, n_items].

        The scores are over scale(z).
        """
        W_dec = self.run.sae.W_dec.detach().numpy()
        return np.asarray(
            change @ W_dec @ self.run.recommender.item_matrix().V.numpy().T, dtype=np.float32
        )

    def linear(self, gain: Floats, limit: float = np.inf, base: str = "score") -> LinearScores:
        """Returns scores that add the gain [n_items] or [users, n_items] to a base."""
        return LinearScores(self.audience.bases[base], gain, limit=limit)

    @property
    def best_at_0(self) -> Lists:
        """Returns each user's best unsteered items, which are the same for all bases."""
        return self.audience.best_at_0["score"]
