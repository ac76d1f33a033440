"""Reports what steering did to a list, against the unsteered one. Pure."""

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
    """The limit that decided how far the steering goes; see Bound in steering.proto."""

    NONE = "none"
    BUDGET = "budget"
    TARGET = "target"


class ConceptShare(NamedTuple):
    """A concept's share of the exposure and of the items, in the unsteered and the steered list."""

    concept: str
    unsteered: float
    steered: float
    unsteered_items: float
    steered_items: float


class TargetResult(NamedTuple):
    """The result of a target share: its solution, the right numbers of items, and the list's."""

    target: TargetShare
    strength: TargetStrength
    asked: Counts
    found: int


class Report(NamedTuple):
    """The effect of steering on a list; see SteeringReport in steering.proto."""

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
    """Compares the steered with the unsteered list.

    Args:
        query: The request.
        steered: The change that the edits made.
        ranking: The steered list.
        unsteered_scores: Unsteered scores of its items, float32 [n].
        unsteered: The unsteered list, as deep as the relevance loss reads.
        applied: How far the steering goes.
    """
    catalogue = query.bundle.catalogue
    plan = query.plan
    before = unsteered.items[: query.n]
    shares = []
    member_counts = {}
    for name in plan.concepts:
        if concept := query.bundle.labels.concept(name):
            members = catalogue.members(concept.attribute, concept.value)
            old = members[before]
            new = members[ranking.items]
            member_counts[name] = (int(old.sum()), int(new.sum()))
            shares.append(
                ConceptShare(
                    concept=name,
                    unsteered=exposure_share(old),
                    steered=exposure_share(new),
                    unsteered_items=item_share(old),
                    steered_items=item_share(new),
                )
            )
    length = max(1, len(ranking.items))  # an empty list has no share of anything
    targets = []
    for target, strength in zip(plan.targets, applied.targets, strict=True):
        unsteered_count, count = member_counts[target.name]
        asked = target.bounds.counts(length, unsteered_count)
        targets.append(TargetResult(target, strength, asked, count))
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
