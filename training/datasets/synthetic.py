"""Generates interactions with planted concepts, so that steering can be judged by the truth.

Every item carries one concept, some a second one; every user is interested in a few. An event picks
one of the user's interests (or, with a small probability, any item at all), then an item of that
concept by popularity.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import polars as pl

from training.arrays import Bools
from training.errors import ConfigError
from training.interactions import RawData
from training.options import Count, Positive, Share, options


@options
class SyntheticOptions:
    """Configures the size and difficulty of the generated set."""

    title: ClassVar[str] = "synthetic"

    n_users: Count = 2000
    """Users."""
    n_items: Count = 600
    """Items of the catalogue; those that no event hits do not occur."""
    n_concepts: Count = 12
    """Planted concepts, in the items' attribute "concepts" under the names concept-00, concept-01,
    ..."""
    interests: Count = 2
    """Concepts that one user is interested in."""
    mean_events: Positive = 30.0
    """Mean number of events a user, Poisson distributed, at least 5."""
    second_concept_share: Share = 0.1
    """Share of the items that carry a second concept."""
    noise: Share = 0.05
    """Share of the events that ignore the user's interests."""
    popularity_exponent: float = 0.5
    """Within a concept, popularity falls as rank to the power of minus this; 0 makes all items
    equal."""

    def __post_init__(self) -> None:
        if self.interests > self.n_concepts or self.n_concepts > self.n_items:
            raise ConfigError(
                f"synthetic: expected interests <= n_concepts <= n_items, "
                f"found {self.interests}, {self.n_concepts}, {self.n_items}"
            )


def generate(_source: str, options: SyntheticOptions, seed: int) -> RawData:
    """Draws a data set; the same configuration and seed give the same rows."""
    rng = np.random.default_rng([seed, 0xDA7A])
    membership = _membership(options, rng)
    weight = rng.permutation(np.arange(1, options.n_items + 1) ** -options.popularity_exponent)
    users = np.repeat(
        np.arange(options.n_users), np.maximum(rng.poisson(options.mean_events, options.n_users), 5)
    )
    interests = np.argsort(rng.random((options.n_users, options.n_concepts)), axis=1)[
        :, : options.interests
    ]
    picked = interests[users, rng.integers(options.interests, size=len(users))]
    items = np.empty(len(users), dtype=np.int64)
    for concept in range(options.n_concepts):
        rows = np.flatnonzero(picked == concept)
        p = weight * membership[:, concept]
        items[rows] = rng.choice(options.n_items, size=len(rows), p=p / p.sum())
    noisy = rng.random(len(users)) < options.noise
    items[noisy] = rng.choice(options.n_items, size=noisy.sum(), p=weight / weight.sum())
    events = pl.DataFrame(
        {
            "user_id": users,
            "item_id": items,
            "value": pl.Series([None] * len(users), dtype=pl.Float64),
        }
    ).with_columns(
        pl.col("user_id", "item_id").cast(pl.String), time=pl.int_range(len(users), dtype=pl.Int64)
    )
    return RawData("synthetic", events, _items(membership), min_value=None)


def _membership(options: SyntheticOptions, rng: np.random.Generator) -> Bools:
    """Draws who carries what, [n_items, n_concepts].

    Each concept is on an item, each item has 1 or 2.
    """
    membership = np.zeros((options.n_items, options.n_concepts), dtype=np.bool_)
    membership[
        np.arange(options.n_items), rng.permutation(options.n_items) % options.n_concepts
    ] = True
    second = np.flatnonzero(rng.random(options.n_items) < options.second_concept_share)
    membership[second, rng.integers(options.n_concepts, size=len(second))] = True
    return membership


def _items(membership: Bools) -> pl.DataFrame:
    names = np.array([f"concept-{concept:02d}" for concept in range(membership.shape[1])])
    tags = [names[row].tolist() for row in membership]
    ids = [str(item) for item in range(len(tags))]
    return pl.DataFrame(
        {"item_id": ids, "title": [f"Item {item}" for item in ids], "concepts": tags},
        schema={"item_id": pl.String, "title": pl.String, "concepts": pl.List(pl.String)},
    )
