"""Measures what silencing a concept takes from lists, and from users who like it or do not."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from training.arrays import Bools, Ints
from training.concepts.effect import Audience
from training.concepts.membership import memberships
from training.errors import ConfigError, RunError
from training.evaluation.report import Curve, Estimate, Plot, Report, Table
from training.evaluation.runs import only_run, run_name
from training.evaluation.steering import edited_lists, levels, shifted, silenced
from training.measures import metrics
from training.run import Run

METHODS = ("ABLATE", "its neurons", "random neurons")
"""Titles of the methods that silence a concept."""
_LIKES = 1 / 3
"""Share of the users that count as a concept's likers."""
_NEAREST = 10
"""Neurons of the nearest mean activation that a random one is drawn from."""


class Ablation(NamedTuple):
    """One concept silenced by one method: means over the test users.

    Changes are against the unsteered lists. share is the concept's exposure share; overlap the
    lists' overlap; likers are the third of the users whose histories have most of the concept.
    """

    concept: str
    way: str
    share: Estimate
    share_change: Estimate
    overlap: Estimate
    ndcg_change: Estimate
    likers_change: Estimate
    others_change: Estimate


def ablate(run: Run, count: int, neurons: int) -> list[Ablation]:
    """Silences each of the most frequent concepts by every one of METHODS.

    ABLATE is the operation on the concept's weights over all neurons; the second sets the neurons
    of its largest weights to 0, the third as many random ones that are about as active over the
    users.

    Raises:
        RunError: the run has no concepts.
    """
    if not run.concepts:
        raise RunError(f"{run.path}: the run has no concepts to ablate")
    histories = run.split.histories(run.split.test)
    audience = Audience.of(run.recommender, run.sae, histories, run.config.max_length)
    members = memberships(run.catalogue, run.config.concepts)
    rng = np.random.default_rng([run.config.seed, 0xAB])
    ablations = []
    for concept in sorted(run.concepts, key=lambda one: -one.item_count)[:count]:
        flags = members.matrix[members.names.index(concept.name)].toarray()[0] > 0
        own = np.argsort(-concept.weights, kind="stable")[:neurons]
        codes = (
            shifted(audience.code, concept, -levels(audience.code, concept)),
            silenced(audience.code, own),
            silenced(audience.code, _as_active(audience.code, own, rng)),
        )
        ablations += [
            _judged(run, audience, concept.name, method, flags, code)
            for method, code in zip(METHODS, codes, strict=True)
        ]
    return ablations


def _as_active(code: Tensor, neurons: Ints, rng: np.random.Generator) -> Ints:
    """Draws another neuron for each, among the ten of the nearest mean activation; no two alike."""
    activity = code.mean(dim=0).numpy()
    free = np.setdiff1d(np.arange(len(activity)), neurons)
    drawn: list[int] = []
    for neuron in neurons[: len(free)]:
        nearest = free[
            np.argsort(np.abs(activity[free] - activity[neuron]), kind="stable")[:_NEAREST]
        ]
        drawn.append(int(rng.choice(nearest)))
        free = free[free != drawn[-1]]
    return np.array(drawn, dtype=np.int64)


def _judged(
    run: Run, audience: Audience, concept: str, method: str, flags: Bools, code: Tensor
) -> Ablation:
    targets = run.split.targets(run.split.test)
    before = audience.lists()
    after = edited_lists(audience, code)
    share = metrics.exposure_share(before, flags)
    change = metrics.ndcg(after, targets) - metrics.ndcg(before, targets)
    held = np.asarray(audience.seen @ flags.astype(np.float32))
    liked = held / np.maximum(np.asarray(audience.seen.sum(axis=1))[:, 0], 1)
    likers = np.zeros(len(liked), dtype=bool)
    likers[np.argsort(-liked, kind="stable")[: max(1, round(_LIKES * len(liked)))]] = True
    return Ablation(
        concept=concept,
        way=method,
        share=Estimate.over_users(share),
        share_change=Estimate.over_users(metrics.exposure_share(after, flags) - share),
        overlap=Estimate.over_users(metrics.overlap(before, after)),
        ndcg_change=Estimate.over_users(change),
        likers_change=Estimate.over_users(change[likers]),
        others_change=Estimate.over_users(change[~likers]),
    )


def add_ablation_flags(command: argparse.ArgumentParser) -> None:
    """Adds the flags for the numbers of concepts and neurons."""
    command.add_argument(
        "--concepts", type=int, default=10, help="The most frequent ones (default: 10)."
    )
    command.add_argument(
        "--neurons", type=int, default=10, help="Silenced for a concept (default: 10)."
    )


def ablation_report(runs: Sequence[Run], parsed: argparse.Namespace, command: str) -> Report:
    """Reports every concept and method of one run.

    Raises:
        ConfigError: several runs, or numbers out of range.
    """
    run = only_run(runs)
    if parsed.concepts < 1 or not 1 <= parsed.neurons <= run.sae.n_neurons:
        raise ConfigError(
            "--concepts and --neurons: expected at least 1 concept and 1 to "
            f"{run.sae.n_neurons} neurons, found {parsed.concepts} and {parsed.neurons}"
        )
    ablations = ablate(run, parsed.concepts, parsed.neurons)
    columns = (
        "concept",
        "way",
        "share",
        "change",
        "overlap",
        "nDCG change",
        "its likers'",
        "others'",
    )
    about = f"RESIDUAL, {len(run.split.test)} test users, top 20"
    curves = []
    for method in METHODS:
        own = [one for one in ablations if one.way == method]
        changes = [one.share_change for one in own]
        curves.append(Curve(method, [one.concept for one in own], changes))
    return Report(
        name="ablation",
        title=f"Ablation: {run_name(run)}",
        command=command,
        paragraphs=(_ABOUT.format(neurons=parsed.neurons),),
        tables=(Table(f"{run.data_set}, seed {run.config.seed}: {about}", columns, ablations),),
        plot=Plot("", "change of the exposure share", curves),
        figures=ablations,
    )


_ABOUT = (
    "± is the standard error over the users. ABLATE takes away the concept's level over all "
    "neurons; its neurons are the {neurons} of largest weight, set to 0, and the random ones as "
    "many that are about as active. Its likers are the third of the users whose histories hold "
    "most of the concept."
)
