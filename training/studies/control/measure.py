"""All parts of the control study of one run, as plain figures that can be joined."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from training.arrays import Ints
from training.concepts import item_codes
from training.concepts.effect import Audience
from training.concepts.membership import memberships
from training.errors import ConfigError, RunError
from training.options import options
from training.run import Run
from training.studies.control.halving import frequent, halve
from training.studies.control.hidden_tags import halve_hidden
from training.studies.control.method_ids import ControlMethod
from training.studies.control.operations import (
    OPERATIONS,
    Operated,
    OperationId,
    levels_of,
    operate,
)
from training.studies.control.pairs import Pair, halved_together, raised_together
from training.studies.control.setting import Setting
from training.studies.control.side_effects import drift
from training.studies.frontier.measure import paired
from training.studies.frontier.tags import middle


@options
class ControlOptions:
    """Configures the operations' strength, and which concepts are judged on which users."""

    strength: float = 1.0
    """Strength of the operations that have one, in TYPICAL units."""
    max_concepts: int = 20
    """Most frequent concepts that are judged, at most."""
    max_users: int = 1000
    """Test users that are judged, at most: a random choice."""

    def __post_init__(self) -> None:
        if self.max_users < 2 or self.max_concepts < 1 or not np.isfinite(self.strength):
            raise ConfigError(
                "steering: expected max_users of at least 2, max_concepts of at least 1 and "
                f"a finite strength, found {self.max_users}, {self.max_concepts}, {self.strength:g}"
            )


def measure(
    run: Run, options: ControlOptions, report: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Measures every part on the run's test users; with a head, the operations alone.

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
        return figures  # the other parts solve for shares on scores linear in the strength
    setting = Setting.of(run, users, options.max_concepts)
    report(f"{run.path}: shares halved")
    figures["halved"] = _halved(setting)
    report(f"{run.path}: shares halved, tags hidden")
    figures["hidden"] = _hidden(setting, rng)
    report(f"{run.path}: two at once")
    figures["together"] = {
        "both to .3": _together(raised_together(setting)),
        "both halved": _together(halved_together(setting)),
    }
    report(f"{run.path}: side effects")
    figures["drift"] = _drift(setting)
    return figures


def _operations(run: Run, users: Ints, options: ControlOptions) -> dict[str, Any]:
    histories = run.split.histories(users)
    targets = run.split.targets(users)
    audience = Audience.of(run.recommender, run.sae, histories, run.config.max_length)
    members = memberships(run.catalogue, run.config.concepts)
    known = run.catalogue.popularity >= run.config.concepts.min_popularity
    codes = item_codes(run.recommender, run.sae, run.config.max_length)[known]
    concepts: dict[str, Any] = {}
    collected: dict[OperationId, list[Operated]] = {name: [] for name in OPERATIONS}
    for concept in sorted(run.concepts, key=lambda one: -one.item_count)[: options.max_concepts]:
        flags = members.matrix[members.names.index(concept.name)].toarray()[0] > 0
        results = dict(operate(audience, concept, flags, targets, options.strength))
        for name, one in results.items():
            collected[name].append(one)
        levels = levels_of(audience, concept, flags[known], codes)
        concepts[concept.name] = {
            "share": float(results[OperationId.ABLATE].share.mean()),
            "users below 0": float((levels.users < 0).mean()),
            "items with": levels.items_with,
            "items without": levels.items_without,
            "change": {name: paired([one.change]) for name, one in results.items()},
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
    by_method = halve(setting, setting.run.config.seed)
    shares = {concept.name: concept.share for concept in frequent(setting)}
    added = by_method[ControlMethod.ADD_DOWN]
    figures: dict[str, Any] = {}
    for method, halved in by_method.items():
        left = [one.share / shares[name] for name, one in halved.items()]
        over_add = [added[name].ndcg - one.ndcg for name, one in halved.items() if name in added]
        figures[method] = {
            "reached": len(halved),
            "asked": len(shares),
            "left": float(np.mean(left)) if left else None,
            "loss": paired([one.unsteered - one.ndcg for one in halved.values()]),
            "random": paired([one.unsteered - one.random for one in halved.values()]),
            "over random": paired([one.random - one.ndcg for one in halved.values()]),
            "over ADD": paired(over_add),
        }
    return figures


def _hidden(setting: Setting, rng: np.random.Generator) -> dict[str, Any]:
    by_method = halve_hidden(setting, rng)
    added = by_method[ControlMethod.ADD_DOWN].values()
    figures: dict[str, Any] = {}
    for method, losses in by_method.items():
        pairs = zip(losses.values(), added, strict=True)
        reached = [loss for loss in losses.values() if loss is not None]
        over_add = [loss - own for loss, own in pairs if loss is not None and own is not None]
        figures[method] = {
            "reached": len(reached),
            "asked": len(losses),
            "loss": paired(reached),
            "over ADD": paired(over_add),
        }
    return figures


def _together(by_method: Mapping[ControlMethod, Sequence[Pair | None]]) -> dict[str, Any]:
    return {method: _pairs(pairs) for method, pairs in by_method.items()}


def _pairs(results: Sequence[Pair | None]) -> dict[str, Any]:
    pairs = [pair for pair in results if pair is not None]
    sums = [pair.single_losses[0] + pair.single_losses[1] for pair in pairs]
    return {
        "reached": len(pairs),
        "asked": len(results),
        "short": max((pair.short for pair in pairs), default=None),
        "loss": paired([pair.loss for pair in pairs]),
        "alone": paired(sums),
        "over alone": paired([pair.loss - alone for pair, alone in zip(pairs, sums, strict=True)]),
    }


def _drift(setting: Setting) -> dict[str, Any]:
    label = middle(setting.judged)
    by_method = drift(setting, label)
    boost = by_method[ControlMethod.TAG_BOOST]
    ways: dict[str, Any] = {}
    for method, drifts in by_method.items():
        over_boost = [
            one.distance - boost[name].distance for name, one in drifts.items() if name in boost
        ]
        ways[method] = {
            "reached": len(drifts),
            "moved": paired([one.distance for one in drifts.values()]),
            "over boost": paired(over_boost),
            "concepts": {
                name: {"moved": paired([one.distance]), "furthest": list(one.furthest)}
                for name, one in drifts.items()
            },
        }
    return {"label": label, "ways": ways}
