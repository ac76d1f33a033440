"""Fills the disk during training: a readable end, no partial file, and the same file later."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from training.errors import RunError
from training.run import load_run

FLAGS = [
    "--data",
    "synthetic",
    "--data-n-users",
    "200",
    "--data-n-items",
    "60",
    "--data-n-concepts",
    "4",
]
FLAGS += [
    "--recommender-d",
    "16",
    "--recommender-epochs",
    "10",
    "--sae-epochs",
    "20",
    "--sae-k",
    "4",
]


# The process sets its limit itself: code between fork and exec would run gRPC's fork handlers,
# where another test has a channel open.
PROGRAM = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write then fails as it does on a full disk
largest_file = int(sys.argv.pop(1))
if largest_file:
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
from training.cli import train
sys.exit(train())
"""


def run(out: Path, largest_file: int = 0) -> "subprocess.CompletedProcess[str]":
    """Runs trimtab-train with a limit of the size of its files, in bytes; 0: no limit."""
    command = [
        sys.executable,
        "-c",
        PROGRAM,
        str(largest_file),
        *FLAGS,
        "--threads",
        "1",
        "--out",
        str(out),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def digests(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
    }


def test_a_full_disk_ends_training_readably_and_with_room_it_goes_on_to_the_same_files(
    tmp_path: Path,
) -> None:
    full = run(tmp_path / "run", largest_file=4_000)
    assert full.returncode != 0
    assert "Traceback" not in full.stderr
    assert "goes on where it stopped" in full.stderr
    with pytest.raises(RunError):
        load_run(tmp_path / "run")
    for folder in ("run", "whole"):
        done = run(tmp_path / folder, largest_file=0)
        assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "run") == digests(tmp_path / "whole")
