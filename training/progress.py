"""Defines the receiver of a training run's progress."""

from __future__ import annotations

from typing import Protocol

from training.loop import EpochReport
from training.summary import DataSummary


class Reporter(Protocol):
    """Who is told how training goes."""

    def note(self, text: str) -> None:
        """Something a person should know."""

    def epoch(self, report: EpochReport) -> None:
        """An epoch is done."""

    def concept(self, done: int, total: int) -> None:
        """A concept is done."""

    def data(self, summary: DataSummary) -> None:
        """The data were read."""


class Silent:
    """A reporter that says nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def epoch(self, report: EpochReport) -> None:
        """Nothing."""

    def concept(self, done: int, total: int) -> None:
        """Nothing."""

    def data(self, summary: DataSummary) -> None:
        """Nothing."""
