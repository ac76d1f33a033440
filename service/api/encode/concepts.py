"""Encodes the replies of ConceptService."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from trimtab.v1 import concept_pb2 as wire
from trimtab.v1 import steering_pb2 as steering

from service.api.encode.lists import served_by
from service.arrays import Floats
from service.bundle.bundle import Bundle
from service.bundle.label_set import Concept, LabelSet, Match
from service.engine.contrast import Differences, activations, differences
from service.engine.reply import Inspection
from service.labels.sync import Imported
from service.steering.state import SparseCode


class ContrastRows(NamedTuple):
    """The neurons and concepts that tell two sets apart most, strongest first."""

    neurons: list[wire.NeuronDifference]
    concepts: list[wire.ConceptDifference]


def concepts_page(labels: LabelSet, start: int, size: int) -> wire.ListConceptsResponse:
    """Encodes a page of a label set's concepts, with the token of the next page."""
    page = labels.concepts[start : start + size]
    end = start + len(page)
    return wire.ListConceptsResponse(
        concepts=[concept_message(concept) for concept in page],
        next_page_token=f"{labels.version}:{end}" if end < len(labels.concepts) else "",
        label_set=labels.version,
    )


def search_response(bundle: Bundle, matches: Sequence[Match]) -> wire.SearchConceptsResponse:
    """Encodes the results of a text search."""
    return wire.SearchConceptsResponse(
        results=[_search_result(bundle, match) for match in matches],
        label_set=bundle.labels.version,
    )


def _search_result(bundle: Bundle, match: Match) -> wire.SearchResult:
    if match.concept is not None:
        return wire.SearchResult(concept=concept_message(match.concept), match=match.match)
    if match.neuron is not None:
        return wire.SearchResult(neuron=neuron_card(bundle, match.neuron), match=match.match)
    raise ValueError("expected a match with a concept or a neuron, found neither")


def concept_message(concept: Concept) -> wire.Concept:
    """Encodes a concept."""
    return wire.Concept(
        name=concept.name,
        attribute=concept.attribute,
        item_count=concept.item_count,
        unit=concept.target.unit,
        method=concept.method,
        auc=concept.auc,
        top_neurons=[
            steering.WeightedNeuron(neuron=neuron, weight=weight)
            for neuron, weight in concept.top_neurons
        ],
        unsteered_share=concept.unsteered_share,
        steered_share=concept.steered_share,
    )


def neuron_card(bundle: Bundle, neuron: int) -> wire.NeuronCard:
    """Encodes a neuron's card."""
    labels = bundle.labels
    row = labels.card(neuron)
    return wire.NeuronCard(
        neuron=neuron,
        labels=[wire.Label(**label._asdict()) for label in labels.labels[neuron]],
        density=row["density"],
        unit=row["unit"],
        dead=row["dead"],
        quantiles=row["quantiles"],
        histogram=row["histogram"],
        top_items=_item_activations(bundle, row["top_items"]),
        raised_items=_item_activations(bundle, row["raised_items"]),
        lowered_items=_item_activations(bundle, row["lowered_items"]),
        nearest=[
            wire.NeuronSimilarity(
                neuron=other["neuron"],
                label=labels.label(other["neuron"]),
                cosine=other["cosine"],
            )
            for other in row["nearest"] or ()
        ],
        monosemanticity=row.get("monosemanticity"),  # bundles of earlier exporters have neither
        entropy=row.get("entropy"),
    )


def _item_activations(
    bundle: Bundle, rows: Sequence[dict[str, Any]] | None
) -> list[wire.ItemActivation]:
    catalogue = bundle.catalogue
    return [
        wire.ItemActivation(
            item_id=catalogue.item_ids[row["item"]],
            title=catalogue.titles[row["item"]],
            value=row["value"],
        )
        for row in rows or ()
    ]


def inspect_response(bundle: Bundle, inspection: Inspection) -> wire.InspectUserResponse:
    """Encodes a user's active neurons, the levels of all concepts, and the history read."""
    audience = inspection.audience
    catalogue = bundle.catalogue
    return wire.InspectUserResponse(
        neurons=_neuron_activations(bundle.labels, audience.state.code),
        concepts=_concept_levels(bundle.labels, audience.state.code),
        history=[
            wire.HistoryItem(item_id=catalogue.item_ids[item], title=catalogue.titles[item])
            for item in reversed(audience.history.tolist())
        ],
        served_by=served_by(bundle, audience, inspection.degradations),
    )


def _neuron_activations(labels: LabelSet, code: SparseCode) -> list[wire.NeuronActivation]:
    return [
        wire.NeuronActivation(
            neuron=neuron,
            label=labels.label(neuron),
            activation=activation,
            strength=activation / float(labels.units[neuron]),
        )
        for neuron, activation in zip(code.neurons.tolist(), code.activations.tolist(), strict=True)
    ]


def _concept_levels(labels: LabelSet, code: SparseCode) -> list[wire.ConceptLevel]:
    """Encodes every concept's level in a code, the strongest in typical units first."""
    levels = labels.levels(code)
    strengths = levels / _concept_units(labels)
    return [
        wire.ConceptLevel(
            concept=labels.concepts[row].name,
            level=float(levels[row]),
            strength=float(strengths[row]),
        )
        for row in np.argsort(-strengths, kind="stable").tolist()
    ]


def contrast_rows(
    labels: LabelSet, left: Sequence[SparseCode], right: Sequence[SparseCode], n: int
) -> ContrastRows:
    """Compares two sets of codes, and encodes the n neurons and n concepts that differ most."""
    return ContrastRows(
        neurons=_neuron_differences(labels, left, right, n),
        concepts=_concept_differences(labels, left, right, n) if labels.concepts else [],
    )


def _neuron_differences(
    labels: LabelSet, left: Sequence[SparseCode], right: Sequence[SparseCode], n: int
) -> list[wire.NeuronDifference]:
    compared = differences(
        activations(left, labels.n_neurons), activations(right, labels.n_neurons)
    )
    return [
        wire.NeuronDifference(
            neuron=neuron,
            label=labels.label(neuron),
            **_difference(compared, neuron, labels.units),
        )
        for neuron in compared.strongest(labels.units, n).tolist()
    ]


def _concept_differences(
    labels: LabelSet, left: Sequence[SparseCode], right: Sequence[SparseCode], n: int
) -> list[wire.ConceptDifference]:
    units = _concept_units(labels)
    compared = differences(
        np.array([labels.levels(code) for code in left]),
        np.array([labels.levels(code) for code in right]),
    )
    return [
        wire.ConceptDifference(
            concept=labels.concepts[row].name, **_difference(compared, row, units)
        )
        for row in compared.strongest(units, n).tolist()
    ]


def _difference(compared: Differences, row: int, units: Floats) -> dict[str, float]:
    left_mean = float(compared.left_mean[row])
    right_mean = float(compared.right_mean[row])
    return {
        "left_mean": left_mean,
        "right_mean": right_mean,
        "strength": (left_mean - right_mean) / float(units[row]),
        "auc": float(compared.auc[row]),
    }


def _concept_units(labels: LabelSet) -> Floats:
    """Returns every concept's typical unit: float32 [n_concepts]."""
    return np.array([concept.target.unit for concept in labels.concepts], np.float32)


def import_response(imported: Imported, record_count: int) -> wire.ImportLabelsResponse:
    """Encodes what an import did."""
    return wire.ImportLabelsResponse(
        label_set=imported.labels.version,
        imported_count=record_count,
        concept_count=len(imported.labels.concepts),
        lost_concepts=imported.lost,
    )


def label_sets_response(bundle: Bundle) -> wire.ListLabelSetsResponse:
    """Encodes a bundle's label sets."""
    return wire.ListLabelSetsResponse(
        label_sets=[
            wire.LabelSetInfo(
                label_set=version,
                current=version == bundle.labels.version,
                of_bundle=version == bundle.own_labels.version,
                concept_count=len(labels.concepts),
            )
            for version, labels in bundle.label_sets.items()
        ]
    )
