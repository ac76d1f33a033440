"""Defines the kinds of recommenders and SAEs, and the context in which one is fitted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import torch

from training.checkpoint import Checkpoints
from training.loop import EpochReport, FitResult, Task, run_epochs
from training.recommender import Recommender
from training.schedule import Schedule
from training.splits import Split

Sae = TypeVar("Sae")


class FitContext(NamedTuple):
    """The data and services that fitting gets besides the model and its options.

    validate returns the mean nDCG@20 of the validation users; more is better.
    """

    split: Split
    max_length: int
    seed: int
    checkpoints: Checkpoints
    validate: Callable[[Recommender], float]
    report: Callable[[EpochReport], None] = lambda _: None
    device: torch.device = torch.device("cpu")

    def optimise(self, task: Task, schedule: Schedule) -> FitResult:
        """Trains task.module in place on the device, and leaves it on the CPU."""
        return run_epochs(task, schedule, self.seed, self.checkpoints, self.report, self.device)


class RecommenderKind(NamedTuple):
    """A kind of recommender.

    options is a frozen dataclass with at least d. build makes an untrained model from options, the
    size of the catalogue and the longest history that it will read. fit trains it in place. ordered
    kinds need events with times or positions.
    """

    options: type[Any]
    build: Callable[[Any, int, int], Recommender]
    fit: Callable[[Any, Any, FitContext], FitResult]
    ordered: bool = False


class SaeKind(NamedTuple, Generic[Sae]):
    """A kind of SAE.

    options is a frozen dataclass. build makes an untrained SAE from options and the width d of the
    activations; it raises ConfigError if k is more than n_neurons. fit trains it in place on the
    training users' activations of a recommender.
    """

    options: type[Any]
    build: Callable[[Any, int], Sae]
    fit: Callable[[Sae, Any, Recommender, FitContext], FitResult]
