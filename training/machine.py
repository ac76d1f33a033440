"""Chooses the threads and the device of a run, and describes the machine for reports."""

from __future__ import annotations

import argparse
import os
import platform
from pathlib import Path

import torch

from training.errors import ConfigError


def add_machine_flags(parser: argparse.ArgumentParser) -> None:
    """Adds --threads and --device."""
    text = "CPU threads (default: as many as torch chooses)."
    parser.add_argument("--threads", type=int, default=0, help=text)
    text = "Where torch trains: auto (an accelerator if there is one), cpu, cuda, mps "
    text += "... (default: auto)."
    parser.add_argument("--device", default="auto", help=text)


def use_threads(count: int) -> None:
    """Sets the number of torch's threads; 0 leaves the choice to torch."""
    if count < 0:
        raise ConfigError(f"--threads: expected 0 or more, found {count}")
    if count:
        torch.set_num_threads(count)


def device_of(name: str) -> torch.device:
    """Returns the device that a name means.

    Raises:
        ConfigError: torch cannot use it here.
    """
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--device is {name!r}: torch cannot use it here: {reason}") from error
    return device


def describe_machine() -> str:
    """Describes processor, cores, threads and versions in one line."""
    processor = _processor() or platform.processor() or platform.machine()
    return (
        f"{processor}, {os.cpu_count()} cores, {torch.get_num_threads()} torch threads, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), ""
    )
