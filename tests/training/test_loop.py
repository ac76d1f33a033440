"""The loop on a problem of one number, where every step can be followed."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from training.checkpoint import Checkpoints
from training.errors import ConfigError, DivergedError
from training.loop import EpochReport, run_epochs
from training.schedule import Schedule


class Line(nn.Module):
    """One weight."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))


class PullTo:
    """Pulls the weight towards noisy targets; validation is best when the weight passes peak."""

    name = "line"

    def __init__(self, peak: float = 1e9, fail_at: int | None = None) -> None:
        self.module = Line()
        self.memory = {"steps": torch.zeros((), dtype=torch.int64)}
        self.peak = peak
        self.fail_at = fail_at

    def batches(self, rng: np.random.Generator) -> Iterator[float]:
        yield from rng.normal(10, 1, size=3)

    def loss(self, batch: float) -> Tensor:
        self.memory["steps"] += 1
        if self.memory["steps"] == self.fail_at:
            return self.module.w.sum() * torch.nan
        return (self.module.w - batch).square().sum()

    def before_step(self) -> None:
        pass

    def after_step(self) -> None:
        pass

    def validate(self) -> float:
        return -abs(float(self.module.w.detach()) - self.peak)


class Interrupted(Exception):
    pass


def stop_after(epoch: int) -> object:
    def report(done: EpochReport) -> None:
        if done.epoch == epoch:
            raise Interrupted

    return report


def test_an_interrupted_run_ends_in_the_same_bytes(tmp_path: Path) -> None:
    schedule = Schedule(epochs=20, lr=0.3, decay_from=0.5, validate_every=2, patience=20)
    whole = PullTo(peak=4.0)
    expected = run_epochs(whole, schedule, 1, Checkpoints(tmp_path / "whole"))
    for epoch in (3, 8, 19):
        folder = Checkpoints(tmp_path / str(epoch), every_s=0)
        with pytest.raises(Interrupted):
            run_epochs(PullTo(peak=4.0), schedule, 1, folder, stop_after(epoch))  # type: ignore[arg-type]
        resumed = PullTo(peak=4.0)
        assert run_epochs(resumed, schedule, 1, folder) == expected
        assert torch.equal(resumed.module.w, whole.module.w)
        assert torch.equal(resumed.memory["steps"], whole.memory["steps"])


def test_the_best_state_is_kept_and_waiting_ends_the_training(tmp_path: Path) -> None:
    schedule = Schedule(epochs=500, lr=0.1, validate_every=1, patience=4)
    task = PullTo(peak=2.0)
    result = run_epochs(task, schedule, 0, Checkpoints(tmp_path))
    assert result.epochs == result.best_epoch + 4 < 500
    assert result.best is not None
    assert task.validate() == result.best
    assert abs(float(task.module.w.detach()) - 2.0) < 0.3


def test_without_validation_the_last_state_is_the_result(tmp_path: Path) -> None:
    task = PullTo()
    result = run_epochs(task, Schedule(epochs=200, lr=0.5), 0, Checkpoints(tmp_path))
    assert (result.epochs, result.best_epoch, result.best) == (200, 200, None)
    assert abs(float(task.module.w.detach()) - 10) < 1


def test_a_loss_that_is_no_number_stops_at_its_step_and_keeps_the_last_good_checkpoint(
    tmp_path: Path,
) -> None:
    checkpoints = Checkpoints(tmp_path, every_s=0)
    with pytest.raises(DivergedError, match=r"line: the loss is nan at step 2 of epoch 5"):
        run_epochs(PullTo(fail_at=3 * 4 + 2), Schedule(epochs=20, lr=0.1), 0, checkpoints)
    kept = checkpoints.load("line")
    assert kept is not None
    assert kept.epoch == 4
    assert all(torch.isfinite(value).all() for value in kept.tensors.values())


def test_a_last_step_that_overflows_is_noticed(tmp_path: Path) -> None:
    class Overflows(PullTo):
        def batches(self, _rng: np.random.Generator) -> Iterator[float]:
            yield 1.0

        def after_step(self) -> None:
            with torch.no_grad():
                self.module.w.fill_(torch.inf)

    with pytest.raises(DivergedError, match="the last step left values that are no numbers"):
        run_epochs(Overflows(), Schedule(epochs=1, lr=0.1), 0, Checkpoints(tmp_path))


def test_only_the_newest_checkpoint_stays_and_a_half_written_one_is_ignored(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, every_s=0)
    run_epochs(PullTo(), Schedule(epochs=5, lr=0.1), 0, checkpoints)
    assert [path.name for path in tmp_path.iterdir()] == ["line-000005"]
    (tmp_path / "line-000009.writing").mkdir()
    found = checkpoints.load("line")
    assert found is not None
    assert found.epoch == 5


def test_the_step_size_falls_to_0_from_the_stated_share_on() -> None:
    schedule = Schedule(epochs=10, lr=1.0, decay_from=0.5)
    assert [round(schedule.lr_at(epoch), 6) for epoch in range(10)] == [
        1,
        1,
        1,
        1,
        1,
        1,
        0.8,
        0.6,
        0.4,
        0.2,
    ]
    assert Schedule(epochs=10, lr=1.0).lr_at(9) == 1.0


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"lr": -1.0}, {"lr": float("nan")}, {"patience": 0}]
)
def test_schedules_without_meaning_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Schedule(**({"epochs": 1, "lr": 1.0} | wrong))  # type: ignore[arg-type]
