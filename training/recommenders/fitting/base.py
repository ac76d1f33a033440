"""What fitting any recommender needs, and what one kind of recommender is to the registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from training.checkpoint import Checkpoints
from training.loop import EpochReport, FitResult, Task, fit
from training.recommenders.base import Recommender
from training.schedule import Schedule
from training.splits import Split


class FitContext(NamedTuple):
    """What fitting needs beside the model and its options.

    validate gives a figure to be made larger, measured on the validation users: their mean nDCG@20.
    """

    split: Split
    max_length: int
    seed: int
    checkpoints: Checkpoints
    validate: Callable[[Recommender], float]
    report: Callable[[EpochReport], None] = lambda _: None
    device: torch.device = torch.device("cpu")

    def fit(self, task: Task, schedule: Schedule) -> FitResult:
        """Trains task.module in place on the device, and leaves it on the CPU."""
        return fit(task, schedule, self.seed, self.checkpoints, self.report, self.device)


class RecommenderKind(NamedTuple):
    """A kind of recommender.

    options is a frozen dataclass with at least d; build makes the model from options, the
    catalogue's size and the longest history it will read; ordered kinds need events with times or
    positions.
    """

    options: type[Any]
    build: Callable[[Any, int, int], Recommender]
    fit: Callable[[Any, Any, FitContext], FitResult]
    ordered: bool = False
