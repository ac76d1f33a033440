"""Trains LightGCN."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding

from training.fit import FitContext
from training.loop import FitResult
from training.options import Count, Positive, PositiveOrZero, options
from training.recommenders.fitting.factors import Factors, FactorsOptions, FactorsTask
from training.recommenders.fitting.pairs import PairBatch, Pairs, bpr_loss
from training.recommenders.lightgcn import Graph, Layer, LightGcn


@options
class LightGcnOptions(FactorsOptions):
    """Options of LightGCN."""

    title: ClassVar[str] = "LightGCN"

    layers: Count = 3
    """Layers of propagation over the user-item graph."""
    batch_size: Count = 16384
    """User-item pairs a step; every step propagates over the whole graph."""
    negatives: Count = 4
    """Items a pair is compared with, drawn by popularity from those its user does not have."""
    penalty: PositiveOrZero = 1e-4
    """On the squared length of layer 0, for each time it takes part in a comparison."""
    propagation: bool = False
    """Fold new users in by propagation to them alone, rather than by the step that ranks better."""
    fold_in_penalty: Positive = 0.3
    """On the squared length of a new user's embedding."""


class GraphFactors(Factors):
    """Layer 0 of users and items, and the graph over which it is propagated."""

    def __init__(self, model: LightGcn, graph: Graph, n_users: int, n_layers: int) -> None:
        super().__init__(model, n_users)
        self.graph = graph
        self.n_layers = n_layers

    def layers(self) -> list[Layer]:
        """Returns all layers."""
        return self.graph.layers(self.users, self.items, self.n_layers)

    @torch.no_grad()
    def hand_over(self) -> None:
        """Gives the model what was learned so far."""
        layers = self.layers()
        model = cast(LightGcn, self.model)
        model.set_items(mean(layers).items, model.b)
        model.pooled.copy_(self.graph.pooled(layers))


def mean(layers: list[Layer]) -> Layer:
    """Returns the final embeddings: the mean over the layers."""
    return Layer(*(torch.stack(parts).mean(dim=0) for parts in zip(*layers, strict=True)))


class LightGcnTask(FactorsTask):
    """BPR on the final embeddings."""

    module: GraphFactors

    def __init__(self, module: GraphFactors, options: LightGcnOptions, context: FitContext) -> None:
        super().__init__(module, context)
        self.options = options
        self.pairs = Pairs(context.split.histories(context.split.train), context.split.n_items)

    def batches(self, rng: np.random.Generator) -> Iterator[PairBatch]:
        """Yields all pairs in random order."""
        return self.pairs.batches(rng, self.options.batch_size, self.options.negatives)

    def loss(self, batch: PairBatch) -> Tensor:
        """Computes the pairwise loss, and the penalty on layer 0 of the user and both items."""
        final = mean(self.module.layers())
        users = embedding(batch.users, final.users)
        items = embedding(batch.items, final.items)
        loss = bpr_loss(users, items, users.new_zeros(len(users)), batch)
        squares = embedding(batch.users, self.module.users).square().sum(dim=1)
        squares = squares + 2 * embedding(batch.items, self.module.items).square().sum(dim=1)
        return loss + self.options.penalty / 2 * squares.mean()


def build_lightgcn(options: LightGcnOptions, n_items: int, _max_length: int) -> LightGcn:
    """Builds the model, its items still without vectors."""
    return LightGcn(n_items, options.d, options.fold_in(), options.propagation)


def train_lightgcn(model: LightGcn, options: LightGcnOptions, context: FitContext) -> FitResult:
    """Trains with early stopping on the validation users, who are folded in."""
    split = context.split
    graph = Graph(split.histories(split.train), split.n_items)
    module = GraphFactors(model, graph, len(split.train), options.layers)
    return context.optimise(LightGcnTask(module, options, context), options.schedule())
