"""Who is judged on what: test users with their codes; concepts with weights, units and items."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from training.concepts.fitting import FittedConcept
from training.run import Run
from training.studies.frontier.audience import Audience, Users
from training.studies.frontier.linear_scores import Floats, LinearScores, Lists
from training.studies.frontier.tags import Concept, Concepts, concepts_of, judged


@dataclass(frozen=True)
class Setting:
    """A run's test users and concepts; every row is of one concept.

    judged are those that can be brought to some target share; tags bool [n_concepts, n_items].
    """

    run: Run
    audience: Audience
    concepts: Concepts
    judged: list[Concept]
    fitted: list[FittedConcept]

    @classmethod
    def of(cls, run: Run, users: NDArray[np.int64], most: int) -> Self:
        """The most frequent concepts of a run, none on more than half of the items.

        Raises:
            DataError: if there is none.
        """
        validation = Audience.tuned(Users.of(run, run.split.validation))
        audience = Audience.of(Users.of(run, users), validation.relevance)
        fitted = {concept.name: concept for concept in run.concepts}
        found = concepts_of(run, most)
        known = [row for row, name in enumerate(found.names) if name in fitted]
        concepts = Concepts(tuple(found.names[row] for row in known), found.tags[known])
        return cls(
            run, audience, concepts, judged(concepts, audience), [fitted[n] for n in concepts.names]
        )

    @cached_property
    def codes(self) -> Floats:
        """The users' codes, [users, n_neurons]."""
        with torch.no_grad():
            codes: Floats = self.run.sae.encode(torch.from_numpy(self.audience.users.z)).numpy()
        return codes

    @cached_property
    def directions(self) -> Floats:
        """What a level of 1 of each concept adds to the scores over scale(z), [n_concepts, n_items]."""
        return self.moved(np.stack([concept.weights for concept in self.fitted]))

    def moved(self, change: Floats) -> Floats:
        """What changes of codes [rows, n_neurons] add to the scores over scale(z): [rows, n_items]."""
        W_dec = self.run.sae.W_dec.detach().numpy()
        return np.asarray(
            change @ W_dec @ self.run.recommender.item_matrix().V.numpy().T, dtype=np.float32
        )

    def linear(self, gain: Floats, limit: float = np.inf, base: str = "score") -> LinearScores:
        """A base, and what a unit of strength adds to it: [n_items] or [users, n_items]."""
        return LinearScores(self.audience.bases[base], gain, limit=limit)

    @property
    def best_at_0(self) -> Lists:
        """Each user's best items unsteered, whatever the base."""
        return self.audience.best_at_0["score"]
