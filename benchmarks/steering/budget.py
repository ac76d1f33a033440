"""Measures the time of solving budgets and target shares, and checks exactness.

Made-up vectors in clusters, a concept for each cluster, and users who are sums of items. Each case
is solved for one user after the other, in this process, without gRPC: the time is that of the stage
`solve`, as wall time and as processor time (the machine may be busy with other things), beside one
exact pass over the catalogue in the same run. Exact means: the list is the one that brute force
over the whole catalogue gives at the fraction found, and a step of 2^-24 further, or less, would
break the budget or miss the share. Several targets are solved in turn, and lifted ones have no
strength that is enough: there brute force has nothing to compare with.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from service.arrays import Floats
from service.engine.candidates import solve_candidates
from service.engine.query import Query
from service.ranking.measures import RELEVANCE_DEPTH, relevance_loss
from service.ranking.order import rank
from service.retrieval.exact_index import ExactIndex
from service.steering.plan import Bounds, Plan, TargetShare
from service.steering.solver.linear import STEPS, LinearScores, first_within, top_n
from service.steering.solver.solution import ScoredCandidates
from service.steering.steer import Steered
from service.telemetry.timings import Timings

N = 20
CONCEPTS = 40
MOVE = 0.2
"""Distance by which an edit moves a user, over the embedding's norm: a typical unit is 0.18 on the
demo's data (median of its 18 concepts), and a target share brings an edit of one."""


class BothTimes(Timings):
    """Wall time as ever, and this thread's processor time of the stage `solve`."""

    def __init__(self) -> None:
        super().__init__()
        self.solve_cpu_s = 0.0
        self._last_cpu_s = time.thread_time()

    def lap(self, stage: str) -> None:
        super().lap(stage)
        now = time.thread_time()
        self.solve_cpu_s += (now - self._last_cpu_s) * (stage == "solve")
        self._last_cpu_s = now


class World:
    """A catalogue in clusters, and what a user is asked."""

    def __init__(self, n_items: int, d: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        centres = rng.normal(size=(CONCEPTS, d))
        cluster = rng.choice(CONCEPTS, size=n_items, p=rng.dirichlet(np.full(CONCEPTS, 2.0)))
        V = centres[cluster] + 1.5 * rng.normal(size=(n_items, d))
        V /= np.linalg.norm(V, axis=1, keepdims=True)
        self.V = V.astype(np.float32)
        self.members = [cluster == concept for concept in range(CONCEPTS)]
        means = np.array([self.V[carriers].mean(axis=0) for carriers in self.members])
        toward = means - self.V.mean(axis=0)
        self.directions = (toward / np.linalg.norm(toward, axis=1, keepdims=True)).astype(
            np.float32
        )
        self.draw = rng
        items = np.hstack([self.V, np.zeros((n_items, 1), np.float32)])
        self.bundle: Any = SimpleNamespace(
            items=items,
            index=ExactIndex(items),
            encoder=SimpleNamespace(has_head=False, head=lambda z, _: z),
            catalogue=SimpleNamespace(allowed=lambda _: None),
            gain_of=None,
        )

    def user(self) -> tuple[Any, list[int]]:
        """Draws a user with 20 items of three concepts; returns these and two others."""
        concepts = self.draw.choice(CONCEPTS, 5, replace=False).tolist()
        near = np.flatnonzero(
            np.logical_or.reduce([self.members[concept] for concept in concepts[:3]])
        )
        z = self.V[self.draw.choice(near, 20)].sum(axis=0)
        return SimpleNamespace(z=z, context=np.empty(0, np.float32)), concepts

    def ask(
        self, state: Any, plan: Plan, moves: list[Floats], timings: Timings
    ) -> ScoredCandidates:
        length = MOVE * np.linalg.norm(state.z)
        parts = np.stack([length * move for move in moves])
        whole = Steered((), (), parts, None, None)
        query = Query(self.bundle, N, plan=plan)
        return solve_candidates(query, state, whole, np.empty(0, np.int64), timings)

    def share(self, concept: int, least: float, edit: int) -> TargetShare:
        return TargetShare(
            name=str(concept),
            members=self.members[concept],
            bounds=Bounds(least),
            edits=(edit,),
            own=True,
        )


def cases(world: World, concepts: list[int]) -> dict[str, tuple[Plan, list[int]]]:
    """Plans for a user, and the concepts whose directions their edits take."""
    liked, _, _, other, another = concepts
    both = (world.share(other, 0.25, 0), world.share(another, 0.25, 1))
    return {
        "budget .05, two edits": (Plan(max_relevance_loss=0.05), [other, another]),
        "budget .2, two edits": (Plan(max_relevance_loss=0.2), [other, another]),
        "share >= .7 of a liked concept": (Plan(targets=(world.share(liked, 0.7, 0),)), [liked]),
        "the same beside an edit, budget .1": (
            Plan(targets=(world.share(liked, 0.7, 0),), max_relevance_loss=0.1),
            [liked, other],
        ),
        "share >= .3 of another concept": (Plan(targets=(world.share(other, 0.3, 0),)), [other]),
        "shares >= .25 of two others": (Plan(targets=both), [other, another]),
        "the same, budget .1": (Plan(targets=both, max_relevance_loss=0.1), [other, another]),
    }


def is_exact(
    world: World, state: Any, plan: Plan, moves: list[Floats], found: ScoredCandidates
) -> bool | None:
    """Compares with brute force over the whole catalogue; None where that is not defined."""
    strengths = found.applied.targets
    if len(strengths) > 1 or any(strength.lift for strength in strengths):
        return None
    gains = [
        np.vecdot(world.V, MOVE * np.linalg.norm(state.z) * move).astype(np.float64)
        for move in moves
    ]
    plain = np.vecdot(world.V, state.z)
    weights = [strengths[0].fraction if strengths and e == 0 else 1.0 for e in range(len(moves))]
    if not strengths:  # the edits of no target move z together
        move = sum((MOVE * np.linalg.norm(state.z) * m for m in moves), np.zeros_like(state.z))
        slope = np.vecdot(world.V, move).astype(np.float64)
    else:
        slope = np.sum([w * gain for w, gain in zip(weights, gains, strict=True)], axis=0)
    t = found.applied.fraction
    whole = LinearScores(plain.astype(np.float64), slope)
    listed = found.items[top_n(np.asarray(found.scores, np.float64), N)]
    right = set(listed.tolist()) == set(top_n(whole.at(t), N).tolist())
    if plan.max_relevance_loss is not None and t < 1.0:
        unsteered = rank(np.arange(len(plain)), plain, RELEVANCE_DEPTH).scores
        beyond = plain[top_n(whole.at(t + 1 / STEPS), N)]
        right &= relevance_loss(unsteered, plain[listed]) <= plan.max_relevance_loss
        right &= relevance_loss(unsteered, beyond) > plan.max_relevance_loss
    if strengths:
        base = plain + sum(gains[1:], np.zeros(len(plain)))
        carriers = plan.targets[0].members
        first = first_within(
            LinearScores(base, gains[0]), carriers, N, plan.targets[0].bounds.counts(N, 0)
        )
        right &= first is not None and first - 1 / STEPS < strengths[0].fraction <= first
    return right


def measure(world: World, rounds: int, checks: int) -> dict[str, dict[str, float]]:
    wall: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    exact: dict[str, list[bool | None]] = {}
    passes: list[float] = []
    for turn in range(rounds + 5):
        state, concepts = world.user()
        start = time.thread_time()
        world.bundle.index.search(state.z[None], N)
        passes.append(time.thread_time() - start)
        for name, (plan, moved) in cases(world, concepts).items():
            moves = [world.directions[concept] for concept in moved]
            timings = BothTimes()
            found = world.ask(state, plan, moves, timings)
            if turn < 5:  # warm up
                continue
            wall.setdefault(name, []).append(timings.stages["solve"])
            cpu.setdefault(name, []).append(timings.solve_cpu_s)
            if turn < 5 + checks:
                exact.setdefault(name, []).append(is_exact(world, state, plan, moves, found))
    one_pass = float(np.median(passes[5:]))
    return {
        name: {
            "p50_ms": 1e3 * float(np.quantile(wall[name], 0.5)),
            "p95_ms": 1e3 * float(np.quantile(wall[name], 0.95)),
            "cpu_p50_ms": 1e3 * float(np.quantile(cpu[name], 0.5)),
            "cpu_p95_ms": 1e3 * float(np.quantile(cpu[name], 0.95)),
            "cpu_p50_of_a_pass": float(np.quantile(cpu[name], 0.5)) / one_pass,
            "exact": sum(found is True for found in exact[name]),
            "checked": sum(found is not None for found in exact[name]),
        }
        for name in wall
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--items", type=int, default=40_000)
    parser.add_argument("--d", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=300, help="users, each with every case")
    parser.add_argument(
        "--checks", type=int, default=50, help="users whose solutions brute force checks"
    )
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    figures = measure(World(arguments.items, arguments.d), arguments.rounds, arguments.checks)
    table = Table(
        title=f"solving, n = {N}, {arguments.items:,} items, d = {arguments.d}, "
        f"{arguments.rounds} users, {os.cpu_count()} cores"
    )
    columns: list[tuple[str, Callable[[dict[str, float]], str]]] = [
        ("p50 ms", lambda row: f"{row['p50_ms']:.2f}"),
        ("p95 ms", lambda row: f"{row['p95_ms']:.2f}"),
        ("cpu p50", lambda row: f"{row['cpu_p50_ms']:.2f}"),
        ("cpu p95", lambda row: f"{row['cpu_p95_ms']:.2f}"),
        ("cpu p50 / pass", lambda row: f"{row['cpu_p50_of_a_pass']:.2f}"),
        ("exact", lambda row: f"{row['exact']:.0f} of {row['checked']:.0f}"),
    ]
    table.add_column("case", no_wrap=True)
    for heading, _ in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, row in figures.items():
        table.add_row(name, *(show(row) for _, show in columns))
    Console(width=120).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
