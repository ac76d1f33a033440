"""Makes the contents of a bundle from a finished training run."""

import json
import math

import numpy as np
from trimtab.v1.bundle_pb2 import HistoryRule, Provenance

from exporters.contents import BundleContents, Gains, Users, assemble
from exporters.errors import ContentsError
from exporters.progress import Report, silent
from training.concepts import item_codes
from training.concepts.gains.item_gains import gains_of
from training.concepts.mapping.evidence import Evidence
from training.concepts.mapping.purity import Purity, purity
from training.concepts.membership import memberships
from training.run import Run

MAX_HISTORY = 1_000
"""Items. The longest history that any encoder reads; longer ones take more time per request."""


def contents_of(
    run: Run, max_history: int | None = None, report: Report = silent, gains: str | None = None
) -> BundleContents:
    """Measures a run's models on its users and gathers what a bundle holds.

    Args:
        run: a finished run.
        max_history: number of a user's newest positive items that the encoder reads. By default
            the longest positive history of a training user, but not more than the run itself read
            or MAX_HISTORY.
        report: called with the name of each stage when it begins.
        gains: method that finds the gains (training.concepts.gains.GAINS); None for no gains.

    Raises:
        ContentsError: parts do not fit each other, or max_history is out of range.
    """
    split = run.split
    train = split.histories(split.train)
    # A transformer reads as many items as it has positions; others read histories of any length.
    readable = min(run.recommender.max_length or MAX_HISTORY, MAX_HISTORY)
    if max_history is None:
        longest = int(train.lengths.max(initial=0))
        max_history = max(1, min(longest, run.config.max_length, readable))
    if not 1 <= max_history <= readable:
        reason = (
            f": {run.config.recommender} was trained on no more" if readable < MAX_HISTORY else ""
        )
        raise ContentsError(f"max_history: expected 1 to {readable}, found {max_history}{reason}")
    held_out = np.sort(np.concatenate([split.validation, split.test]))
    item_gains = None
    if gains is not None:
        report("finding gains")
        item_gains = Gains(gains, gains_of(run, gains))
    return assemble(
        recommender=run.recommender,
        sae=run.sae,
        catalogue=run.catalogue,
        users=Users(train, split.histories(held_out)),
        labels=run.labels,
        concepts=run.concepts,
        history=HistoryRule(
            ordered=run.recommender.ordered, max_length=max_history, min_value=run.config.min_value
        ),
        provenance=_provenance(run),
        purity=_purity(run),
        gains=item_gains,
        report=report,
    )


def _purity(run: Run) -> Purity:
    """Measures the purity of the neurons on the items that concepts were fitted to."""
    codes = item_codes(run.recommender, run.sae, run.config.max_length)
    members = memberships(run.catalogue, run.config.concepts)
    trained = run.catalogue.popularity >= run.config.concepts.min_popularity
    V = run.recommender.item_matrix().V.detach().numpy()
    return purity(Evidence.whole(members.matrix, codes).of(trained), V[trained])


def _provenance(run: Run) -> Provenance:
    """Describes the data, settings and code that trained a run's models."""
    config = run.config
    return Provenance(
        data_set=run.data_set,
        split=_split(run),
        seed=config.seed,
        code_version=run.code_version,
        recommender=config.recommender,
        sae=config.sae,
        # JSON has no NaN: a figure that could not be measured is left out.
        metrics={name: value for name, value in run.metrics.items() if math.isfinite(value)},
        config_json=json.dumps(config.to_json(), sort_keys=True),
    )


def _split(run: Run) -> str:
    """Describes how users or items were held out, with their numbers."""
    train, validation, test = (
        len(rows) for rows in (run.split.train, run.split.validation, run.split.test)
    )
    if run.config.split.kind == "leave-one-out":
        return (
            f"each user's last items held out: {train} users train without them, "
            f"{validation} are validated on the last but one and {test} tested on the last"
        )
    return (
        f"users held out whole: {train} train, {validation} validation, {test} test; "
        f"{run.config.split.target_share:g} of a held-out user's items are targets"
    )
