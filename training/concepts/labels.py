"""Neurons' labels: the concepts that mapping methods find for them, with score and provenance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from training.arrays import Bools
from training.concepts.describing.dictionary import CONFIDENT, DICTIONARY
from training.concepts.mapping.evidence import Evidence
from training.concepts.mapping.methods import METHODS


class Label(NamedTuple):
    """A neuron's text, how it was found, how well it fits, and on what that was measured."""

    text: str
    method: str
    score: float
    provenance: str = ""


def labels_by(
    method: str, names: Sequence[str], evidence: Evidence, judged: Bools, count: int
) -> list[list[Label]]:
    """Returns the concepts that a mapping method ranks first for each neuron, at most count.

    A method that has a judge chooses without the items that judged [n_items] flags, and scores by
    them; a label that they cannot judge is left out.
    """
    mapping = METHODS[method]
    if mapping.judge is None:
        choice = mapping.map(evidence)
        scores = choice
        provenance = f"{mapping.text}; {evidence.codes.shape[0]} items"
    else:
        choice = mapping.map(evidence.of(~judged))
        scores = mapping.judge(evidence.of(judged))
        provenance = (
            f"{mapping.text}; chosen on {(~judged).sum()} items, judged on {judged.sum()} others"
        )
    wanted = np.where(np.isfinite(scores) & (choice > 0), choice, 0.0)
    order = np.argsort(-wanted, axis=0, kind="stable")[:count]
    return [
        [
            Label(names[concept], method, float(scores[concept, neuron]), provenance)
            for concept in order[:, neuron]
            if wanted[concept, neuron] > 0
        ]
        for neuron in range(choice.shape[1])
    ]


def joined(parts: Iterable[list[list[Label]]]) -> list[list[Label]]:
    """Joins each neuron's labels in the order of the parts, those that a test refuted last."""
    rows = ([label for labels in row for label in labels] for row in zip(*parts, strict=True))
    return [
        sorted(row, key=lambda label: label.method == DICTIONARY and label.score < CONFIDENT)
        for row in rows
    ]
