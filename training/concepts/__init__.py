"""Concepts: items' attributes as weights over neurons, with a unit of strength and an effect."""

from training.concepts.config import ConceptConfig
from training.concepts.fitting import FittedConcept, FittedConcepts, fit_concepts, item_codes
from training.concepts.labels import Label

__all__ = [
    "ConceptConfig",
    "FittedConcept",
    "FittedConcepts",
    "Label",
    "fit_concepts",
    "item_codes",
]
