"""Encodes the report of what steering did to a list."""

from trimtab.v1 import steering_pb2 as steering

from service.api.encode.names import BOUNDS, OPERATIONS
from service.engine.report import ConceptShare, Report, TargetResult
from service.steering.edits import EditEffect
from service.steering.plan import AppliedEdit


def steering_report(report: Report) -> steering.SteeringReport:
    """Encodes a report."""
    return steering.SteeringReport(
        applied_fraction=report.applied_fraction,
        edits=[
            _edit_report(applied, effect)
            for applied, effect in zip(report.edits, report.effects, strict=True)
        ],
        relevance_loss=report.relevance_loss,
        overlap=report.overlap,
        concepts=[_concept_share(share) for share in report.shares],
        bound=BOUNDS[report.bound],
        targets=[_target_report(result) for result in report.targets],
    )


def _concept_share(share: ConceptShare) -> steering.ConceptShare:
    return steering.ConceptShare(
        concept=share.concept,
        unsteered_share=share.unsteered,
        share=share.steered,
        unsteered_item_share=share.unsteered_items,
        item_share=share.steered_items,
    )


def _target_report(result: TargetResult) -> steering.TargetReport:
    return steering.TargetReport(
        concept=result.target.name,
        met=result.asked.hold(result.found),
        lift=result.strength.lift,
        min_items=result.asked.least,
        max_items=result.asked.most,
        items=result.found,
    )


def _edit_report(applied: AppliedEdit, effect: EditEffect) -> steering.EditReport:
    edit = applied.edit
    return steering.EditReport(
        target=edit.target.name,
        operation=OPERATIONS[edit.operation],
        raw_strength=edit.strength,
        level_before=effect.level_before,
        level_after=effect.level_after,
        no_effect=effect.amount == 0.0,
        applied_fraction=applied.fraction,
    )
