"""Trains in epochs of steps, stops early or at losses that are no numbers, and resumes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from training.checkpoint import Checkpoints, Snapshot
from training.errors import DivergedError
from training.schedule import Schedule

_CPU = torch.device("cpu")


class Task(Protocol):
    """A training task: a module, its batches and its loss."""

    name: str
    memory: dict[str, Tensor]
    """State that must survive a restart besides the module's tensors; changed in place."""

    @property
    def module(self) -> nn.Module:
        """Returns the module that is trained."""

    def batches(self, rng: np.random.Generator) -> Iterator[Any]:
        """Yields one epoch of batches; all randomness comes from rng."""

    def loss(self, batch: Any) -> Tensor:
        """Computes the scalar that training makes smaller."""

    def before_step(self) -> None:
        """Runs between the gradient and the optimiser's step."""

    def after_step(self) -> None:
        """Runs after the optimiser's step."""

    def validate(self) -> float:
        """Measures the validation users; more is better."""


class EpochReport(NamedTuple):
    """A report for display: epochs done and planned, mean loss, best validation figure."""

    task: str
    epoch: int
    epochs: int
    loss: float
    best: float | None


class FitResult(NamedTuple):
    """The number of epochs run, the epoch of the kept state, and its validation figure."""

    epochs: int
    best_epoch: int
    best: float | None


@dataclass
class _Progress:
    epoch: int = 0
    best: float | None = None
    best_epoch: int = 0
    waited: int = 0


def run_epochs(
    task: Task,
    schedule: Schedule,
    seed: int,
    checkpoints: Checkpoints,
    report: Callable[[EpochReport], None] = lambda _: None,
    device: torch.device = _CPU,
) -> FitResult:
    """Trains task.module in place, going on from the newest checkpoint if there is one.

    The module and each batch are moved to the device; afterwards the module is on the CPU, in
    evaluation mode. An epoch's randomness depends only on the seed and its number, so a resumed run
    ends in the same bytes.

    Raises:
        DivergedError: if a loss is not finite; the last good checkpoint stays.
    """
    task.module.to(device).train()
    optimiser = torch.optim.Adam(
        task.module.parameters(), lr=schedule.lr, weight_decay=schedule.weight_decay
    )
    progress = _Progress()
    best_state = _state(task.module)
    if (snapshot := checkpoints.load(task.name)) is not None:
        progress, best_state = _restore(task, optimiser, snapshot)
    while progress.epoch < schedule.epochs and progress.waited < schedule.patience:
        lr = schedule.lr_at(progress.epoch)
        mean_loss = _run_epoch(task, optimiser, lr, seed, progress.epoch, device)
        progress.epoch += 1
        if _is_best(task, schedule, progress):
            best_state = _state(task.module)
        report(EpochReport(task.name, progress.epoch, schedule.epochs, mean_loss, progress.best))
        if checkpoints.due():
            checkpoints.save(task.name, _snapshot(task, optimiser, progress, best_state))
    if not all(bool(torch.isfinite(value).all()) for value in best_state.values()):
        raise DivergedError(
            f"{task.name}: the last step left values that are no numbers; lower the learning rate"
        )
    task.module.load_state_dict(best_state)
    task.module.cpu().eval()
    return FitResult(progress.epoch, progress.best_epoch, progress.best)


def _is_best(task: Task, schedule: Schedule, progress: _Progress) -> bool:
    """Validates the task if it is time to, updates progress, and tells whether to keep the state.

    Without validation the last state is kept.
    """
    last = progress.epoch == schedule.epochs
    if not schedule.validate_every:
        if last:
            progress.best_epoch = progress.epoch
        return last
    if not last and progress.epoch % schedule.validate_every:
        return False
    value = task.validate()
    progress.waited += 1
    if progress.best is not None and not value > progress.best:
        return False
    progress.best = value
    progress.best_epoch = progress.epoch
    progress.waited = 0
    return True


def _run_epoch(
    task: Task,
    optimiser: torch.optim.Optimizer,
    lr: float,
    seed: int,
    epoch: int,
    device: torch.device,
) -> float:
    for group in optimiser.param_groups:
        group["lr"] = lr
    # The seed holds the stage's name, so that the stages of a run do not draw the same numbers.
    rng = np.random.default_rng([seed, *task.name.encode(), epoch])
    # Dropout and the like draw from torch's generator, which thus depends on the epoch alone, too.
    torch.manual_seed(int(rng.integers(2**62)))
    total = 0.0
    steps = 0
    for batch in task.batches(rng):
        optimiser.zero_grad(set_to_none=True)
        loss = task.loss(_moved(batch, device))
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
        total = total + value
        steps = steps + 1
    return total / max(steps, 1)


def _moved(batch: Any, device: torch.device) -> Any:
    if device == _CPU:
        return batch
    if isinstance(batch, tuple):
        parts = [_moved(part, device) for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else tuple(parts)
    return batch.to(device) if isinstance(batch, Tensor) else batch


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _snapshot(
    task: Task, optimiser: torch.optim.Optimizer, progress: _Progress, best: dict[str, Tensor]
) -> Snapshot:
    tensors = {f"now.{name}": value for name, value in _state(task.module).items()}
    tensors |= {f"best.{name}": value for name, value in best.items()}
    tensors |= {f"memory.{name}": value for name, value in task.memory.items()}
    for index, slots in optimiser.state_dict()["state"].items():
        tensors |= {
            f"optimiser.{index}.{slot}": torch.as_tensor(value) for slot, value in slots.items()
        }
    return Snapshot(progress.epoch, tensors, vars(progress).copy())


def _restore(
    task: Task, optimiser: torch.optim.Optimizer, snapshot: Snapshot
) -> tuple[_Progress, dict[str, Tensor]]:
    def part(prefix: str) -> dict[str, Tensor]:
        return {
            key.removeprefix(prefix): value
            for key, value in snapshot.tensors.items()
            if key.startswith(prefix)
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
    return _Progress(**snapshot.progress), part("best.")
