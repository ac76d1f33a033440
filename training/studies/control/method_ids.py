"""Identifiers of the methods that control a concept's share, and the one place that titles them."""

from __future__ import annotations

from enum import StrEnum


class ControlMethod(StrEnum):
    """A method that changes a concept's share; the value is its title in tables and figures.

    A title with x means one strength for all users, with -x a negative one.
    """

    ADD = "ADD"
    ADD_DOWN = "ADD -x"
    BOOST = "BOOST"
    BOOST_DOWN = "BOOST -x"
    BOOST_BY_GAINS_DOWN = "BOOST by gains -x"
    CAP = "CAP x"
    NEURONS_DOWN = "neurons scaled down"
    LIFT = "lift"
    LIFT_DOWN = "lift -x"
    TAG_BOOST = "tag boost"
    LIFT_BY_COMPLETED_TAGS_DOWN = "lift by completed tags -x"
    DIFFERENCE_OF_MEANS_DOWN = "difference of means -x"
    ADD_AND_LIFT = "ADD and lift, alike in spread"
    HALF_BY_ADD_AND_LIFT = "each at most half: ADD, lift"
    HALF_BY_LIFT = "each at most half: lift"
