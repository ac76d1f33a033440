"""Reads, filters, splits and summarises the data set of a run."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from training.config import TrainConfig
from training.datasets import load_data_set
from training.errors import DataError
from training.histories import Histories
from training.interactions import Catalogue, Prepared, core, prepare
from training.progress import Reporter
from training.recommenders import RECOMMENDERS
from training.splits import Split, hold_out
from training.summary import DataSummary, summarise


class Data(NamedTuple):
    """A data set with its split and its summary."""

    name: str
    catalogue: Catalogue
    split: Split
    min_value: float | None
    notes: tuple[str, ...]
    digest: str
    summary: DataSummary
    positives: Histories


def load_data(config: TrainConfig, reporter: Reporter) -> Data:
    """Reads and splits the configuration's data set.

    Raises:
        DataError: if it cannot be used.
    """
    raw = load_data_set(config.data, config.data_options, config.seed)
    if config.user_core or config.item_core:
        raw = core(raw, config.user_core, config.item_core)
    prepared: Prepared = prepare(raw)
    for note in prepared.notes:
        reporter.note(note)
    min_value = None if config.implicit else config.min_value
    if not config.implicit and min_value is None:
        min_value = raw.min_value
    interactions = prepared.interactions
    if (RECOMMENDERS[config.recommender].ordered or config.split.kind == "leave-one-out") and (
        untimed := interactions.untimed_count
    ):
        asker = (
            config.recommender
            if RECOMMENDERS[config.recommender].ordered
            else "a leave-one-out split"
        )
        raise DataError(
            f"{raw.name}: {untimed} of {len(interactions.users)} interactions have neither time "
            f"nor position, but {asker} needs the order of every user's interactions"
        )
    positives = interactions.positives(min_value)
    summary = summarise(raw, prepared, positives)
    reporter.data(summary)
    split = hold_out(
        positives, interactions.user_ids, len(interactions.item_ids), config.split, config.seed
    )
    reporter.note(
        f"{len(split.train)} users to train on, {len(split.validation)} validation, "
        f"{len(split.test)} test"
    )
    digest = hashlib.sha256()
    for part in (positives.offsets, positives.items):
        digest.update(part.tobytes())
    catalogue = prepared.catalogue.with_popularity(split.popularity())
    return Data(
        raw.name,
        catalogue,
        split,
        min_value,
        prepared.notes,
        digest.hexdigest(),
        summary,
        positives,
    )
