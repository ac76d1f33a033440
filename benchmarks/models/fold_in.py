"""Measures the cost of folding new users in by their history alone, for each way to do it.

    python -m benchmarks.models.fold_in --data ML-1M --cells CELLS [--report FOLDER]

Takes each model's options from the cells of references.py, and trains it twice for each seed:
without the test users, and with their history parts in the training. Resumes as references.py does.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.models.references import (
    SEEDS,
    SETTINGS,
    WHOLE,
    Bench,
    GivenScores,
    KnownItems,
    factorisation,
    load,
)
from training.checkpoint import Checkpoints, read_json, write_json
from training.evaluation.report import Estimate, Report, Table
from training.histories import Histories
from training.measures.ranking import judge, mean_ndcg
from training.measures.scorers import ModelScorer, Scorer
from training.recommenders import RECOMMENDERS, FitContext, Recommender
from training.recommenders.als import Als
from training.recommenders.factorisation import Factorisation
from training.recommenders.fitting.bpr import BprTask
from training.recommenders.fitting.factors import Factors
from training.recommenders.fitting.lightgcn import GraphFactors, LightGcnTask, mean
from training.recommenders.fitting.logistic import LogisticTask
from training.recommenders.lightgcn import Graph, LightGcn
from training.splits import Split

NAMES = {"ALS": "als", "BPR": "bpr", "logistic": "logistic", "LightGCN": "lightgcn"}
TRAINED = "trained on: their own factors"
TRAINED_FOLDED = "trained on: folded in"
STEP = "new: the step (as served)"
RIDGES = tuple(itertools.product((3.0, 30.0), (0.1, 1.0, 10.0, 100.0)))
"""Confidence, and penalty over the mean of V^T V's diagonal."""


class Fitted(NamedTuple):
    """A trained model and its training users' own factors [n_users, d]."""

    model: Recommender
    users: Tensor | None


class Newton(NamedTuple):
    """Folds users in by exact Newton steps of Factorisation's loss."""

    model: Factorisation
    steps: int

    def scores(self, histories: Histories) -> Tensor:
        """Computes scores [len(histories), n_items]."""
        rows = [self._row(torch.from_numpy(part.items)) for part in histories.batches(1)]
        return self.model.scores(torch.stack(rows))

    def _row(self, items: Tensor) -> Tensor:
        V, b = self.model.item_matrix()
        with_bias = torch.cat([V, torch.ones(len(V), 1)], dim=1)
        share = torch.bincount(items, minlength=len(V)) / len(items)
        weight = share + self.model.rule.negatives / len(V)
        penalties = torch.full((self.model.d + 1,), self.model.rule.penalty)
        penalties[-1] = 1e-4
        z = torch.zeros(self.model.d + 1)
        for _ in range(self.steps):
            p = torch.sigmoid(with_bias @ z + b)
            gradient = (weight * p - share) @ with_bias + penalties * z
            hessian = (
                with_bias.T @ ((weight * p * (1 - p)).unsqueeze(1) * with_bias) + penalties.diag()
            )
            z = z - torch.linalg.solve(hessian, gradient)
        return z[:-1]


def fitted(name: str, options: dict[str, Any], split: Split, seed: int) -> Fitted:
    """Trains a model as references.py does, and keeps what it learned of its users."""

    def validate(model: Recommender) -> float:
        return mean_ndcg(ModelScorer(model, WHOLE), split, split.validation)

    kind = RECOMMENDERS[NAMES[name]]
    torch.manual_seed(seed)
    settings = kind.options(**options)
    model = kind.build(settings, split.n_items, WHOLE)
    histories = split.histories(split.train)
    with tempfile.TemporaryDirectory() as folder:
        context = FitContext(split, WHOLE, seed, Checkpoints(Path(folder), every_s=1e9), validate)
        if name == "ALS":
            kind.fit(model, settings, context)
            return Fitted(model, None)
        assert isinstance(model, Factorisation)
        if isinstance(model, LightGcn):
            graph = GraphFactors(
                model, Graph(histories, split.n_items), histories.size, settings.layers
            )
            context.optimise(LightGcnTask(graph, settings, context), settings.schedule())
            return Fitted(model, mean(graph.layers()).users.detach())
        module = Factors(model, histories.size)
        task = BprTask if name == "BPR" else LogisticTask
        context.optimise(task(module, settings, context), settings.schedule())
        return Fitted(model, module.users.detach())


def ways(model: Recommender, chosen: dict[str, Any], split: Split) -> Iterator[tuple[str, Scorer]]:
    """Yields every way to fold a new user in.

    Settings of a way are the best ones of the validation users.
    """
    if isinstance(model, Als):
        for steps in (1, 2, 3, 5, 10):
            other = Als(model.n_items, model.d, model.confidence, model.penalty, steps)
            other.set_items(model.Y)
            served = " (as served)" if steps == model.steps else ""
            yield f"new: {steps} conjugate-gradient steps{served}", ModelScorer(other, WHOLE)
        return
    V, b = model.item_matrix()
    settings = {
        name: chosen.get(f"fold_in_{name}", getattr(model.rule, name))
        for name in ("negatives", "penalty")
    }
    step = factorisation(V, b, **settings)
    yield STEP, ModelScorer(step, WHOLE)
    yield "new: 1 Newton step, solved exactly", Newton(step, 1)
    yield "new: 5 Newton steps", Newton(step, 5)
    ridges = []
    for confidence, penalty in RIDGES:
        als = Als(
            len(V), V.shape[1], confidence, penalty * float(V.square().sum() / V.shape[1]), 20
        )
        als.set_items(V)
        ridges.append(ModelScorer(als, WHOLE))
    best = max(ridges, key=lambda scorer: mean_ndcg(scorer, split, split.validation))
    yield "new: ALS's equations on V", best
    if isinstance(model, LightGcn):
        propagating = LightGcn(model.n_items, model.d, model.rule, propagation=True)
        propagating.load_state_dict(model.state_dict())
        yield "new: propagation", ModelScorer(propagating, WHOLE)


def measured(bench: Bench, setting: str, name: str, seed: int) -> dict[str, float]:
    """Measures nDCG@20 of the test users for each way."""
    best = bench.kept(setting, name)[0]
    split = load(bench.data, SETTINGS[setting], seed)
    known = torch.from_numpy(split.popularity() > 0)

    def ndcg(scorer: Scorer) -> float:
        return judge("", KnownItems(scorer, known), split, split.test).ndcg

    alone = fitted(name, best.options, split, seed)
    cell = bench.cell(setting, name, best.options, seed)
    found = {way: ndcg(scorer) for way, scorer in ways(alone.model, cell.chosen, split)}
    train = np.sort(np.concatenate([split.train, split.test]))
    together = fitted(name, best.options, dataclasses.replace(split, train=train), seed)
    scorers = dict(ways(together.model, cell.chosen, split))
    served = next(way for way in scorers if way.endswith("(as served)"))
    found[TRAINED_FOLDED] = ndcg(scorers[served])
    if together.users is not None:
        own = together.model.scores(together.users[np.searchsorted(train, split.test)])
        keys = (part.items.tobytes() for part in split.histories(split.test).batches(1))
        found[TRAINED] = ndcg(GivenScores(dict(zip(keys, own, strict=True))))
    return found


def report(bench: Bench, setting: str, names: list[str], seeds: list[int]) -> Report:
    """Builds the report, one table for each model."""
    tables = []
    figures = {}
    for name in names:
        cells = [cell(bench, setting, name, seed) for seed in seeds]
        served = next(way for way in cells[0] if way.endswith("(as served)"))
        rows = []
        for way in cells[0]:
            ratios = [100 * (found[way] / found[served] - 1) for found in cells]
            rows.append(
                (way, Estimate.of([found[way] for found in cells]), percent(Estimate.of(ratios)))
            )
        tables.append(Table(name, ("test users", "nDCG@20", "against what is served"), rows))
        figures[name] = cells
    title = f"Folding new users in: {SETTINGS[setting].title}, seeds {', '.join(map(str, seeds))}"
    options = f"--data ML-1M --cells CELLS --setting {setting} --report FOLDER"
    command = f"python -m benchmarks.models.fold_in {options}"
    return Report("fold-in", title, command, PARAGRAPHS, tables, None, figures)


def percent(estimate: Estimate) -> str:
    """Formats a difference."""
    error = "" if estimate.error is None else f" ± {estimate.error:.1f}"
    return f"{estimate.mean:+.1f}{error} %"


def cell(bench: Bench, setting: str, name: str, seed: int) -> dict[str, float]:
    """Measures a seed's figures, or reads them if they were measured before."""
    path = bench.out / f"fold-in.{setting}.{name}.{seed}.json"
    if not path.is_file():
        write_json(path, measured(bench, setting, name, seed))
        print(path.name, read_json(path), flush=True)
    found: dict[str, float] = read_json(path)
    return {way: found[way] for way in sorted(found, key=lambda way: -found[way])}


PARAGRAPHS = [
    "'new' are test users of whom the training saw nothing; 'trained on' are the same users and "
    "histories, part of the training (their targets never are). 'Their own factors' are what the "
    "training learned for them, where it learns any. ± is the standard error over the seeds, "
    "which decide the split, too; differences are paired by seed. Settings of each way are "
    "chosen on the validation users.",
    "BPR and LightGCN are trained against items drawn by popularity. Their own factors so rank "
    "by how much more a user likes an item than others do, which leaves popularity out and costs "
    "a third of the nDCG; the step weighs a history against the whole catalogue and puts it "
    "back. More Newton steps get closer to the users' own factors, and rank no better.",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="ml-1m as a folder of Parquet files")
    parser.add_argument(
        "--cells", type=Path, required=True, help="where references.py keeps its cells"
    )
    parser.add_argument("--setting", choices=SETTINGS, default="stars")
    parser.add_argument("--models", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--report", type=Path, help="write fold-in.md and fold-in.json here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(arguments.data, arguments.cells, None)
    start = time.monotonic()
    for seed, name in itertools.product(arguments.seeds, arguments.models):
        cell(bench, arguments.setting, name, seed)
    if arguments.report:
        made = report(bench, arguments.setting, arguments.models, arguments.seeds)
        made.lasting(time.monotonic() - start).write(arguments.report)


if __name__ == "__main__":
    main()
