"""Reports of single measures of finished runs: ranking, fidelity and best neurons."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

from training.errors import ConfigError
from training.evaluation.neurons import best_neurons
from training.evaluation.report import Curve, Estimate, Plot, Report, Table
from training.measures.fidelity import Fidelity, measure_fidelity
from training.measures.ranking import compare
from training.run import Run


def ranking_report(runs: Sequence[Run], parsed: argparse.Namespace, command: str) -> Report:
    """Compares each recommender with EASE, PureSVD and popularity."""
    per_run = [
        compare(run.recommender, run.config.recommender, run.split, run.config.max_length, parsed.n)
        for run in runs
    ]
    rows = [
        (
            same[0].method,
            Estimate.of([row.ndcg for row in same], same[0].ndcg_error),
            Estimate.of([row.recall for row in same]),
            Estimate.of([row.coverage for row in same]),
            ", ".join(dict.fromkeys(row.setting for row in same)),
        )
        for same in zip(*per_run, strict=True)
    ]
    columns = ("method", f"nDCG@{parsed.n}", f"recall@{parsed.n}", "coverage", "setting")
    shown = Table(_of(runs, f"lists of {parsed.n}"), columns, rows)
    curve = Curve("", [row[0] for row in rows], [row[1] for row in rows])
    figures = [
        {"run": str(run.path), "seed": run.config.seed, "methods": found}
        for run, found in zip(runs, per_run, strict=True)
    ]
    return Report(
        "ranking", f"Ranking: {_name(runs)}", command,
        (_ERRORS, "The references are tuned on the validation users."), (shown,),
        Plot("", columns[1], [curve]), figures,
    )  # fmt: skip


def fidelity_report(runs: Sequence[Run], parsed: argparse.Namespace, command: str) -> Report:
    """Reports the cost of each SAE's reconstruction."""
    found = [
        measure_fidelity(
            run.recommender, run.sae, run.split, run.split.test, run.config.max_length, parsed.n
        )
        for run in runs
    ]
    rows = [
        (
            name,
            Estimate.of([getattr(one, name) for one in found], _error(found[0], name)),
        )
        for name in Fidelity._fields
        if name != "ndcg_loss_error"
    ]
    sae = runs[0].sae
    title = _of(
        runs, f"{runs[0].config.sae}, k {sae.k}, {sae.n_neurons} neurons, lists of {parsed.n}"
    )
    figures = [
        {"run": str(run.path), "seed": run.config.seed, **one._asdict()}
        for run, one in zip(runs, found, strict=True)
    ]
    return Report(
        "fidelity", f"Fidelity: {_name(runs)}", command,
        (_ERRORS, "Mode RECONSTRUCT, no edit: what the SAE alone does to lists."),
        (Table(title, ("figure", "value"), rows),), None, figures,
    )  # fmt: skip


def neurons_report(runs: Sequence[Run], parsed: argparse.Namespace, command: str) -> Report:
    """Reports the best neuron of every concept of one run."""
    run = _one(runs)
    figures = best_neurons(run)
    title = f"{run.data_set}: best neuron per concept, {len(run.split.test)} test users, top 20"
    columns = ("concept", "neuron", "held-out AUC", "share moved", "most of any other")
    return Report(
        "neurons",
        f"Neurons: {run.data_set}",
        command,
        (),
        (Table(title, columns, figures),),
        None,
        figures,
    )


_ERRORS = "± is the standard error: over the runs, or, of a single run, over its test users."


def _one(runs: Sequence[Run]) -> Run:
    if len(runs) != 1:
        raise ConfigError(f"{len(runs)} runs given, expected one")
    return runs[0]


def _name(runs: Sequence[Run]) -> str:
    return f"{runs[0].data_set}, {runs[0].config.recommender} + {runs[0].config.sae}"


def _of(runs: Sequence[Run], what: str) -> str:
    users = ", ".join(str(len(run.split.test)) for run in runs)
    seeds = ", ".join(str(run.config.seed) for run in runs)
    return f"{runs[0].data_set}: {users} test users, seed {seeds}; {what}"


def _error(one: Fidelity, name: str) -> float | None:
    return (
        one.ndcg_loss_error if name == "ndcg_loss" and math.isfinite(one.ndcg_loss_error) else None
    )


def add_list_length(command: argparse.ArgumentParser) -> None:
    """Adds the flag for the length of the lists."""
    command.add_argument("--n", type=int, default=20, help="Length of the lists (default: 20).")
