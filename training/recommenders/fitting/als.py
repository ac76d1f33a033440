"""Fits implicit ALS."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from training.checkpoint import Snapshot
from training.fit import FitContext
from training.histories import Histories
from training.loop import EpochReport, FitResult
from training.options import Count, Positive, options
from training.recommenders.als import Als

_CHUNK = 8_000
"""Entries of padded histories that are solved at a time: their vectors stay in a core's cache."""


@options
class AlsOptions:
    """Options of implicit ALS."""

    title: ClassVar[str] = "ALS"

    d: Count = 64
    """Number of factors."""
    confidence: Positive = 4.0
    """Weight of an observed pair above 1, the weight of a pair that was not observed."""
    penalty: Positive = 30.0
    """On the squared length of every user's and every item's factors."""
    sweeps: Count = 10
    """Times that all users' factors and then all items' are solved for; the best sweep is kept."""
    steps: Count = 5
    """Conjugate-gradient steps a solution, for new users too."""


def build_als(options: AlsOptions, n_items: int, _max_length: int) -> Als:
    """Builds the model, its items still without factors."""
    return Als(n_items, options.d, options.confidence, options.penalty, options.steps)


def solve_als(model: Als, options: AlsOptions, context: FitContext) -> FitResult:
    """Solves for users and items in turn, going on from the newest checkpoint if there is one.

    Items are to their users what users are to their items, so a second model, whose items are the
    users, encodes the items from who has them.
    """
    X = context.split.input_matrix(context.split.train)
    users = _histories(X)
    items = _histories(csr_matrix(X.T))
    mirror = build_als(options, users.size, 0).to(context.device)
    model.to(context.device).set_items(torch.empty(model.n_items, model.d).normal_(std=0.01))
    progress: dict[str, Any] = {"sweep": 0, "best": None, "best_sweep": 0}
    best = model.Y.clone()
    if (snapshot := context.checkpoints.load("recommender")) is not None:
        progress = snapshot.progress
        best = snapshot.tensors["best"].to(context.device)
        model.set_items(snapshot.tensors["Y"].to(context.device))
    while progress["sweep"] < options.sweeps:
        mirror.set_items(_encoded(model, users))
        model.set_items(_encoded(mirror, items))
        progress["sweep"] += 1
        value = context.validate(model)
        if progress["best"] is None or value > progress["best"]:
            progress |= {"best": value, "best_sweep": progress["sweep"]}
            best = model.Y.clone()
        loss = objective(X, mirror.Y.cpu(), model.Y.cpu(), options)
        context.report(
            EpochReport("recommender", progress["sweep"], options.sweeps, loss, progress["best"])
        )
        if context.checkpoints.due():
            snapshot = Snapshot(progress["sweep"], {"Y": model.Y, "best": best}, progress.copy())
            context.checkpoints.save("recommender", snapshot)
    model.set_items(best)
    model.cpu().eval()
    return FitResult(progress["sweep"], progress["best_sweep"], progress["best"])


def objective(X: csr_matrix, users: Tensor, items: Tensor, options: AlsOptions) -> float:
    """Computes ALS's objective per observed pair: X [n_users, n_items], users and items [n, d]."""
    everything = ((users.T @ users) * (items.T @ items)).sum()
    total = 0.0
    squares = users.square().sum() + items.square().sum()
    for start in range(0, X.shape[0], 1024):
        part = X[start : start + 1024].tocoo()
        scores = (users[start + part.row.astype(np.int64)] * items[part.col.astype(np.int64)]).sum(
            dim=1
        )
        total += float(((1 + options.confidence) * (1 - scores).square() - scores.square()).sum())
    return (total + float(everything + options.penalty * squares)) / max(int(X.nnz), 1)


def _histories(X: csr_matrix) -> Histories:
    return Histories(X.indptr.astype(np.int64), X.indices.astype(np.int64))


@torch.no_grad()
def _encoded(model: Als, histories: Histories) -> Tensor:
    """Solves for every row, [len(histories), d]; rows of like length together, to pad little."""
    order = np.argsort(histories.lengths, kind="stable")
    lengths = histories.lengths[order]
    solutions = torch.empty(histories.size, model.d, device=model.Y.device)
    stop = len(order)
    while stop:
        start = max(0, stop - max(1, _CHUNK // max(int(lengths[stop - 1]), 1)))
        rows = order[start:stop]
        items, mask = histories.rows(rows).padded()
        solutions[torch.from_numpy(rows)] = model.encode(
            items.to(solutions.device), mask.to(solutions.device)
        )
        stop = start
    return solutions
