"""Reports of single measures of finished runs: ranking, fidelity and best neurons."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

from training.evaluation.neurons import best_neurons
from training.evaluation.report import Curve, Estimate, Plot, Report, Table
from training.evaluation.runs import only_run, run_name, seeds_of
from training.measures.fidelity import Fidelity, measure_fidelity
from training.measures.ranking import compare
from training.run import Run

_ERRORS = "± is the standard error: over the runs, or, of a single run, over its test users."


def add_list_length(command: argparse.ArgumentParser) -> None:
    """Adds the flag for the length of the lists."""
    command.add_argument("--n", type=int, default=20, help="Length of the lists (default: 20).")


def ranking_report(runs: Sequence[Run], parsed: argparse.Namespace, command: str) -> Report:
    """Compares each recommender with EASE, PureSVD and popularity."""
    n = parsed.n
    per_run = [
        compare(run.recommender, run.config.recommender, run.split, run.config.max_length, n)
        for run in runs
    ]
    methods = list(zip(*per_run, strict=True))
    ndcg = [Estimate.of([row.ndcg for row in same], same[0].ndcg_error) for same in methods]
    rows = [
        (
            same[0].method,
            own_ndcg,
            Estimate.of([row.recall for row in same]),
            Estimate.of([row.coverage for row in same]),
            ", ".join(dict.fromkeys(row.setting for row in same)),
        )
        for same, own_ndcg in zip(methods, ndcg, strict=True)
    ]
    columns = ("method", f"nDCG@{n}", f"recall@{n}", "coverage", "setting")
    return Report(
        name="ranking",
        title=f"Ranking: {run_name(runs[0])}",
        command=command,
        paragraphs=(_ERRORS, "The references are tuned on the validation users."),
        tables=(Table(_title(runs, f"lists of {n}"), columns, rows),),
        plot=Plot("", f"nDCG@{n}", [Curve("", [same[0].method for same in methods], ndcg)]),
        figures=[
            {"run": str(run.path), "seed": run.config.seed, "methods": methods}
            for run, methods in zip(runs, per_run, strict=True)
        ],
    )


def fidelity_report(runs: Sequence[Run], parsed: argparse.Namespace, command: str) -> Report:
    """Reports the cost of each SAE's reconstruction."""
    measured = [
        measure_fidelity(
            run.recommender, run.sae, run.split, run.split.test, run.config.max_length, parsed.n
        )
        for run in runs
    ]
    rows = [
        (name, Estimate.of([getattr(one, name) for one in measured], _error(measured[0], name)))
        for name in Fidelity._fields
        if name != "ndcg_loss_error"
    ]
    sae = runs[0].sae
    about = f"{runs[0].config.sae}, k {sae.k}, {sae.n_neurons} neurons, lists of {parsed.n}"
    return Report(
        name="fidelity",
        title=f"Fidelity: {run_name(runs[0])}",
        command=command,
        paragraphs=(_ERRORS, "Mode RECONSTRUCT, no edit: what the SAE alone does to lists."),
        tables=(Table(_title(runs, about), ("figure", "value"), rows),),
        plot=None,
        figures=[
            {"run": str(run.path), "seed": run.config.seed, **one._asdict()}
            for run, one in zip(runs, measured, strict=True)
        ],
    )


def neurons_report(runs: Sequence[Run], parsed: argparse.Namespace, command: str) -> Report:
    """Reports the best neuron of every concept of one run."""
    del parsed  # has no flags of this report
    run = only_run(runs)
    figures = best_neurons(run)
    title = f"{run.data_set}: best neuron per concept, {len(run.split.test)} test users, top 20"
    columns = ("concept", "neuron", "held-out AUC", "share moved", "most of any other")
    return Report(
        name="neurons",
        title=f"Neurons: {run.data_set}",
        command=command,
        paragraphs=(),
        tables=(Table(title, columns, figures),),
        plot=None,
        figures=figures,
    )


def _title(runs: Sequence[Run], about: str) -> str:
    users = ", ".join(str(len(run.split.test)) for run in runs)
    return f"{runs[0].data_set}: {users} test users, seed {seeds_of(runs)}; {about}"


def _error(one: Fidelity, name: str) -> float | None:
    """Returns the standard error over the users of a single run, where it is known."""
    known = name == "ndcg_loss" and math.isfinite(one.ndcg_loss_error)
    return one.ndcg_loss_error if known else None
