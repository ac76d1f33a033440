"""All parts of the frontier of one run, as plain figures that several runs' can be joined with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.errors import ConfigError
from training.run import Run
from training.studies.frontier.audience import Audience, Users
from training.studies.frontier.cells import Cells, Setting, frontier
from training.studies.frontier.effects import (
    RANDOM,
    amplify,
    amplify_pairs,
    neurons_needed,
    suppress,
)
from training.studies.frontier.knowledge import Knowledge, Models
from training.studies.frontier.linear_scores import Doubles
from training.studies.frontier.tags import concepts_of, hide, judged, middle

REFERENCES = ("tag boost + rank", "dense probe + rank", "dense probe + relevance")
"""What every method is compared with, user by user."""
PAIRS = (
    ("target share + score", "target share, lift alone + score"),
    ("contrast + score", "contrast, untrained SAE + score"),
    ("contrast + score", "difference of means + score"),
    ("contrast, top 10 + score", "raw dimensions, top 10 + score"),
    ("contrast, top 10 + score", "BLEND, 10 neurons + score"),
    ("contrast, Platt + relevance", "contrast, untrained SAE, Platt + relevance"),
    ("contrast, Platt + relevance", "difference of means, Platt + relevance"),
    ("ridge on codes + relevance", "ridge on untrained codes + relevance"),
    ("ridge on codes + relevance", "ridge on z + relevance"),
    ("ridge on codes + relevance", "dense probe + relevance"),
    ("completed tags, codes + relevance", "completed tags, z + relevance"),
    ("probe and tag, codes + relevance", "probe and tag, untrained codes + relevance"),
    ("probe and tag, codes + relevance", "probe and tag, z + relevance"),
)
"""The ADD of target shares against none; trained neurons against untrained ones and dense vectors."""
_BASES_HIDDEN = ("rank", "relevance")


@dataclass(frozen=True)
class FrontierOptions:
    """What is judged, and on whom."""

    max_users: int = 1500
    """Test users that are judged, at most: a random choice."""
    max_concepts: int = 20
    """The most frequent attribute values, at most; none that is on more than half of the items."""
    hidden: str = "0.5 0.9"
    """Shares of the tags that are hidden from the methods, separated by spaces; empty leaves the part out."""
    effects: bool = True
    """Also suppression, two concepts at once, off-target movement and the number of neurons."""

    def __post_init__(self) -> None:
        if self.max_users < 2 or self.max_concepts < 1:
            raise ConfigError(
                f"frontier: expected max_users of at least 2 and max_concepts of at least 1, "
                f"found {self.max_users}, {self.max_concepts}"
            )
        for share in self.hidden_shares:
            if not 0 < share < 1:
                raise ConfigError(
                    f"frontier: hidden holds {share:g}, expected shares between 0 and 1"
                )

    @property
    def hidden_shares(self) -> list[float]:
        """The shares as numbers."""
        try:
            return [float(share) for share in self.hidden.split()]
        except ValueError as error:
            raise ConfigError(
                f"frontier: hidden is {self.hidden!r}, expected numbers: {error}"
            ) from error


def measure(
    run: Run, options: FrontierOptions, report: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Every part of the frontier, on the run's test users.

    Raises:
        ConfigError: if the recommender has a head: its scores are not linear in the strength.
        DataError: if there is no concept.
    """
    if run.recommender.has_head or run.recommender.context_size:
        raise ConfigError(
            f"{run.path}: {run.config.recommender} has a nonlinear head; the frontier needs scores that are "
            "linear in the strength, as those of elsa, puresvd, als, bpr, logistic or lightgcn"
        )
    rng = np.random.default_rng([run.config.seed, 0xFA])
    setting = _setting(run, options, rng)
    audience, known = setting.audience, setting.truth

    def tell(way: str) -> None:
        report(f"{run.path}: {way}")

    figures: dict[str, Any] = {
        "data_set": run.data_set,
        "seed": run.config.seed,
        "rotation": run.config.split.rotation,
        "users": audience.size,
        "ndcg": float(audience.ndcg(audience.unsteered).mean()),
        "concepts": [
            {
                "name": concept.name,
                "items": int(setting.concepts.tags[concept.row].sum()),
                "share": concept.share,
                "targets": concept.targets,
            }
            for concept in setting.judged
        ],
    }
    figures["seen"] = _figures(setting, _collect(frontier(setting, known), tell), REFERENCES, PAIRS)
    label = middle(setting.judged)
    for share in options.hidden_shares:
        hidden = hide(setting.concepts.tags, run.catalogue.popularity, share, rng)
        left = Knowledge(setting.models, setting.concepts.tags & ~hidden)
        cells = _collect(frontier(setting, left, hidden, label, _BASES_HIDDEN), tell)
        figures[f"hidden {share:g}"] = _figures(setting, cells, REFERENCES, PAIRS)
    if options.effects:
        figures["effects"] = _effects(setting, known, label, rng)
    return figures


def _setting(run: Run, options: FrontierOptions, rng: np.random.Generator) -> Setting:
    chosen = np.sort(rng.permutation(run.split.test)[: options.max_users])
    tuned = np.sort(rng.permutation(run.split.validation)[: options.max_users])
    users, validation = Users.of(run, chosen), Audience.tuned(Users.of(run, tuned))
    audience = Audience.of(users, validation.relevance)
    concepts = concepts_of(run, options.max_concepts)
    found = judged(concepts, audience)
    if not found:
        raise ConfigError(
            f"{run.path}: no concept can be brought to a target share in these users' lists"
        )
    return Setting(audience, Models.of(run, users, validation), concepts, found)


def _collect(
    results: Iterable[tuple[str, str, Cells]], report: Callable[[str], None]
) -> dict[str, Cells]:
    found = {}
    for name, base, cells in results:
        report(f"{name} + {base}")
        found[f"{name} + {base}"] = cells
    return found


def _figures(
    setting: Setting,
    found: Mapping[str, Cells],
    references: Sequence[str],
    pairs: Sequence[tuple[str, str]],
) -> dict[str, Any]:
    labels = sorted({label for concept in setting.judged for label in concept.targets})
    labels = [
        label
        for label in labels
        if any(label == key[1] for cells in found.values() for key in cells)
    ]
    asked = {label: [c.name for c in setting.judged if label in c.targets] for label in labels}
    common = {
        label: [
            name
            for name in asked[label]
            if all(
                (name, label) in cells
                for cells in found.values()
                if sum(key[1] == label for key in cells) >= 0.9 * len(asked[label])
            )
        ]
        for label in labels
    }
    methods = {
        way: {
            label: _summary(cells, found, label, common[label], references)
            | {"asked": len(asked[label])}
            for label in labels
        }
        for way, cells in found.items()
    }
    compared = {
        f"{left} - {right}": {
            label: difference(found[left], found[right], label) for label in labels
        }
        for left, right in pairs
        if left in found and right in found
    }
    return {"common": common, "methods": methods, "pairs": compared}


def _summary(
    cells: Cells,
    found: Mapping[str, Cells],
    label: str,
    common: Sequence[str],
    references: Sequence[str],
) -> dict[str, Any]:
    own = {name: cell for (name, at), cell in cells.items() if at == label}
    oracle = {
        name: cell for (name, at), cell in found.get("all tags + rank", {}).items() if at == label
    }
    whole = len(common) > 0 and all(name in own for name in common)
    ratios = [
        own[name].hidden / oracle[name].hidden
        for name in own
        if name in oracle and oracle[name].hidden
    ]
    return {
        "reached": len(own),
        "ndcg": _mean([own[name].ndcg.mean() for name in common]) if whole else None,
        "exposure": _mean([cell.exposure for cell in own.values()]),
        "plain": _mean([cell.plain for cell in own.values()]),
        "hidden": _mean(ratios),
        "concepts": {
            name: [float(cell.ndcg.mean()), cell.plain, cell.hidden] for name, cell in own.items()
        },
        "minus": {
            name: difference(cells, found[name], label) for name in references if name in found
        },
    }


def difference(left: Cells, right: Cells, label: str) -> dict[str, float] | None:
    """Mean nDCG difference over the users and the concepts that both reached, and its standard error.

    Users are drawn, concepts are not: the error is that of the mean of the users' own means.
    """
    shared = [key for key in left if key[1] == label and key in right]
    return paired([left[key].ndcg - right[key].ndcg for key in shared])


def paired(differences: Sequence[NDArray[np.floating]]) -> dict[str, float] | None:
    """Differences [users] of several concepts -> mean, standard error with users as clusters, and count."""
    if not differences:
        return None
    per_user: Doubles = np.stack(differences).mean(axis=0, dtype=np.float64)
    error = per_user.std(ddof=1) / math.sqrt(len(per_user))
    return {"mean": float(per_user.mean()), "error": float(error), "concepts": len(differences)}


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _effects(
    setting: Setting, known: Knowledge, label: str, rng: np.random.Generator
) -> dict[str, Any]:
    unsteered = setting.audience.ndcg(setting.audience.unsteered)
    halved = suppress(setting, known, rng)
    random = halved[RANDOM]
    moved = amplify(setting, known, label)
    boost = moved["tag boost", "rank"]
    return {
        "label": label,
        "suppression": {
            " + ".join(way): {
                "reached": len(found),
                "loss": paired([unsteered - ndcg for ndcg in found.values()]),
                "minus random": paired([found[name] - random[name] for name in found]),
            }
            for way, found in halved.items()
        },
        "off_target": {
            " + ".join(way): {
                "reached": len(found),
                "moved": _mean([effect.off_target for effect in found.values()]),
                "over boost": _mean(
                    [
                        found[name].off_target / boost[name].off_target
                        for name in found
                        if name in boost
                    ]
                ),
            }
            for way, found in moved.items()
        },
        "together": {
            " + ".join(way): [pair._asdict() for pair in pairs]
            for way, pairs in amplify_pairs(setting, known).items()
        },
        "neurons": {
            name: {str(count): share for count, share in kept.items()}
            for name, kept in neurons_needed(setting, known, label).items()
        },
    }
