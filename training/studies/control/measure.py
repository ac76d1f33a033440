"""All parts of one run, as plain figures that those of several runs can be joined with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.concepts import item_codes
from training.concepts.effect import Audience
from training.concepts.membership import memberships
from training.errors import ConfigError, RunError
from training.histories import Ints
from training.run import Run
from training.studies.control.halving import frequent, halve
from training.studies.control.hidden_tags import halve_hidden
from training.studies.control.operations import OPERATIONS, Operated, levels_of, operate
from training.studies.control.pairs import Pair, halved_together, raised_together
from training.studies.control.setting import Setting
from training.studies.control.side_effects import drift
from training.studies.frontier.measure import paired
from training.studies.frontier.tags import middle


@dataclass(frozen=True)
class ControlOptions:
    """What is judged, and on whom."""

    strength: float = 1.0
    """Of the operations that have one, in TYPICAL units."""
    max_concepts: int = 20
    """The most frequent ones, at most."""
    max_users: int = 1000
    """Test users that are judged, at most: a random choice."""

    def __post_init__(self) -> None:
        if self.max_users < 2 or self.max_concepts < 1 or not np.isfinite(self.strength):
            raise ConfigError(
                "steering: expected max_users of at least 2, max_concepts of at least 1 and a finite "
                f"strength, found {self.max_users}, {self.max_concepts}, {self.strength:g}"
            )


def measure(
    run: Run, options: ControlOptions, report: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Every part on the run's test users; of a recommender with a head the operations alone.

    Raises:
        RunError: the run has no concepts.
    """
    if not run.concepts:
        raise RunError(f"{run.path}: the run has no concepts to steer")
    rng = np.random.default_rng([run.config.seed, 0xC7])
    users = np.sort(rng.permutation(run.split.test)[: options.max_users])
    figures = {"data_set": run.data_set, "seed": run.config.seed, "users": len(users)}
    report(f"{run.path}: operations")
    figures |= _operations(run, users, options)
    if run.recommender.has_head or run.recommender.context_size:
        return figures  # a share is solved for on scores that are linear in the strength
    setting = Setting.of(run, users, options.max_concepts)
    report(f"{run.path}: shares halved")
    figures["halved"] = _halved(setting)
    report(f"{run.path}: shares halved, tags hidden")
    figures["hidden"] = _hidden(setting, rng)
    report(f"{run.path}: two at once")
    raised, halved = raised_together(setting), halved_together(setting)
    figures["together"] = {
        "both to .3": {way: _pairs(found) for way, found in raised.items()},
        "both halved": {way: _pairs(found) for way, found in halved.items()},
    }
    report(f"{run.path}: side effects")
    figures["drift"] = _drift(setting)
    return figures


def _operations(run: Run, users: Ints, options: ControlOptions) -> dict[str, Any]:
    histories, targets = run.split.histories(users), run.split.targets(users)
    audience = Audience.of(run.recommender, run.sae, histories, run.config.max_length)
    members = memberships(run.catalogue, run.config.concepts)
    known = run.catalogue.popularity >= run.config.concepts.min_popularity
    codes = item_codes(run.recommender, run.sae, run.config.max_length)[known]
    concepts: dict[str, Any] = {}
    collected: dict[str, list[Operated]] = {name: [] for name in OPERATIONS}
    for concept in sorted(run.concepts, key=lambda one: -one.item_count)[: options.max_concepts]:
        flags = members.matrix[members.names.index(concept.name)].toarray()[0] > 0
        found = dict(operate(audience, concept, flags, targets, options.strength))
        for name, one in found.items():
            collected[name].append(one)
        levels = levels_of(audience, concept, flags[known], codes)
        concepts[concept.name] = {
            "share": float(found["ABLATE"].share.mean()),
            "users below 0": float((levels.users < 0).mean()),
            "items with": levels.items_with,
            "items without": levels.items_without,
            "change": {name: paired([one.change]) for name, one in found.items()},
        }
    return {
        "strength": options.strength,
        "concepts": concepts,
        "operations": {name: _operated(ones) for name, ones in collected.items()},
    }


def _operated(ones: Sequence[Operated]) -> dict[str, Any]:
    return {
        "change": paired([one.change for one in ones]),
        "ndcg": paired([one.ndcg_change for one in ones]),
        "users with more": float(np.mean([(one.change > 0).mean() for one in ones])),
        "concepts with more": sum(bool(one.change.mean() > 0) for one in ones),
    }


def _halved(setting: Setting) -> dict[str, Any]:
    by_way = halve(setting, setting.run.config.seed)
    shares = {concept.name: concept.share for concept in frequent(setting)}
    added = by_way["ADD -x"]
    return {
        way: {
            "reached": len(found),
            "asked": len(shares),
            "left": float(np.mean([one.share / shares[name] for name, one in found.items()]))
            if found
            else None,
            "loss": paired([one.unsteered - one.ndcg for one in found.values()]),
            "random": paired([one.unsteered - one.random for one in found.values()]),
            "over random": paired([one.random - one.ndcg for one in found.values()]),
            "over ADD": paired(
                [added[name].ndcg - one.ndcg for name, one in found.items() if name in added]
            ),
        }
        for way, found in by_way.items()
    }


def _hidden(setting: Setting, rng: np.random.Generator) -> dict[str, Any]:
    by_way = halve_hidden(setting, rng)
    added = by_way["ADD -x"]
    return {
        way: {
            "reached": sum(loss is not None for loss in found.values()),
            "asked": len(found),
            "loss": paired([loss for loss in found.values() if loss is not None]),
            "over ADD": paired(
                [
                    loss - other
                    for loss, other in zip(found.values(), added.values(), strict=True)
                    if loss is not None and other is not None
                ]
            ),
        }
        for way, found in by_way.items()
    }


def _pairs(found: Sequence[Pair | None]) -> dict[str, Any]:
    pairs = [pair for pair in found if pair is not None]
    sums = [pair.single_losses[0] + pair.single_losses[1] for pair in pairs]
    return {
        "reached": len(pairs),
        "asked": len(found),
        "short": max((pair.short for pair in pairs), default=None),
        "loss": paired([pair.loss for pair in pairs]),
        "alone": paired(sums),
        "over alone": paired([pair.loss - alone for pair, alone in zip(pairs, sums, strict=True)]),
    }


def _drift(setting: Setting) -> dict[str, Any]:
    label = middle(setting.judged)
    by_way = drift(setting, label)
    boost = by_way["tag boost"]
    ways: Mapping[str, Any] = {
        way: {
            "reached": len(found),
            "moved": paired([one.distance for one in found.values()]),
            "over boost": paired(
                [
                    one.distance - boost[name].distance
                    for name, one in found.items()
                    if name in boost
                ]
            ),
            "concepts": {
                name: {"moved": paired([one.distance]), "furthest": list(one.furthest)}
                for name, one in found.items()
            },
        }
        for way, found in by_way.items()
    }
    return {"label": label, "ways": ways}
