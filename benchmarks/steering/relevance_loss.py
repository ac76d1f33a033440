"""Relates the relevance loss that a budget allows to held-out nDCG.

For every held-out test user of a run and every concept of its bundle, an edit of so many typical
units is applied as far as each budget allows; the lists are judged by the items held out of the
users' histories. In this process, without gRPC. The change of nDCG is relative to the unsteered
lists, with its standard error over users.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.sparse import csr_matrix

from service.batching.joint_calls import run_alone
from service.bundle.bundle import Bundle
from service.bundle.history import Event, EventKind
from service.bundle.open import open_bundle
from service.engine.compute import answer
from service.engine.query import Query
from service.steering.edits import Operation, RawEdit
from service.steering.plan import NO_PLAN, Plan
from service.telemetry.timings import Timings
from service.users.state import UNKNOWN_USER
from training.measures.metrics import ndcg
from training.run import load_run

N = 20
BUDGETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)


def lists(
    bundle: Bundle, histories: list[tuple[Event, ...]], plan: Plan
) -> tuple[np.ndarray, np.ndarray]:
    """Every user's list [users, N], and its relevance loss [users]."""
    items = []
    losses = []
    for history in histories:
        query = Query(bundle, N, history=history, plan=plan, include_report=True)
        reply = run_alone(answer(query, UNKNOWN_USER, Timings()))
        assert reply.report
        items.append(reply.ranking.items)
        losses.append(reply.report.relevance_loss)
    return np.array(items), np.array(losses)


def measure(run_dir: Path, bundle: Bundle, units: float, users: int) -> list[dict[str, float]]:
    run = load_run(run_dir)
    rows = run.split.test[:users]
    seen = run.split.histories(rows)
    held_out = run.split.target_items.rows(rows)
    shape = (len(rows), run.split.n_items)
    targets = csr_matrix(
        (np.ones(len(held_out.items)), held_out.items, held_out.offsets), shape=shape
    )
    events = [
        Event(item_id, EventKind.LIKE) for item_id in run.catalogue.items["item_id"].to_list()
    ]
    bounds = zip(seen.offsets[:-1], seen.offsets[1:], strict=True)
    histories = [tuple(events[item] for item in seen.items[start:stop]) for start, stop in bounds]
    plain = ndcg(lists(bundle, histories, NO_PLAN)[0], targets)
    figures = []
    for budget in BUDGETS:
        lost = []
        losses = []
        for concept in bundle.labels.concepts:
            edit = RawEdit(concept.target, Operation.ADD, units * concept.target.unit)
            found, loss = lists(bundle, histories, Plan((edit,), max_relevance_loss=budget))
            lost.append(plain - ndcg(found, targets))
            losses.append(loss)
        of_users = np.mean(lost, axis=0) / plain.mean()
        figures.append(
            {
                "budget": budget,
                "users": len(rows),
                "relevance_loss": float(np.mean(losses)),
                "ndcg_loss": float(of_users.mean()),
                "error": float(of_users.std(ddof=1) / np.sqrt(len(of_users))),
            }
        )
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", type=Path, default=Path(".demo/run"))
    parser.add_argument("--bundle", type=Path, default=Path(".demo/bundle"))
    parser.add_argument("--units", type=float, default=3.0, help="typical units of each edit")
    parser.add_argument("--users", type=int, default=1_000)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    bundle = open_bundle(arguments.bundle)
    figures = measure(arguments.run, bundle, arguments.units, arguments.users)
    concepts = len(bundle.labels.concepts)
    users = f"n = {N}, {figures[0]['users']} test users"
    title = f"{arguments.units:g} units of each of {concepts} concepts, {users}"
    table = Table(title=title)
    for column in ("budget", "relevance loss", f"nDCG@{N} lost", "standard error"):
        table.add_column(column, justify="right")
    for row in figures:
        table.add_row(f"{row['budget']:g}", *(f"{row[key]:.1%}" for key in list(row)[2:]))
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
