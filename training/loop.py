"""The training loop: epochs of steps, early stopping, a stop at a loss that is no number, and resuming."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from training.checkpoint import Checkpoints, Snapshot
from training.errors import ConfigError, DivergedError


class Task(Protocol):
    """What is trained: a module, its batches, its loss."""

    name: str
    memory: dict[str, Tensor]
    """What must survive a restart beside the module's own tensors; changed in place."""

    @property
    def module(self) -> nn.Module:
        """What is trained."""

    def batches(self, rng: np.random.Generator) -> Iterator[Any]:
        """One epoch of batches; all chance comes from rng."""

    def loss(self, batch: Any) -> Tensor:
        """The scalar to be made smaller."""

    def before_step(self) -> None:
        """Between the gradient and the optimiser's step."""

    def after_step(self) -> None:
        """After the optimiser's step."""

    def validate(self) -> float:
        """A figure to be made larger, on validation users."""


@dataclass(frozen=True)
class Schedule:
    """How long, how fast, and when to stop."""

    epochs: int
    """Passes over the training users, at most."""
    lr: float
    """Adam's step size."""
    decay_from: float = 1.0
    """From this share of the epochs on, the step size falls linearly to 0."""
    validate_every: int = 0
    """Epochs between looks at the validation users; 0 never looks, and the last state is the result."""
    patience: int = 1
    """Looks without a new best after which training stops."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or not self.lr > 0 or self.patience < 1:
            raise ConfigError(
                "expected epochs >= 1, lr > 0 and patience >= 1, "
                f"found {self.epochs}, {self.lr}, {self.patience}"
            )

    def lr_at(self, epoch: int) -> float:
        """The step size of an epoch, counted from 0."""
        progress = epoch / self.epochs
        if progress <= self.decay_from or self.decay_from >= 1:
            return self.lr
        return self.lr * (1 - progress) / (1 - self.decay_from)


class EpochReport(NamedTuple):
    """What the caller may show while training: epochs done of how many, mean loss, best validation figure."""

    task: str
    epoch: int
    epochs: int
    loss: float
    best: float | None


class FitResult(NamedTuple):
    """epochs that were run, the epoch of the state that was kept, and its validation figure."""

    epochs: int
    best_epoch: int
    best: float | None


@dataclass
class _Progress:
    epoch: int = 0
    best: float | None = None
    best_epoch: int = 0
    waited: int = 0


def fit(
    task: Task,
    schedule: Schedule,
    seed: int,
    checkpoints: Checkpoints,
    report: Callable[[EpochReport], None] = lambda _: None,
) -> FitResult:
    """Trains task.module in place, going on from the newest checkpoint if there is one.

    An epoch's chance depends only on the seed and its number, so a resumed run ends in the same bytes.

    Raises:
        DivergedError: if a loss is not finite; the last good checkpoint stays.
    """
    optimiser = torch.optim.Adam(task.module.parameters(), lr=schedule.lr)
    progress, best_state = _Progress(), _state(task.module)
    if (found := checkpoints.load(task.name)) is not None:
        progress, best_state = _restore(task, optimiser, found)
    while progress.epoch < schedule.epochs and progress.waited < schedule.patience:
        mean_loss = _run_epoch(task, optimiser, schedule.lr_at(progress.epoch), seed, progress.epoch)
        progress.epoch += 1
        last = progress.epoch == schedule.epochs
        if not schedule.validate_every:
            if last:
                progress.best_epoch, best_state = progress.epoch, _state(task.module)
        elif last or progress.epoch % schedule.validate_every == 0:
            value = task.validate()
            progress.waited += 1
            if progress.best is None or value > progress.best:
                progress.best, progress.best_epoch, progress.waited = value, progress.epoch, 0
                best_state = _state(task.module)
        report(EpochReport(task.name, progress.epoch, schedule.epochs, mean_loss, progress.best))
        if checkpoints.due():
            checkpoints.save(task.name, _snapshot(task, optimiser, progress, best_state))
    if not all(bool(torch.isfinite(value).all()) for value in best_state.values()):
        raise DivergedError(
            f"{task.name}: the last step left values that are no numbers; lower the learning rate"
        )
    task.module.load_state_dict(best_state)
    return FitResult(progress.epoch, progress.best_epoch, progress.best)


def _run_epoch(task: Task, optimiser: torch.optim.Optimizer, lr: float, seed: int, epoch: int) -> float:
    for group in optimiser.param_groups:
        group["lr"] = lr
    # The stage's name is part of the seed, so that two stages of one run do not share their chance.
    rng = np.random.default_rng([seed, *task.name.encode(), epoch])
    total, steps = 0.0, 0
    for batch in task.batches(rng):
        optimiser.zero_grad(set_to_none=True)
        loss = task.loss(batch)
        value = loss.item()
        if not np.isfinite(value):
            raise DivergedError(
                f"{task.name}: the loss is {value} at step {steps + 1} of epoch {epoch + 1}; "
                "the last good checkpoint is kept: lower the learning rate and start a new run"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        task.before_step()
        optimiser.step()
        task.after_step()
        total, steps = total + value, steps + 1
    return total / max(steps, 1)


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _snapshot(
    task: Task, optimiser: torch.optim.Optimizer, progress: _Progress, best: dict[str, Tensor]
) -> Snapshot:
    tensors = {f"now.{name}": value for name, value in _state(task.module).items()}
    tensors |= {f"best.{name}": value for name, value in best.items()}
    tensors |= {f"memory.{name}": value for name, value in task.memory.items()}
    for index, slots in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{slot}": torch.as_tensor(value) for slot, value in slots.items()}
    return Snapshot(progress.epoch, tensors, vars(progress).copy())


def _restore(
    task: Task, optimiser: torch.optim.Optimizer, found: Snapshot
) -> tuple[_Progress, dict[str, Tensor]]:
    def part(prefix: str) -> dict[str, Tensor]:
        return {
            key.removeprefix(prefix): value for key, value in found.tensors.items() if key.startswith(prefix)
        }

    task.module.load_state_dict(part("now."))
    for name, value in part("memory.").items():
        task.memory[name].copy_(value)
    state = optimiser.state_dict()
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in part("optimiser.").items():
        index, slot = key.split(".", 1)
        slots.setdefault(int(index), {})[slot] = value
    optimiser.load_state_dict(state | {"state": slots})
    return _Progress(**found.progress), part("best.")
