"""Selects the only run of a report, and formats runs' names for titles."""

from __future__ import annotations

from collections.abc import Sequence

from training.errors import ConfigError
from training.run import Run


def only_run(runs: Sequence[Run]) -> Run:
    """Returns the only run.

    Raises:
        ConfigError: if there are several.
    """
    if len(runs) != 1:
        raise ConfigError(f"--run: expected one run, found {len(runs)}")
    return runs[0]


def run_name(run: Run) -> str:
    """Formats the data set, the recommender and the SAE of a run."""
    return f"{run.data_set}, {run.config.recommender} + {run.config.sae}"


def seeds_of(runs: Sequence[Run]) -> str:
    """Formats the seeds of the runs."""
    return ", ".join(str(run.config.seed) for run in runs)
