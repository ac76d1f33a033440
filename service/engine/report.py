"""What steering did to a list, against the unsteered one. Pure."""

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from service.arrays import Floats
from service.engine.query import Query
from service.ranking.measures import exposure_share, item_share, overlap, relevance_loss
from service.ranking.order import Ranking
from service.steering.edits import EditEffect
from service.steering.plan import WHOLLY, Applied, AppliedEdit, Counts, TargetShare, TargetStrength
from service.steering.steer import Steered


class Bound(Enum):
    """Which limit decided how far the steering went; see the API's Bound."""

    NONE = "none"
    BUDGET = "budget"
    TARGET = "target"


class ConceptShare(NamedTuple):
    """A concept's part of the unsteered and of the steered list: of their exposure, and of their items."""

    concept: str
    unsteered: float
    steered: float
    unsteered_items: float
    steered_items: float


class TargetResult(NamedTuple):
    """What became of a target share: how many items it asked for, and how many the list has."""

    target: TargetShare
    strength: TargetStrength
    asked: Counts
    found: int


class Report(NamedTuple):
    """What steering did to the list; see the API's SteeringReport."""

    edits: tuple[AppliedEdit, ...]
    effects: tuple[EditEffect, ...]
    targets: tuple[TargetResult, ...]
    applied_fraction: float
    relevance_loss: float
    overlap: float
    shares: tuple[ConceptShare, ...]
    bound: Bound


def report(
    query: Query,
    steered: Steered,
    ranking: Ranking,
    unsteered_scores: Floats,
    unsteered: Ranking,
    applied: Applied = WHOLLY,
) -> Report:
    """Compares two lists.

    Args:
        query: What was asked.
        steered: What the edits did.
        ranking: The steered list.
        unsteered_scores: Unsteered scores of its items, float32 [n].
        unsteered: The unsteered list, down to the depth of the relevance loss.
        applied: How far the steering went.
    """
    catalogue, plan = query.bundle.catalogue, query.plan
    before, shares, carriers = unsteered.items[: query.n], [], {}
    for name in plan.concepts:
        if concept := query.bundle.labels.concept(name):
            members = catalogue.members(concept.attribute, concept.value)
            old, new = members[before], members[ranking.items]
            carriers[name] = int(old.sum()), int(new.sum())
            shares.append(
                ConceptShare(
                    name, exposure_share(old), exposure_share(new), item_share(old), item_share(new)
                )
            )
    length = max(1, len(ranking.items))  # an empty list has no share of anything
    targets = []
    for target, strength in zip(plan.targets, applied.targets, strict=True):
        before_count, count = carriers[target.name]
        targets.append(
            TargetResult(target, strength, target.bounds.counts(length, before_count), count)
        )
    return Report(
        edits=steered.edits,
        effects=steered.effects or (),
        targets=tuple(targets),
        applied_fraction=min((fraction for _, fraction in steered.edits), default=applied.fraction),
        relevance_loss=relevance_loss(unsteered.scores, unsteered_scores),
        overlap=overlap(ranking.items, before),
        shares=tuple(shares),
        bound=_bound(targets, applied),
    )


def _bound(targets: Sequence[TargetResult], applied: Applied) -> Bound:
    if applied.fraction < 1.0:
        return Bound.BUDGET
    moved = any(
        result.strength.lift or result.strength.fraction != (0.0 if result.target.own else 1.0)
        for result in targets
    )
    return Bound.TARGET if moved else Bound.NONE
