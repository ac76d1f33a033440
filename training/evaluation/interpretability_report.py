"""The report of trimtab-evaluate interpretability: tables, probe curves, neuron cards, activations."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable, Sequence
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
from training.run import Run

_CARDS = 6
_CARD_ITEMS = 6
_MOST_USERS = 2_000
"""Training users on whom activations are drawn, so that cards show them as the bundle measures them."""
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
    """Figures of all runs, and cards and activations of the first."""
    if parsed.concepts < 1:
        raise ConfigError(f"--concepts is {parsed.concepts}, expected at least 1")
    found = [interpret(run, parsed.concepts) for run in runs]
    shares = stability(runs) if len(runs) > 1 else {}
    per_representation = list(zip(*found, strict=True))
    names = [same[0].representation for same in per_representation]
    rows: list[list[object]] = [
        [title, *(_known([getattr(one, field) for one in same]) for same in per_representation)]
        for title, field in _ROWS.items()
    ]
    if shares:
        rows.append(
            [
                f"partner of cosine >= {SAME_COSINE} in another run, share",
                *map(Estimate.of, shares.values()),
            ]
        )
    curves = [_probe_curve(same) for same in per_representation]
    probes = [[curve.name, *curve.y] for curve in curves]
    run = runs[0]
    name = f"{run.data_set}, {run.config.recommender} + {run.config.sae}"
    about = f"{name}: seed {', '.join(str(one.config.seed) for one in runs)}"
    figures = {"runs": [str(one.path) for one in runs], "measured": found, "stability": shares}
    return Report(
        "interpretability", f"Interpretability: {name}", command, _PARAGRAPHS,
        (
            Table(f"{about}; AUC on held-out items of probes of so many neurons",
                  ("representation", *map(str, PROBE_SIZES)), probes),
            Table(f"{about}; neurons", ("figure", *names), rows),
        ),
        Plot("neurons of the probe", "AUC on held-out items, mean over concepts", curves), figures,
        pictures=(
            Picture("cards", "Cards of the neurons of most confident labels", _cards_of(run)),
            Picture("activations", "How often and how strongly neurons fire in users", _activations_of(run)),
        ),
    )  # fmt: skip


_PARAGRAPHS = (
    "± is the standard error over the runs (for partners: over the pairs, both ways).",
    "Numbers of items are codes of one-item histories. A raw dimension of the user embedding counts as two "
    "neurons, its positive and its negative side; the untrained SAE has the trained one's shape and random "
    "weights. Descriptions are made of attribute values and tested on items that they were not made from; "
    "partners are compared by what they do to the scores of the items that both runs know.",
)


def _probe_curve(same: Sequence[Interpretability]) -> Curve:
    values = np.array([one.probe_aucs for one in same])
    return Curve(
        same[0].representation,
        list(PROBE_SIZES),
        [Estimate.of(list(column)) for column in values.T],
    )


def _known(values: Sequence[float]) -> Estimate | None:
    """Over the runs that have the figure: where no description is confident, none has a precision."""
    known = [value for value in values if np.isfinite(value)]
    return Estimate.of(known) if known else None


def _cards_of(run: Run) -> Callable[[Path], None]:
    """Draws the cards of the neurons whose tested descriptions did best."""

    def score(labels: Sequence[Label]) -> float:
        return max((label.score for label in labels if label.method == DICTIONARY), default=-1.0)

    def draw(path: Path) -> None:
        from matplotlib.figure import Figure

        codes = item_codes(run.recommender, run.sae, run.config.max_length).tocsc()
        users = _user_codes(run)
        best = sorted(range(run.sae.n_neurons), key=lambda neuron: -score(run.labels[neuron]))[
            :_CARDS
        ]
        figure = Figure(figsize=(11, 6.5), layout="constrained")
        for axes, neuron in zip(figure.subplots(2, 3).flat, best, strict=False):
            column = slice(codes.indptr[neuron], codes.indptr[neuron + 1])
            order = np.argsort(-codes.data[column])[:_CARD_ITEMS]
            titles = [_title(run, int(item)) for item in codes.indices[column][order]]
            active = users[:, neuron][users[:, neuron] > 0]
            axes.hist(active, bins=20, color="tab:blue", alpha=0.5)
            label = run.labels[neuron][0] if run.labels[neuron] else None
            text = (
                "no label" if label is None else f"{label.text} ({label.method} {label.score:.2f})"
            )
            axes.set_title(f"#{neuron}: {textwrap.shorten(text, 44)}", fontsize="small")
            axes.text(
                0.98,
                0.95,
                "\n".join(titles),
                transform=axes.transAxes,
                ha="right",
                va="top",
                fontsize=7,
            )
            axes.set(xlabel="activation", ylabel="users")
        figure.savefig(path, dpi=100, metadata={"Software": None})

    return draw


def _activations_of(run: Run) -> Callable[[Path], None]:
    """Draws how dense neurons are over test users, and how strong where active."""

    def draw(path: Path) -> None:
        from matplotlib.figure import Figure

        users = _user_codes(run)
        density = (users > 0).mean(axis=0)
        figure = Figure(figsize=(9, 3.5), layout="constrained")
        left, right = figure.subplots(1, 2)
        alive = density[density > 0]
        left.hist(np.log10(alive), bins=30)
        left.set(xlabel="log10 of the share of users", ylabel="neurons")
        left.set_title(
            f"{len(density) - len(alive)} of {len(density)} neurons fire for none of {len(users):,} users",
            fontsize="small",
        )
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
    titles = run.catalogue.items["title"]
    # matplotlib reads dollars as mathematics.
    return textwrap.shorten(str(titles[item] or run.catalogue.items["item_id"][item]), 34).replace(
        "$", r"\$"
    )
