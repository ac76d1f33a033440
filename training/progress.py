"""Defines the receiver of a training run's progress."""

from __future__ import annotations

from typing import Protocol

from training.loop import EpochReport
from training.summary import DataSummary


class Reporter(Protocol):
    """Receives the progress of training."""

    def note(self, text: str) -> None:
        """Receives something a person should know."""

    def epoch(self, report: EpochReport) -> None:
        """Receives the figures of a finished epoch."""

    def concept(self, done: int, total: int) -> None:
        """Receives the number of finished concepts."""

    def data(self, summary: DataSummary) -> None:
        """Receives the summary of the data that were read."""


class Silent:
    """A reporter that says nothing."""

    def note(self, text: str) -> None:
        """Ignores the note."""

    def epoch(self, report: EpochReport) -> None:
        """Ignores the epoch."""

    def concept(self, done: int, total: int) -> None:
        """Ignores the concept."""

    def data(self, summary: DataSummary) -> None:
        """Ignores the summary."""
