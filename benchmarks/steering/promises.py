"""Measures if replies keep the promises of requests and cards.

    python -m benchmarks.steering.promises --run RUN --out docs/results

Exports the run (or takes --bundle), starts trimtab-serve on it with its embedded Valkey, records
the held-out users' histories, and asks over gRPC for each user's list under target shares and
strengths of each concept. Shares are counted here, from the item ids of the replies and the run's
own catalogue, not read from reports.
"""

import argparse
import asyncio
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from trimtab import AsyncClient, Client
from trimtab.v1.recommendation_pb2 import RecommendResponse

from benchmarks.serving.servers import trimtab_server
from benchmarks.steering.promises_report import (
    RAISED,
    UNSTEERED,
    Curves,
    Kept,
    Promises,
    Together,
    promises_report,
)
from training.concepts.effect import Audience
from training.concepts.fitting import FittedConcept
from training.concepts.membership import memberships
from training.evaluation.report import Estimate, Report
from training.measures.metrics import Lists, exposure_share, ndcg, overlap
from training.run import Run, load_run
from training.studies.frontier.audience import Users
from training.studies.frontier.linear_scores import LinearScores
from training.studies.frontier.relevance import places

N = 20
COMMAND = "python -m benchmarks.steering.promises --run RUN --out docs/results"
CALLS_AT_ONCE = 8
PAIRED = 5
STRENGTHS = (1.0, -1.0)
"""Strengths of ADD, in typical units."""
BOOSTS = (0.2, -0.2)
Bounds = tuple[float | None, float | None]


class World(NamedTuple):
    """A run's users and concepts, and the server; flags [n_concepts, n_items]: their items."""

    run: Run
    users: NDArray[np.int64]
    concepts: list[FittedConcept]
    flags: NDArray[np.bool_]
    target: str

    def counts(self, lists: Lists, row: int) -> NDArray[np.int64]:
        """Counts a concept's items in each list."""
        counts: NDArray[np.int64] = (self.flags[row][lists] & (lists >= 0)).sum(axis=1)
        return counts


class Replies(NamedTuple):
    """Replies of the users who were asked for, [asked]: rows, lists, figures of the reports."""

    rows: NDArray[np.int64]
    lists: Lists
    losses: NDArray[np.float64]
    met: NDArray[np.bool_]
    lifted: NDArray[np.bool_]


Ask = Callable[[int], dict[str, Any] | None]
"""Gives the arguments of Client.recommend for a user's row; None leaves the user out."""


def always(**arguments: Any) -> Ask:
    """Asks the same of every user."""
    return lambda _: arguments


async def _ask(world: World, ask: Ask) -> Replies:
    asked = [(row, ask(row)) for row in range(len(world.users))]
    wanted = [(row, arguments) for row, arguments in asked if arguments is not None]
    free = asyncio.Semaphore(CALLS_AT_ONCE)

    async with AsyncClient(world.target, timeout=30) as client:

        async def one(row: int, arguments: dict[str, Any]) -> RecommendResponse:
            async with free:
                return await client.recommend(
                    str(world.users[row]), n=N, include_report=True, **arguments
                )

        replies = await asyncio.gather(*(one(row, arguments) for row, arguments in wanted))
    return _read(world.run, [row for row, _ in wanted], replies)


def _read(run: Run, rows: Sequence[int], replies: Sequence[RecommendResponse]) -> Replies:
    """Reads lists and reports of the replies to some users' requests."""
    item_ids = run.catalogue.items["item_id"].to_list()
    index = {item_id: row for row, item_id in enumerate(item_ids)}
    lists = np.full((len(replies), N), -1, dtype=np.int64)
    for row, reply in enumerate(replies):
        lists[row, : len(reply.items)] = [index[item.item_id] for item in reply.items]
    reports = [reply.report for reply in replies]
    return Replies(
        np.array(rows, dtype=np.int64),
        lists,
        np.array([report.relevance_loss for report in reports]),
        np.array([all(target.met for target in report.targets) for report in reports]),
        np.array([any(target.lift != 0.0 for target in report.targets) for report in reports]),
    )


def ask(world: World, what: Ask) -> Replies:
    """Asks one question about every user."""
    return asyncio.run(_ask(world, what))


class Asked(NamedTuple):
    """The replies to a question, [asked], and the nDCG lost, [users], NaN where not asked."""

    bound: NDArray[np.float64]
    given: NDArray[np.float64]
    kept: NDArray[np.bool_]
    said_so: NDArray[np.bool_]
    beyond: NDArray[np.float64]
    lifted: NDArray[np.bool_]
    relevance_loss: NDArray[np.float64]
    ndcg_loss: NDArray[np.float64]


def at_least(share: float) -> Callable[[int], Bounds | None]:
    """Bounds a share from below, whatever the unsteered list has."""
    return lambda _: (share, None)


def at_most_half(count: int) -> Bounds | None:
    """Bounds a share by half of the unsteered list's; None where that has no item."""
    return (None, (count // 2) / N) if count else None


def ask_shares(
    world: World, plain: Lists, rows: Sequence[int], bounds_of: Callable[[int], Bounds | None]
) -> Asked:
    """Asks one request for each user, with a target for each concept.

    rows: the concepts; plain: the unsteered lists.
    """
    names = [world.concepts[row].name for row in rows]
    counts = np.stack([world.counts(plain, row) for row in rows], axis=1)
    bounds = [[bounds_of(count) for count in user] for user in counts.tolist()]

    def question(user: int) -> dict[str, Any] | None:
        return (
            None
            if None in bounds[user]
            else {"shares": dict(zip(names, bounds[user], strict=True))}
        )

    found = ask(world, question)
    given = np.stack([world.counts(found.lists, row) for row in rows], axis=1) / N
    asked = np.array([bounds[user] for user in found.rows], dtype=np.float64)  # None becomes NaN
    low = np.nan_to_num(asked[..., 0], nan=0.0)
    high = np.nan_to_num(asked[..., 1], nan=1.0)
    kept: NDArray[np.bool_] = np.all(np.maximum(low - given, given - high) < 1e-6, axis=1)
    bound = np.where(low > 0, low, high)
    targets = world.run.split.targets(world.users[found.rows])
    lost = np.full(len(plain), np.nan)
    lost[found.rows] = ndcg(plain[found.rows], targets) - ndcg(found.lists, targets)
    return Asked(
        bound.mean(axis=1),
        given.mean(axis=1),
        kept,
        found.met == kept,
        np.where(low > 0, given - low, high - given).clip(0).mean(axis=1),
        found.lifted,
        found.losses,
        lost,
    )


def summed(promise: str, questions: Sequence[Asked]) -> Kept:
    """Averages all requests of one kind."""

    def mean(of: Callable[[Asked], NDArray[Any]]) -> float:
        return float(np.concatenate([of(one) for one in questions]).mean())

    return Kept(
        promise=promise,
        requests=sum(len(one.bound) for one in questions),
        asked=mean(lambda one: one.bound),
        given=mean(lambda one: one.given),
        kept=mean(lambda one: one.kept),
        said_so=mean(lambda one: one.said_so),
        beyond=mean(lambda one: one.beyond),
        lifted=mean(lambda one: one.lifted),
        relevance_loss=mean(lambda one: one.relevance_loss),
        ndcg_loss=over_users([one.ndcg_loss for one in questions]),
    )


def shares(world: World, plain: Lists) -> tuple[list[Kept], list[Together]]:
    """Measures target shares of every concept alone, and of pairs of the most frequent ones."""
    every = range(len(world.concepts))
    paired = list(itertools.combinations(every[:PAIRED], 2))
    kept = []
    together = []
    for name, bounds_of in KINDS.items():
        single = [ask_shares(world, plain, (row,), bounds_of) for row in every]
        double = [ask_shares(world, plain, rows, bounds_of) for rows in paired]
        kept += [summed(name, single), summed(f"two, each {name}", double)]
        both = [one.ndcg_loss for one in double]
        alone = [
            np.where(np.isfinite(lost), single[one].ndcg_loss + single[two].ndcg_loss, np.nan)
            for lost, (one, two) in zip(both, paired, strict=True)
        ]
        apart = [left - right for left, right in zip(both, alone, strict=True)]
        together.append(Together(name, over_users(both), over_users(alone), over_users(apart)))
    return kept, together


KINDS: dict[str, Callable[[int], Bounds | None]] = {
    "at least 0.3": at_least(0.3),
    "at least 0.5": at_least(0.5),
    "at most half": at_most_half,
}


def over_users(columns: Sequence[NDArray[np.float64]]) -> Estimate:
    """Averages over questions, with users as clusters; NaN: a user was not asked for."""
    stacked = np.stack(columns)
    known = np.isfinite(stacked)
    total = np.where(known, stacked, 0.0).sum(axis=0)
    count = known.sum(axis=0)
    mean = float(total.sum() / count.sum())
    residual = total - mean * count
    return Estimate(mean, float(np.sqrt((residual**2).sum()) / count.sum()))


def strengths(world: World) -> Iterator[Curves]:
    """Yields every concept unsteered, at each strength of ADD and at each of BOOST."""
    histories = world.run.split.histories(world.users)
    audience = Audience.of(
        world.run.recommender, world.run.sae, histories, world.run.config.max_length
    )
    unsteered = audience.lists()
    users = Users.of(world.run, world.users)
    order = LinearScores(places(users.base), np.zeros(users.base.shape[1], np.float32))
    plain = ask(world, always())
    for row, concept in enumerate(world.concepts):
        flags = world.flags[row]
        yield _curves(concept, UNSTEERED, concept.unsteered_share, unsteered, plain.lists, flags)
        for strength in STRENGTHS:
            offline = audience.lists(torch.from_numpy(strength * concept.unit * concept.weights))
            served = ask(world, always(steer={concept.name: strength}))
            card = concept.steered_share if strength == 1.0 else None
            edit = RAISED if strength == 1.0 else f"ADD {strength:+g}"
            yield _curves(concept, edit, card, offline, served.lists, flags)
        for strength in BOOSTS:
            offline = order._replace(gain=flags.astype(np.float32)).lists(strength)
            text = f'"{concept.name}":boost={strength}'
            served = ask(world, always(steer=[text]))
            yield _curves(concept, f"BOOST {strength:+g}", None, offline, served.lists, flags)


def _curves(
    concept: FittedConcept,
    edit: str,
    card: float | None,
    offline: Lists,
    served: Lists,
    flags: NDArray[np.bool_],
) -> Curves:
    one = exposure_share(offline, flags)
    two = exposure_share(served, flags)
    return Curves(
        concept.name,
        edit,
        card,
        Estimate.over_users(one),
        Estimate.over_users(two),
        Estimate.over_users(two - one),
        float(overlap(offline, served).mean()),
    )


def measure(world: World) -> Report:
    """Records the users' histories, asks all questions, and builds the report."""
    items = world.run.catalogue.items["item_id"].to_list()
    histories = world.run.split.histories(world.users)
    with Client(world.target) as client:
        client.record(
            (str(user), items[item])
            for user, start, stop in zip(
                world.users, histories.offsets[:-1], histories.offsets[1:], strict=True
            )
            for item in histories.items[start:stop].tolist()
        )
    plain = ask(world, always()).lists
    kept, together = shares(world, plain)
    run = world.run
    asked = f"{len(world.users)} test users, {len(world.concepts)} concepts"
    unsteered = Estimate.over_users(ndcg(plain, run.split.targets(world.users)))
    of = f"{run.data_set}, seed {run.config.seed}, {asked}"
    found = Promises(of, N, unsteered, kept, together, list(strengths(world)))
    return promises_report(found, run.data_set, COMMAND)


def world_of(run: Run, users: int, concepts: int, target: str) -> World:
    """Test users drawn at random, and the concepts of most items."""
    rng = np.random.default_rng([run.config.seed, 0x17])
    chosen = np.sort(rng.permutation(run.split.test)[:users])
    members = memberships(run.catalogue, run.config.concepts)
    frequent = sorted(run.concepts, key=lambda one: -one.item_count)[:concepts]
    rows = [members.names.index(one.name) for one in frequent]
    return World(run, chosen, frequent, members.matrix[rows].toarray() > 0, target)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run", type=Path, required=True, help="directory that trimtab-train wrote"
    )
    parser.add_argument("--bundle", type=Path, help="its bundle; made anew without")
    parser.add_argument("--users", type=int, default=1_000)
    parser.add_argument("--concepts", type=int, default=20)
    parser.add_argument("--out", type=Path, required=True, help="folder for the report")
    parser.add_argument("--name", default="promises", help="the report's; default promises")
    parsed = parser.parse_args()
    torch.set_num_threads(1)
    run = load_run(parsed.run)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="trimtab-promises-") as folder:
        bundle = parsed.bundle or Path(folder) / "bundle"
        if parsed.bundle is None:
            export = Path(sys.executable).with_name("trimtab-export")
            subprocess.run([export, parsed.run, "--out", bundle], check=True)
        with trimtab_server(bundle, Path(folder) / "data", Path(folder) / "server.log") as server:
            world = world_of(run, parsed.users, parsed.concepts, server.target)
            report = measure(world)
    replace(report, name=parsed.name, seconds=time.monotonic() - began).write(parsed.out)
    print((parsed.out / f"{parsed.name}.md").read_text())


if __name__ == "__main__":
    main()
