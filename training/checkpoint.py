"""Writes and reads snapshots of training: tensors as safetensors, other values as JSON.

A process that is killed at any instant leaves the old file or the new one, never half of one.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.errors import RunError

_FILE_MODE = 0o644
"""safetensors writes files that only their owner may read; others may export a run."""


class Snapshot(NamedTuple):
    """The state of a stage of training after an epoch: tensors and plain numbers."""

    epoch: int
    tensors: dict[str, Tensor]
    progress: dict[str, Any]


class Checkpoints:
    """The snapshots under a folder: STAGE-EPOCH/, of which only the newest of a stage is kept."""

    def __init__(
        self, folder: Path, every_s: float = 5.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.folder = folder
        self.every_s = every_s
        self._clock = clock
        self._saved_at = clock()

    def due(self) -> bool:
        """Returns true if the last snapshot is every_s old."""
        return self._clock() - self._saved_at >= self.every_s

    def save(self, stage: str, snapshot: Snapshot) -> None:
        """Writes under a temporary name, renames, then removes older snapshots of the stage."""
        final = self.folder / f"{stage}-{snapshot.epoch:06d}"
        temporary = final.with_suffix(".writing")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        save_tensors(temporary / "state.safetensors", snapshot.tensors)
        write_json(
            temporary / "state.json", {"epoch": snapshot.epoch, "progress": snapshot.progress}
        )
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        for older in self._of(stage):
            if older != final:
                shutil.rmtree(older)
        self._saved_at = self._clock()

    def load(self, stage: str) -> Snapshot | None:
        """Returns the newest snapshot of the stage, or None."""
        snapshots = self._of(stage)
        if not snapshots:
            return None
        state = read_json(snapshots[-1] / "state.json")
        return Snapshot(
            state["epoch"], load_tensors(snapshots[-1] / "state.safetensors"), state["progress"]
        )

    def _of(self, stage: str) -> list[Path]:
        return sorted(path for path in self.folder.glob(f"{stage}-*") if path.suffix != ".writing")


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Writes a safetensors file; the same tensors give the same bytes.

    Raises:
        OSError: if it cannot be written.
    """
    temporary = path.with_name(path.name + ".writing")
    try:
        save_file({name: value.contiguous() for name, value in tensors.items()}, temporary)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    temporary.chmod(_FILE_MODE)
    temporary.replace(path)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Reads a safetensors file.

    Raises:
        RunError: if it is absent or damaged.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} is not a readable safetensors file: {error}") from error


def write_json(path: Path, value: Any) -> None:
    """Writes JSON with sorted keys, whole or not at all."""
    temporary = path.with_name(path.name + ".writing")
    with temporary.open("w") as file:
        json.dump(value, file, indent=2, sort_keys=True, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_json(path: Path) -> Any:
    """Reads JSON.

    Raises:
        RunError: if the file is absent or is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is not a readable JSON file: {error}") from error
