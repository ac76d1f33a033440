"""How LightGCN is trained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding

from training.errors import ConfigError
from training.loop import FitResult
from training.recommenders.fitting.base import FitContext
from training.recommenders.fitting.factors import Factors, FactorsTask, check
from training.recommenders.fitting.pairs import PairBatch, Pairs, bpr_loss
from training.recommenders.lightgcn import Graph, Layer, LightGcn
from training.schedule import Schedule


@dataclass(frozen=True)
class LightGcnOptions:
    """LightGCN's options."""

    d: int = 64
    """Width of the embeddings."""
    layers: int = 3
    """Layers of propagation over the user-item graph."""
    lr: float = 1e-2
    """Adam's step size."""
    batch_size: int = 16384
    """User-item pairs a step; every step propagates over the whole graph."""
    negatives: int = 4
    """Items a pair is compared with, drawn by popularity from those its user does not have."""
    penalty: float = 1e-4
    """On the squared length of layer 0 of each compared user and item."""
    epochs: int = 60
    """Passes over the training users' pairs, at most."""
    validate_every: int = 5
    """Epochs between looks at the validation users' nDCG@20."""
    patience: int = 3
    """Looks without a new best after which training stops; the best state is kept."""
    propagation: bool = False
    """Fold new users in by propagation to them alone, rather than by the step that ranks better."""
    fold_in_negatives: float = 4.0
    """Weight of the catalogue, against that of the history, when a new user is folded in."""
    fold_in_penalty: float = 0.3
    """On the squared length of a new user's embedding."""
    fold_in_steps: int = 8
    """Conjugate-gradient steps that fold a new user in."""

    def __post_init__(self) -> None:
        if self.layers < 1:
            raise ConfigError(f"LightGCN: layers is {self.layers}, expected at least 1")
        self.schedule()

    def schedule(self) -> Schedule:
        """The loop's settings."""
        return check("LightGCN", self)


class GraphFactors(Factors):
    """Layer 0 of users and items, and the graph over which it is propagated."""

    def __init__(self, model: LightGcn, graph: Graph, n_users: int, n_layers: int) -> None:
        super().__init__(model, n_users)
        self.graph, self.n_layers = graph, n_layers

    def layers(self) -> list[Layer]:
        """All layers."""
        return self.graph.layers(self.users, self.items, self.n_layers)

    @torch.no_grad()
    def hand_over(self) -> None:
        """Gives the model what was learned so far."""
        layers, model = self.layers(), cast(LightGcn, self.model)
        model.set_items(mean(layers).items, model.b)
        model.pooled.copy_(self.graph.pooled(layers))


def mean(layers: list[Layer]) -> Layer:
    """The final embeddings: the mean over the layers."""
    return Layer(*(torch.stack(parts).mean(dim=0) for parts in zip(*layers, strict=True)))


class LightGcnTask(FactorsTask):
    """BPR on the final embeddings."""

    module: GraphFactors

    def __init__(self, module: GraphFactors, options: LightGcnOptions, context: FitContext) -> None:
        super().__init__(module, context)
        self.options = options
        self.pairs = Pairs(context.split.histories(context.split.train), context.split.n_items)

    def batches(self, rng: np.random.Generator) -> Iterator[PairBatch]:
        """All pairs in random order."""
        return self.pairs.batches(rng, self.options.batch_size, self.options.negatives)

    def loss(self, batch: PairBatch) -> Tensor:
        """The pairwise loss, and the penalty on layer 0 of the user and of both items."""
        final = mean(self.module.layers())
        users, items = embedding(batch.users, final.users), embedding(batch.items, final.items)
        loss = bpr_loss(users, items, users.new_zeros(len(users)), batch)
        squares = embedding(batch.users, self.module.users).square().sum(dim=1)
        squares = squares + 2 * embedding(batch.items, self.module.items).square().sum(dim=1)
        return loss + self.options.penalty / 2 * squares.mean()


def build_lightgcn(options: LightGcnOptions, n_items: int, max_length: int) -> LightGcn:
    """The model, its items still without vectors."""
    fold_in = (options.fold_in_negatives, options.fold_in_penalty, options.fold_in_steps)
    return LightGcn(n_items, options.d, *fold_in, propagation=options.propagation)


def fit_lightgcn(model: LightGcn, options: LightGcnOptions, context: FitContext) -> FitResult:
    """Trains with early stopping on the validation users, who are folded in."""
    split = context.split
    graph = Graph(split.histories(split.train), split.n_items)
    module = GraphFactors(model, graph, len(split.train), options.layers)
    return context.fit(LightGcnTask(module, options, context), options.schedule())
