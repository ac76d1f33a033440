"""Turns probabilities of a tag into probabilities that an item carries the concept."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from training.arrays import Bools, Doubles, Floats
from training.concepts.gains.platt import logistic

_ROUNDS = 20
"""Rounds of expectation-maximisation."""
_TAG_WEIGHT = 0.25
"""Gain that a tag adds to the probe's."""


def shown_share(p: Floats, tagged: Bools) -> Doubles:
    """Estimates the share of a concept's items that is tagged, [n_concepts].

    The mean of p = P(tagged), calibrated and cross-fitted, over the tagged: C. Elkan and K. Noto,
    "Learning classifiers from only positive and unlabeled data", KDD 2008.
    """
    share: Doubles = (p * tagged).sum(axis=1) / np.maximum(tagged.sum(axis=1), 1)
    return np.clip(share, 1e-6, 1.0)


def probe_and_tag(p: Floats, tagged: Bools) -> Floats:
    """Returns P(tagged) over the shown share, plus 1/4 for the tagged: [n_concepts, n_items].

    It is linear in p, so that a probe that knows little has little influence; clipping at 1 would
    give it much.
    """
    gains: Floats = (p / shown_share(p, tagged)[:, None] + _TAG_WEIGHT * tagged).astype(np.float32)
    return gains


def completed(p: Floats, tagged: Bools, fitted: Bools) -> Floats:
    """Returns 1 for the tagged and P(concept) for the others: [n_concepts, n_items].

    A sigmoid that separates tagged items from all others rises too late; expectation-maximisation
    fits a sigmoid of logit p to the tagged and, in part, to the others that are likely to carry the
    concept.
    """
    scores = np.log(np.clip(p, 1e-6, 1 - 1e-6) / (1 - np.clip(p, 1e-6, 1 - 1e-6))).astype(
        np.float64
    )
    carried = np.minimum(p / shown_share(p, tagged)[:, None], 1.0).astype(np.float64)
    for row, (values, flags, c) in enumerate(
        zip(scores, tagged, shown_share(p, tagged), strict=True)
    ):
        standard = (values - values[fitted].mean()) / max(float(values[fitted].std()), 1e-12)
        features = np.stack([standard, np.ones_like(standard)], axis=1)
        for _ in range(_ROUNDS):
            q = carried[row]
            wanted = np.where(flags, 1.0, (1 - c) * q / np.maximum(1 - c * q, 1e-12))
            carried[row] = expit(features @ logistic(features[fitted], wanted[fitted]))
    return np.where(tagged, 1.0, carried).astype(np.float32)
