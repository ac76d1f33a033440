"""Encodes concepts and neuron cards."""

from collections.abc import Sequence
from typing import Any

from trimtab.v1 import concept_pb2 as concepts
from trimtab.v1 import steering_pb2 as steering

from service.bundle.bundle import Bundle
from service.bundle.label_set import Concept


def concept(found: Concept) -> concepts.Concept:
    """A concept as ConceptService shows it."""
    return concepts.Concept(
        name=found.name,
        attribute=found.attribute,
        item_count=found.item_count,
        unit=found.target.unit,
        method=found.method,
        auc=found.auc,
        top_neurons=[steering.WeightedNeuron(neuron=n, weight=w) for n, w in found.top_neurons],
        unsteered_share=found.unsteered_share,
        steered_share=found.steered_share,
    )


def neuron_card(bundle: Bundle, neuron: int) -> concepts.NeuronCard:
    """A neuron's card."""
    row = bundle.labels.card(neuron)
    return concepts.NeuronCard(
        neuron=neuron,
        labels=[concepts.Label(**label._asdict()) for label in bundle.labels.labels[neuron]],
        density=row["density"],
        unit=row["unit"],
        dead=row["dead"],
        quantiles=row["quantiles"],
        histogram=row["histogram"],
        top_items=_activations(bundle, row["top_items"]),
        raised_items=_activations(bundle, row["raised_items"]),
        lowered_items=_activations(bundle, row["lowered_items"]),
        nearest=[
            concepts.NeuronSimilarity(
                neuron=near["neuron"],
                label=bundle.labels.label(near["neuron"]),
                cosine=near["cosine"],
            )
            for near in row["nearest"] or ()
        ],
        monosemanticity=row.get("monosemanticity"),  # bundles of earlier exporters have neither
        entropy=row.get("entropy"),
    )


def _activations(
    bundle: Bundle, rows: Sequence[dict[str, Any]] | None
) -> list[concepts.ItemActivation]:
    catalogue = bundle.catalogue
    return [
        concepts.ItemActivation(
            item_id=catalogue.item_ids[row["item"]],
            title=catalogue.titles[row["item"]],
            value=row["value"],
        )
        for row in rows or ()
    ]
