"""Identifiers of the frontier's methods and bases, and the one place that has their titles."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Base(StrEnum):
    """A base that a method's gain is added to; all give the unsteered list at strength 0.

    SCORE: the unsteered score over scale(z). RANK: 1 / log2(1 + unsteered rank). RELEVANCE: the
    probability that the user wants an item of that rank, learned from validation users. PLACES:
    RANK as a function of the score, which the service's BOOST adds to.
    """

    SCORE = "score"
    RANK = "rank"
    RELEVANCE = "relevance"
    PLACES = "places"


class MethodId(StrEnum):
    """A method of steering; the value is its title in tables and figures.

    ALL_TAGS is the oracle, which is shown hidden tags too; where none is hidden it equals
    TAG_BOOST. Requests get BOOST by the operation of that name (BOOST_BY_GAINS where the bundle has
    gains), CONTRAST by ADD, and TARGET_SHARE by a target share. RANDOM_FILTER only suppresses.
    """

    ALL_TAGS = "all tags"
    TAG_BOOST = "tag boost"
    BOOST = "boost"
    BOOST_BY_GAINS = "boost by gains"
    FILLED_TAGS = "filled tags"
    SELECT_THEN_REORDER = "select, then reorder"
    TAG_BOOST_ORTHOGONAL = "tag boost, orthogonal"
    IMPUTED_TAGS = "imputed tags"
    DENSE_PROBE = "dense probe"
    RIDGE_ON_Z = "ridge on z"
    RIDGE_ON_CODES = "ridge on codes"
    RIDGE_ON_UNTRAINED_CODES = "ridge on untrained codes"
    COMPLETED_TAGS_Z = "completed tags, z"
    COMPLETED_TAGS_CODES = "completed tags, codes"
    PROBE_AND_TAG_Z = "probe and tag, z"
    PROBE_AND_TAG_CODES = "probe and tag, codes"
    PROBE_AND_TAG_UNTRAINED_CODES = "probe and tag, untrained codes"
    KERNEL_ON_CODES = "kernel on codes"
    DIFFERENCE_OF_MEANS = "difference of means"
    DIFFERENCE_OF_MEANS_PLATT = "difference of means, Platt"
    CONTRAST = "contrast"
    CONTRAST_PLATT = "contrast, Platt"
    CONTRAST_ORTHOGONAL = "contrast, orthogonal"
    CONTRAST_UNTRAINED_SAE = "contrast, untrained SAE"
    CONTRAST_UNTRAINED_SAE_PLATT = "contrast, untrained SAE, Platt"
    CONTRAST_TOP_1 = "contrast, top 1"
    CONTRAST_TOP_10 = "contrast, top 10"
    CONTRAST_TOP_50 = "contrast, top 50"
    RAW_DIMENSIONS_TOP_10 = "raw dimensions, top 10"
    SHUFFLED_NEURONS = "shuffled neurons"
    OWN_NEURONS = "own neurons"
    BLEND_1_NEURON = "BLEND, 1 neuron"
    BLEND_5_NEURONS = "BLEND, 5 neurons"
    BLEND_10_NEURONS = "BLEND, 10 neurons"
    TAG_PROFILES = "tag profiles"
    TARGET_SHARE = "target share"
    TARGET_SHARE_LIFT_ALONE = "target share, lift alone"
    RANDOM_FILTER = "random filter"

    def on(self, base: Base) -> Variant:
        """Returns the variant of the method that adds to a base."""
        return Variant(self, base)


class Variant(NamedTuple):
    """A method together with the base that its gain is added to."""

    method: MethodId
    base: Base

    def __str__(self) -> str:
        return f"{self.method} + {self.base}"


class Comparison(NamedTuple):
    """Two variants that are compared user by user: left minus right."""

    left: Variant
    right: Variant

    def __str__(self) -> str:
        return f"{self.left} - {self.right}"
