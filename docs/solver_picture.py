"""Draws how a target share is solved: python docs/solver_picture.py BUNDLE docs/images/solver.svg.

The list is solved by the service's own engine. The scores around it are computed here from the
bundle's item vectors, which is possible because the demo's model has an identity head.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import pyplot as plt
from trimtab.v1 import steering_pb2 as wire

from service.api.decode.steering import read_steering
from service.arrays import Bools, Floats, Ints
from service.batching.joint_calls import run_alone
from service.bundle.bundle import Bundle
from service.bundle.history import Event, EventKind
from service.bundle.open import open_bundle
from service.engine.compute import answer
from service.engine.query import Query
from service.ranking.order import score
from service.steering.solver.search_points import PARTS
from service.steering.solver.solve import MIN_DEPTH
from service.telemetry.timings import Timings
from service.users.state import UNKNOWN_USER

N = 20
SEARCH_POINTS = (0.0, *PARTS)
"""Strengths at which the solver searches for candidates."""

STEPS = 400
"""Strengths that are drawn."""

TOP_DRAWN = 8
"""Highest rank that is drawn: those above only make the rest smaller."""


class Solved(NamedTuple):
    """One solved list, and the scores of all allowed items on the path to it.

    Attributes:
        strength: The strength that the solver found, 0 to 1.
        asked: Least number of the concept's items in the list.
        start: Scores without steering, float32 [m].
        end: Scores at the largest strength, float32 [m].
        members: True for the concept's items, bool [m].
    """

    strength: float
    asked: int
    start: Floats
    end: Floats
    members: Bools

    def at(self, t: float) -> Floats:
        """Computes the scores at strength t: float32 [m]."""
        return self.start + np.float32(t) * (self.end - self.start)


def main() -> None:
    """Solves one target share and draws it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--history", default="127,187,132,483,488,603", help="item ids")
    parser.add_argument("--concept", default="Sci-Fi")
    parser.add_argument("--share", type=float, default=0.3)
    arguments = parser.parse_args()
    bundle = open_bundle(arguments.bundle)
    draw(
        solve(bundle, arguments.history.split(","), arguments.concept, arguments.share),
        arguments.concept,
        arguments.out,
    )


def solve(bundle: Bundle, history: list[str], concept: str, share: float) -> Solved:
    """Has the engine meet a least share of a concept, and computes the scores on its path."""
    target = wire.TargetShare(concept=concept, min_share=share)
    plan = read_steering(wire.Steering(targets=[target]), bundle)
    events = tuple(Event(item_id, EventKind.LIKE) for item_id in history)
    query = Query(bundle, n=N, history=events, plan=plan, include_report=True)
    reply = run_alone(answer(query, UNKNOWN_USER, Timings()))
    (strength,) = reply.applied.targets
    if strength.lift:
        raise SystemExit(f"expected a share that needs no lift, found lift {strength.lift:g}")
    allowed = _allowed(bundle, reply.audience.seen)
    z = reply.audience.state.z
    edit = plan.edits[-1]
    moved = z + np.float32(bundle.scale(z) * edit.strength) * edit.target.direction
    entry = bundle.labels.concept(concept)
    if entry is None:
        raise SystemExit(f"expected a concept of the bundle, found {concept!r}")
    members = bundle.catalogue.members(entry.attribute, entry.value)[allowed]
    return Solved(
        strength=strength.fraction,
        asked=round(share * N),
        start=score(bundle.items, allowed, z),
        end=score(bundle.items, allowed, moved),
        members=members,
    )


def draw(solved: Solved, concept: str, out: Path) -> None:
    """Draws the candidates' scores above the number of the concept's items in the list."""
    times = np.linspace(0.0, 1.0, STEPS + 1)
    scores = np.array([solved.at(t) for t in times])
    ranked = np.argsort(-scores, axis=1, kind="stable")[:, :N]
    counts = solved.members[ranked].sum(axis=1)
    last = np.take_along_axis(scores, ranked[:, -1:], axis=1)[:, 0]
    bounds = [np.sort(solved.at(t))[-MIN_DEPTH] for t in SEARCH_POINTS]

    plt.rcParams["svg.hashsalt"] = "trimtab"
    figure, (upper, lower) = plt.subplots(
        2, 1, figsize=(7.5, 6.5), sharex=True, height_ratios=[3, 1], layout="constrained"
    )
    for item in _drawn_items(solved):
        is_member = solved.members[item]
        upper.plot(
            [0, 1],
            [solved.start[item], solved.end[item]],
            color="tab:orange" if is_member else "0.75",
            linewidth=1.1 if is_member else 0.6,
            zorder=2 if is_member else 1,
        )
    upper.plot([], [], color="tab:orange", label=f"candidates that carry {concept}")
    upper.plot([], [], color="0.75", label="other candidates")
    upper.plot(times, last, color="black", linewidth=1.8, label=f"score at rank {N}")
    upper.plot(
        SEARCH_POINTS,
        bounds,
        "o--",
        color="tab:blue",
        label="bound on all other items; points: searches",
    )
    upper.set_ylim(min(bounds) - 0.05, np.sort(scores, axis=1)[:, -TOP_DRAWN].max())
    upper.set_ylabel("score")
    upper.legend(loc="center left", fontsize=8, framealpha=0.95)
    lower.step(times, counts, where="post", color="tab:orange", label=f"{concept} in the list")
    lower.axhline(solved.asked, color="0.4", linestyle=":", label=f"asked: {solved.asked} of {N}")
    lower.set_ylabel("items")
    lower.yaxis.get_major_locator().set_params(integer=True)
    lower.set_ylim(0, counts.max() + 1)
    lower.set_xlabel("strength t of the edit")
    lower.legend(loc="lower right", fontsize=8)
    for axes in (upper, lower):
        axes.axvline(solved.strength, color="tab:red", linewidth=1.2)
        axes.set_xlim(0, 1)
    lower.annotate(
        f"solved: t = {solved.strength:.4f}",
        (solved.strength, 0),
        xytext=(-6, 6),
        textcoords="offset points",
        ha="right",
        color="tab:red",
        fontsize=8,
    )
    figure.savefig(out, metadata={"Date": None})


def _allowed(bundle: Bundle, seen: Ints) -> Ints:
    """Lists the items that are not seen, ascending."""
    return np.setdiff1d(np.arange(len(bundle.catalogue)), seen)


def _drawn_items(solved: Solved) -> Ints:
    """Lists the candidates of all search points, which are the lines of the picture."""
    tops = [np.argsort(-solved.at(t), kind="stable")[:MIN_DEPTH] for t in SEARCH_POINTS]
    return np.unique(np.concatenate(tops))


if __name__ == "__main__":
    main()
