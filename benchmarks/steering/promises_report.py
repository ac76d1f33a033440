"""Builds the report of promises.py: questions and replies."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from training.evaluation.report import Curve, Estimate, Plot, Report, Table

UNSTEERED = "none"
RAISED = "ADD +1"
"""Edits of Curves that the report looks for."""
ABOUT = """\
A running `trimtab-serve`, asked over gRPC by `trimtab.AsyncClient` for lists of {n}. The users
are held out of training; their histories were recorded. Unsteered nDCG@{n} on their held-out
items: {ndcg}. A concept's items are counted in the replies by the run's catalogue.

A target share is kept if the list has the number of items that was asked for, or more (or fewer,
for "at most"). Report right: share of replies whose `met` agrees. Beyond: distance past the
bound. Lifted: share of requests for which no ADD of up to one typical unit was enough. Asked and
given are means over requests; "at most half" asks for no more than half of the items that the
user's unsteered list has, and only where it has any. ± is the standard error, users being
clusters.

The card's shares were measured offline on validation users when the concept was fitted, at
strengths 0 and +1; "offline" is the same users' lists by torch, and for BOOST by the evaluation's
own rank transform."""


class Kept(NamedTuple):
    """Means over the requests of one kind of target share."""

    promise: str
    requests: int
    asked: float
    given: float
    kept: float
    said_so: float
    beyond: float
    lifted: float
    relevance_loss: float
    ndcg_loss: Estimate


class Together(NamedTuple):
    """NDCG lost by two targets at once, by both alone, and the difference, of the same users."""

    promise: str
    both: Estimate
    alone: Estimate
    apart: Estimate


class Curves(NamedTuple):
    """A concept under one edit: mean exposure shares by the card, offline, and served."""

    concept: str
    edit: str
    card: float | None
    offline: Estimate
    served: Estimate
    apart: Estimate
    overlap: float


class Promises(NamedTuple):
    """All figures; of names the data."""

    of: str
    n: int
    unsteered_ndcg: Estimate
    kept: Sequence[Kept]
    together: Sequence[Together]
    curves: Sequence[Curves]


def promises_report(found: Promises, data_set: str, command: str) -> Report:
    """Builds the tables, and a plot of cards and replies."""
    edits = list(dict.fromkeys(one.edit for one in found.curves))
    lost = f"nDCG@{found.n} lost"
    tables = [
        Table(
            f"{found.of}: shares promised and given",
            (*_KEPT, lost),
            [_row(one) for one in found.kept],
        ),
        Table(f"{found.of}: two at once, {lost}", _TOGETHER, found.together),
        Table(
            f"{found.of}: strength", _DISTANCES, [_distances(found.curves, edit) for edit in edits]
        ),
        Table(f"{found.of}: each concept, mean exposure share", _EACH, list(_each(found.curves))),
    ]
    raised = [one for one in found.curves if one.edit == RAISED]
    names = [one.concept for one in raised]
    cards = Curve("card", names, [Estimate(one.card or 0.0, None) for one in raised])
    served = Curve("replies", names, [one.served for one in raised])
    plot = Plot("", "mean exposure share at strength +1", [cards, served])
    about = ABOUT.format(n=found.n, ndcg=found.unsteered_ndcg)
    return Report("promises", f"Promises: {data_set}", command, (about,), tables, plot, found)


_KEPT = (
    *("target share", "requests", "asked", "given", "kept"),
    *("report right", "beyond", "lifted", "relevance loss"),
)
_TOGETHER = ("promise", "both", "sum of each alone", "difference")
_DISTANCES = (
    *("edit", "concepts", "replies from card: mean", "most"),
    *("replies from offline: mean", "most", "overlap"),
)
_EACH = ("concept", "card at 0", "replies at 0", "card at +1", "offline at +1", "replies at +1")


def _row(one: Kept) -> tuple[object, ...]:
    return (
        one.promise,
        f"{one.requests:,}",
        f"{one.asked:.3f}",
        f"{one.given:.3f}",
        f"{one.kept:.2%}",
        f"{one.said_so:.2%}",
        f"{one.beyond:.3f}",
        f"{one.lifted:.0%}",
        f"{one.relevance_loss:.3f}",
        one.ndcg_loss,
    )


def _distances(curves: Sequence[Curves], edit: str) -> tuple[object, ...]:
    own = [one for one in curves if one.edit == edit]
    cards = [abs(one.served.mean - one.card) for one in own if one.card is not None]
    apart = [abs(one.apart.mean) for one in own]
    from_card = (float(np.mean(cards)), max(cards)) if cards else (None, None)
    same = float(np.mean([one.overlap for one in own]))
    return edit, len(own), *from_card, float(np.mean(apart)), max(apart), same


def _each(curves: Sequence[Curves]) -> Iterator[tuple[object, ...]]:
    by_key = {(one.concept, one.edit): one for one in curves}
    for name in dict.fromkeys(one.concept for one in curves):
        zero = by_key[name, UNSTEERED]
        one = by_key[name, RAISED]
        yield name, zero.card, zero.served, one.card, one.offline, one.served
