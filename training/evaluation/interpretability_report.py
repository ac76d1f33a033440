"""The report of trimtab-evaluate interpretability: tables, probe curves, cards, histograms."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from training.concepts.describing.dictionary import CONFIDENT, DICTIONARY
from training.concepts.effect import Audience
from training.concepts.fitting import item_codes
from training.concepts.labels import Label
from training.errors import ConfigError
from training.evaluation.interpretability import (
    PROBE_SIZES,
    SAME_COSINE,
    Interpretability,
    interpret,
    stability,
)
from training.evaluation.report import Curve, Estimate, Picture, Plot, Report, Table
from training.evaluation.runs import run_name, seeds_of
from training.run import Run

_CARDS = 6
_CARD_ITEMS = 6
_ACTIVATIONS = "How often and how strongly neurons fire in users"
_MOST_USERS = 2_000
"""Training users on whom activations are drawn, so that cards show them as the bundle measures
them."""
_ROWS = {
    "neurons that fire for any item, share": "alive_share",
    f"confidence >= {CONFIDENT}, share of those": "confident_share",
    "described and tested, share of those": "described_share",
    "mean confidence of these": "confidence",
    "precision of the confident at the true rate": "precision",
    "recall of the confident": "recall",
    "monosemanticity": "monosemanticity",
    "entropy of neurons over concepts": "neuron_entropy",
    "entropy of concepts over neurons": "concept_entropy",
}


def add_concept_count(command: argparse.ArgumentParser) -> None:
    """Adds the flag for the number of concepts."""
    text = "The most frequent ones (default: 100)."
    command.add_argument("--concepts", type=int, default=100, help=text)


def interpretability_report(
    runs: Sequence[Run], parsed: argparse.Namespace, command: str
) -> Report:
    """Reports the figures of all runs, and cards and activations of the first."""
    if parsed.concepts < 1:
        raise ConfigError(f"--concepts: expected at least 1, found {parsed.concepts}")
    measured = [interpret(run, parsed.concepts) for run in runs]
    shares = stability(runs) if len(runs) > 1 else {}
    by_representation = list(zip(*measured, strict=True))
    curves = [_probe_curve(same) for same in by_representation]
    run = runs[0]
    name = run_name(run)
    about = f"{name}: seed {seeds_of(runs)}"
    probes = Table(
        title=f"{about}; AUC on held-out items of probes of so many neurons",
        columns=("representation", *map(str, PROBE_SIZES)),
        rows=[[curve.name, *curve.y] for curve in curves],
    )
    return Report(
        name="interpretability",
        title=f"Interpretability: {name}",
        command=command,
        paragraphs=_PARAGRAPHS,
        tables=(probes, _neurons(f"{about}; neurons", by_representation, shares)),
        plot=Plot("neurons of the probe", "AUC on held-out items, mean over concepts", curves),
        figures={
            "runs": [str(one.path) for one in runs],
            "measured": measured,
            "stability": shares,
        },
        pictures=(
            Picture("cards", "Cards of the neurons of most confident labels", _cards_of(run)),
            Picture("activations", _ACTIVATIONS, _activations_of(run)),
        ),
    )


def _neurons(
    title: str,
    by_representation: Sequence[Sequence[Interpretability]],
    shares: Mapping[str, Sequence[float]],
) -> Table:
    rows: list[list[object]] = [
        [text, *(_known([getattr(one, field) for one in same]) for same in by_representation)]
        for text, field in _ROWS.items()
    ]
    if shares:
        text = f"partner of cosine >= {SAME_COSINE} in another run, share"
        rows.append([text, *map(Estimate.of, shares.values())])
    names = [same[0].representation for same in by_representation]
    return Table(title, ("figure", *names), rows)


_PARAGRAPHS = (
    "± is the standard error over the runs (for partners: over the pairs, both ways).",
    "Numbers of items are codes of one-item histories. A raw dimension of the user embedding "
    "counts as two neurons, its positive and its negative side; the untrained SAE has the trained "
    "one's shape and random weights. Descriptions are made of attribute values and tested on "
    "items that they were not made from; partners are compared by what they do to the scores of "
    "the items that both runs know.",
)


def _probe_curve(same: Sequence[Interpretability]) -> Curve:
    values = np.array([one.probe_aucs for one in same])
    return Curve(
        same[0].representation,
        list(PROBE_SIZES),
        [Estimate.of(list(column)) for column in values.T],
    )


def _known(values: Sequence[float]) -> Estimate | None:
    """Averages over the runs that have the figure.

    Without a confident description there is no precision.
    """
    known = [value for value in values if np.isfinite(value)]
    return Estimate.of(known) if known else None


def _cards_of(run: Run) -> Callable[[Path], None]:
    """Returns a function that draws the neurons whose tested descriptions did best."""

    def score(labels: Sequence[Label]) -> float:
        return max((label.score for label in labels if label.method == DICTIONARY), default=-1.0)

    def draw(path: Path) -> None:
        from matplotlib.figure import Figure

        codes = item_codes(run.recommender, run.sae, run.config.max_length).tocsc()
        users = _user_codes(run)
        ranked = sorted(range(run.sae.n_neurons), key=lambda neuron: -score(run.labels[neuron]))
        figure = Figure(figsize=(11, 6.5), layout="constrained")
        for axes, neuron in zip(figure.subplots(2, 3).flat, ranked[:_CARDS], strict=False):
            column = slice(codes.indptr[neuron], codes.indptr[neuron + 1])
            order = np.argsort(-codes.data[column])[:_CARD_ITEMS]
            titles = "\n".join(_title(run, int(item)) for item in codes.indices[column][order])
            active = users[:, neuron][users[:, neuron] > 0]
            axes.hist(active, bins=20, color="tab:blue", alpha=0.5)
            axes.set_title(f"#{neuron}: {_label(run.labels[neuron])}", fontsize="small")
            place = {"transform": axes.transAxes, "ha": "right", "va": "top"}
            axes.text(0.98, 0.95, titles, fontsize=7, **place)
            axes.set(xlabel="activation", ylabel="users")
        figure.savefig(path, dpi=100, metadata={"Software": None})

    return draw


def _label(labels: Sequence[Label]) -> str:
    if not labels:
        return "no label"
    best = labels[0]
    return textwrap.shorten(f"{best.text} ({best.method} {best.score:.2f})", 44)


def _activations_of(run: Run) -> Callable[[Path], None]:
    """Returns a function that draws how often and how strongly neurons fire."""

    def draw(path: Path) -> None:
        from matplotlib.figure import Figure

        users = _user_codes(run)
        density = (users > 0).mean(axis=0)
        figure = Figure(figsize=(9, 3.5), layout="constrained")
        left, right = figure.subplots(1, 2)
        alive = density[density > 0]
        left.hist(np.log10(alive), bins=30)
        left.set(xlabel="log10 of the share of users", ylabel="neurons")
        dead = len(density) - len(alive)
        title = f"{dead} of {len(density)} neurons fire for none of {len(users):,} users"
        left.set_title(title, fontsize="small")
        right.hist(users[users > 0], bins=40, log=True)
        right.set(xlabel="activation where active", ylabel="neurons x users")
        figure.savefig(path, dpi=100, metadata={"Software": None})

    return draw


def _user_codes(run: Run) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    users = run.split.train[:_MOST_USERS]
    audience = Audience.of(
        run.recommender, run.sae, run.split.histories(users), run.config.max_length
    )
    return np.asarray(audience.code.numpy())


def _title(run: Run, item: int) -> str:
    items = run.catalogue.items
    title = textwrap.shorten(str(items["title"][item] or items["item_id"][item]), 34)
    return title.replace("$", r"\$")  # matplotlib reads dollars as mathematics
